-- Retention: months that the contract no longer keeps leave landing; what they held stays known, so that nothing that is
-- counted from the ledger changes and a late event of such a day is told apart from a whole day.

CREATE TABLE control.retired_day (
    topic            text NOT NULL,
    event_day        date NOT NULL,
    topic_partition  integer NOT NULL,
    rows             bigint NOT NULL,
    checksum         numeric NOT NULL,
    last_batch       integer NOT NULL,
    retired_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, event_day, topic_partition)
);
COMMENT ON TABLE control.retired_day IS
    'Rows that retention has taken out of landing: how many, the sum of their identities (as lake.day_checksum), and the '
    'last batch that had been written to the day by then.';
