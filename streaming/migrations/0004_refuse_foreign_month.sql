-- A table that is called like a month of a stream may be another stream's: events must neither land in it nor be shown as
-- that stream's. As in 0001, but for the check of a table that exists.

CREATE OR REPLACE FUNCTION control.ensure_landing_partition(stream_name text, month_start date) RETURNS text
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
    ELSIF NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = to_regclass(format('landing.%I', part))
                                                  AND i.inhparent = to_regclass(format('landing.%I', stream_name))) THEN
        RAISE EXCEPTION 'landing.% exists and is no month of landing.%: is there a stream of that name, or was the month '
            'detached? Rename that table, or attach it again', part, stream_name;
    END IF;
    RETURN part;
END $$;
