-- Grain: invoice_date. A view, so that it is never older than the ledgers it reads.
WITH loaded AS (
  SELECT topic, event_day, version
  FROM control.day
  WHERE table_name = 'core.invoice_lines'
),
compared AS (
  SELECT *
  FROM control.reconciliation
  QUALIFY ROW_NUMBER() OVER (PARTITION BY topic, event_day ORDER BY recorded_at DESC) = 1
),
newest AS (
  SELECT SUM(open_dead_letter_rows) AS open_dead_letter_rows
  FROM (
    SELECT open_dead_letter_rows
    FROM control.reconciliation
    WHERE topic IN (SELECT topic FROM loaded)
    QUALIFY ROW_NUMBER() OVER (PARTITION BY topic ORDER BY recorded_at DESC) = 1
  )
),
published AS (
  SELECT event_day, MAX(published_at) AS published_at, MAX(as_of) AS newest_produced_at
  FROM control.publication
  WHERE table_name = 'mart.invoice_lines'
  GROUP BY event_day
),
shown AS (
  SELECT event_day, (SELECT sums.value FROM UNNEST(measures) AS sums WHERE sums.name = 'amount_gbp') AS amount_gbp
  FROM control.publication
  WHERE table_name = 'mart.invoice_lines'
  QUALIFY ROW_NUMBER() OVER (PARTITION BY event_day ORDER BY version DESC) = 1
)
SELECT
  loaded.event_day AS invoice_date,
  compared.landed_rows,
  compared.dead_letter_rows,
  newest.open_dead_letter_rows,
  compared.core_rows,
  compared.core_amount_gbp,
  compared.core_repeat_rows AS repeat_rows,
  compared.mart_rows,
  compared.mart_amount_gbp,
  COALESCE(shown.amount_gbp, compared.mart_amount_gbp) AS published_amount_gbp,
  -- NULL: the latest load has not been counted yet, and the count before it found nothing that differs
  IF(compared.is_reconciled AND compared.core_version <> loaded.version, NULL, compared.is_reconciled) AS is_reconciled,
  published.published_at,
  COALESCE(published.newest_produced_at, compared.newest_produced_at) AS newest_produced_at
FROM loaded
CROSS JOIN newest
LEFT JOIN compared ON compared.topic = loaded.topic AND compared.event_day = loaded.event_day
LEFT JOIN published ON published.event_day = loaded.event_day
LEFT JOIN shown ON shown.event_day = loaded.event_day
