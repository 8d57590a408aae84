-- Grain: table_name, topic, event_day. A view, so that it is never older than the ledgers it reads.
SELECT
  loaded.table_name,
  loaded.topic,
  loaded.event_day,
  loaded.changed_at,
  latest.landed_rows,
  latest.dead_letter_rows,
  latest.open_dead_letter_rows,
  latest.core_rows,
  latest.core_repeat_rows,
  latest.core_amount_gbp,
  latest.mart_rows,
  latest.mart_amount_gbp,
  latest.newest_produced_at,
  -- NULL: the latest load has not been counted yet, and the count before it found nothing that differs
  IF(latest.is_reconciled AND latest.core_version <> loaded.version, NULL, latest.is_reconciled) AS is_reconciled,
  latest.recorded_at
FROM control.day AS loaded
LEFT JOIN control.reconciliation AS latest
  ON latest.topic = loaded.topic
  AND latest.event_day = loaded.event_day
  -- before comparisons named their table, one was of whichever table the topic is loaded into
  AND COALESCE(latest.table_name, loaded.table_name) = loaded.table_name
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY loaded.table_name, loaded.topic, loaded.event_day ORDER BY latest.recorded_at DESC
) = 1
-- A backfill also loads the days on which nothing has landed: no count of them is missing.
AND (
  COALESCE(ARRAY_LENGTH(loaded.batches), 1) > 0
  OR latest.core_rows > 0
  OR latest.mart_rows > 0
  OR NOT latest.is_reconciled
)
