-- What each role may do in the lake. Run by the owner of the schemas after every migration, by `streaming migrate --grant`
-- or by psql -v lander=... -v reader=... -f grants.sql; running it again changes nothing. Not numbered: it always holds.
-- A table is named here or nobody but its owner gets at it: tests/deploy/test_grants.py compares this with the migrations.

GRANT USAGE ON SCHEMA control, landing, lake TO :"lander", :"reader";

-- lander: the consumer. It appends events and ledger rows and moves offsets; it can neither delete nor rewrite, nor read
-- events that have landed. Of a dead letter it may only note that it was replayed.
GRANT SELECT ON control.migration, control.stream, control.reader_day, control.retired_day TO :"lander";
GRANT SELECT, INSERT ON control.batch, control.batch_day, control.gap TO :"lander";
GRANT SELECT, INSERT, UPDATE ON control.offset, control.landed_day TO :"lander";
REVOKE UPDATE ON control.dead_letter FROM :"lander";
GRANT SELECT, INSERT, UPDATE (replayed_at, replay_batch, replay_value) ON control.dead_letter TO :"lander";
GRANT INSERT ON ALL TABLES IN SCHEMA landing TO :"lander";
GRANT EXECUTE ON FUNCTION control.ensure_landing_partition(text, date) TO :"lander";

-- reader: who loads and looks. They read, and note how far they have read.
GRANT SELECT ON ALL TABLES IN SCHEMA control, landing, lake TO :"reader";
GRANT INSERT, UPDATE, DELETE ON control.reader_day TO :"reader";
ALTER DEFAULT PRIVILEGES IN SCHEMA landing, lake GRANT SELECT ON TABLES TO :"reader";
