-- What each role may do in the lake. Run by lake_owner after every migration; running it again changes nothing.
-- A table is named here or nobody but its owner gets at it: tests/deploy/test_grants.py compares this with the migrations.

GRANT USAGE ON SCHEMA control, landing, lake TO lander, reader;

-- lander: the consumer. It appends events and ledger rows and moves offsets; it can neither delete nor rewrite.
GRANT SELECT ON control.migration, control.stream, control.reader_day TO lander;
GRANT SELECT, INSERT ON control.batch, control.batch_day, control.gap TO lander;
GRANT SELECT, INSERT, UPDATE ON control.offset, control.landed_day, control.dead_letter TO lander;
GRANT INSERT ON ALL TABLES IN SCHEMA landing TO lander;
GRANT EXECUTE ON FUNCTION control.ensure_landing_partition(text, date) TO lander;

-- reader: Mage and Dagster. They read, and note how far they have read.
GRANT SELECT ON ALL TABLES IN SCHEMA control, landing, lake TO reader;
GRANT INSERT, UPDATE, DELETE ON control.reader_day TO reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA landing, lake GRANT SELECT ON TABLES TO reader;
