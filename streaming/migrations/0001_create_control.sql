-- The ledger: what landed, what was refused, what is missing, and how far each topic partition has got.
-- One transaction of the landing writes landing rows, dead letters, gaps, ledger and offset together.

CREATE SCHEMA IF NOT EXISTS control;
CREATE SCHEMA IF NOT EXISTS landing;
CREATE SCHEMA IF NOT EXISTS lake;

COMMENT ON SCHEMA control IS 'Ledger of the landing: offsets, batches, dead letters, gaps, readers.';
COMMENT ON SCHEMA landing IS 'Events as they came from Kafka, one table a stream, partitioned by month of the event day.';
COMMENT ON SCHEMA lake IS 'Typed views of landing, derived from the contracts.';

CREATE TABLE control.stream (
    topic            text PRIMARY KEY,
    stream           text NOT NULL UNIQUE,
    contract_version text NOT NULL,
    fields           jsonb NOT NULL,
    time_zone        text NOT NULL,
    registered_at    timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE control.stream IS 'One row a contract that was migrated; a breaking change is judged against it.';

CREATE TABLE control.offset (
    topic            text NOT NULL,
    topic_partition  integer NOT NULL,
    topic_id         text,
    first_offset     bigint NOT NULL,
    next_offset      bigint NOT NULL,
    next_batch       integer NOT NULL DEFAULT 1,
    epoch            bigint NOT NULL DEFAULT 0,
    owner            text,
    claimed_at       timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, topic_partition),
    CHECK (next_offset >= first_offset)
) WITH (fillfactor = 50);
COMMENT ON TABLE control.offset IS 'The next offset to land: the only truth about progress. Epoch is the fencing token, raised by each claim.';

CREATE TABLE control.batch (
    topic              text NOT NULL,
    topic_partition    integer NOT NULL,
    batch              integer NOT NULL,
    kind               text NOT NULL DEFAULT 'landing' CHECK (kind IN ('landing', 'replay')),
    first_offset       bigint NOT NULL,
    last_offset        bigint NOT NULL,
    rows               integer NOT NULL,
    dead_letters       integer NOT NULL,
    gap_offsets        bigint NOT NULL,
    payload_bytes      bigint NOT NULL,
    first_event_at     timestamptz,
    last_event_at      timestamptz,
    newest_produced_at timestamptz,
    landed_by          text,
    landed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    written_by         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (topic, topic_partition, batch)
);
CREATE INDEX batch_written_by ON control.batch (written_by);
COMMENT ON TABLE control.batch IS 'Append-only: one row a topic partition and transaction, numbered 1, 2, 3... in commit order.';

CREATE TABLE control.batch_day (
    topic            text NOT NULL,
    topic_partition  integer NOT NULL,
    batch            integer NOT NULL,
    event_day        date NOT NULL,
    kind             text NOT NULL DEFAULT 'landing',
    rows             integer NOT NULL,
    first_offset     bigint NOT NULL,
    last_offset      bigint NOT NULL,
    PRIMARY KEY (topic, event_day, topic_partition, batch)
);
COMMENT ON TABLE control.batch_day IS 'Append-only: which offsets of a batch belong to which event day.';

CREATE TABLE control.landed_day (
    topic            text NOT NULL,
    event_day        date NOT NULL,
    topic_partition  integer NOT NULL,
    rows             bigint NOT NULL,
    payload_bytes    bigint NOT NULL,
    first_offset     bigint NOT NULL,
    last_offset      bigint NOT NULL,
    last_batch       integer NOT NULL,
    landed_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, event_day, topic_partition)
) WITH (fillfactor = 70);
COMMENT ON TABLE control.landed_day IS 'Sum of batch_day, kept in the same transaction, so that a sensor reads days and not batches.';

CREATE TABLE control.dead_letter (
    topic            text NOT NULL,
    topic_partition  integer NOT NULL,
    topic_offset     bigint NOT NULL,
    reason           text NOT NULL,
    field            text,
    detail           text NOT NULL,
    value            bytea,
    key              bytea,
    headers          jsonb NOT NULL DEFAULT '[]',
    produced_at      timestamptz,
    landed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    replayed_at      timestamptz,
    replay_batch     integer,
    replay_value     bytea,
    PRIMARY KEY (topic, topic_partition, topic_offset)
);
CREATE INDEX dead_letter_open ON control.dead_letter (topic, landed_at) WHERE replayed_at IS NULL;
COMMENT ON TABLE control.dead_letter IS
    'Events kept aside, whole, with the reason. Headers: array of [name, value, encoding]; encoding is utf8 or base64.';

CREATE TABLE control.gap (
    topic            text NOT NULL,
    topic_partition  integer NOT NULL,
    first_offset     bigint NOT NULL,
    last_offset      bigint NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('below_log_start', 'not_delivered')),
    detail           text NOT NULL,
    found_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, topic_partition, first_offset),
    CHECK (last_offset >= first_offset)
);
COMMENT ON TABLE control.gap IS
    'Offsets that hold no event for us. below_log_start: lost, deleted before they landed. '
    'not_delivered: control records of transactions, aborted or compacted records; no loss.';

CREATE TABLE control.reader_day (
    topic            text NOT NULL,
    reader           text NOT NULL,
    event_day        date NOT NULL,
    topic_partition  integer NOT NULL,
    batch            integer NOT NULL,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, reader, event_day, topic_partition)
) WITH (fillfactor = 70);
COMMENT ON TABLE control.reader_day IS 'A hint of how far a reader has got in a day; the truth is in the reader''s own ledger.';

-- Creates the landing table's partition of one month, unless it exists. The month is built aside and then attached,
-- which locks the table for writers of other months only for an instant. SECURITY DEFINER: the lander needs no DDL right.
CREATE FUNCTION control.ensure_landing_partition(stream_name text, month_start date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day date := date_trunc('month', month_start)::date;
    last_day  date := (date_trunc('month', month_start) + interval '1 month')::date;
    part      text := stream_name || to_char(date_trunc('month', month_start), '"_"YYYY"_"MM');
BEGIN
    IF NOT EXISTS (SELECT FROM control.stream s WHERE s.stream = stream_name) THEN
        RAISE EXCEPTION 'stream % is not registered: run `streaming migrate`', stream_name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('landing.' || part, 0));
    IF to_regclass(format('landing.%I', part)) IS NULL THEN
        EXECUTE format('CREATE TABLE landing.%I (LIKE landing.%I INCLUDING ALL)', part, stream_name);
        EXECUTE format('ALTER TABLE landing.%I ADD CONSTRAINT event_month CHECK (event_day >= %L AND event_day < %L)',
                       part, first_day, last_day);
        EXECUTE format('ALTER TABLE landing.%I ATTACH PARTITION landing.%I FOR VALUES FROM (%L) TO (%L)',
                       stream_name, part, first_day, last_day);
        EXECUTE format('ALTER TABLE landing.%I DROP CONSTRAINT event_month', part);
    END IF;
    RETURN part;
END $$;
REVOKE ALL ON FUNCTION control.ensure_landing_partition(text, date) FROM PUBLIC;
