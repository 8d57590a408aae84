-- A typed view is made anew where this version makes another one of the same contract: it is told by its statement.

ALTER TABLE control.stream ADD COLUMN view_sha256 text;
COMMENT ON COLUMN control.stream.view_sha256 IS
    'Fingerprint of the statement that made the typed view; NULL: by a version that did not keep it.';
