-- Tombstones of change topics hold no event: a contract may skip them, and they are accounted for like gaps.

ALTER TABLE control.gap DROP CONSTRAINT gap_kind_check;
ALTER TABLE control.gap
    ADD CONSTRAINT gap_kind_check CHECK (kind IN ('below_log_start', 'not_delivered', 'tombstone'));
COMMENT ON TABLE control.gap IS
    'Offsets that hold no event for us. below_log_start: lost, deleted before they landed. '
    'not_delivered: control records of transactions, aborted or compacted records; no loss. '
    'tombstone: a message without a value that the contract skips; no loss.';
