-- Grain: invoice_date. A view, so that it is never older than the ledgers it reads.
WITH compared AS (
  SELECT *
  FROM control.compared_day
  WHERE table_name = 'core.invoice_lines'
),
newest AS (
  SELECT SUM(open_dead_letter_rows) AS open_dead_letter_rows
  FROM (
    SELECT open_dead_letter_rows
    FROM compared
    WHERE recorded_at IS NOT NULL
    QUALIFY ROW_NUMBER() OVER (PARTITION BY topic ORDER BY recorded_at DESC) = 1
  ) AS latest
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
  compared.event_day AS invoice_date,
  compared.landed_rows,
  compared.dead_letter_rows,
  newest.open_dead_letter_rows,
  compared.core_rows,
  compared.core_amount_gbp,
  compared.core_repeat_rows AS repeat_rows,
  compared.mart_rows,
  compared.mart_amount_gbp,
  COALESCE(shown.amount_gbp, compared.mart_amount_gbp) AS published_amount_gbp,
  compared.is_reconciled,
  published.published_at,
  COALESCE(published.newest_produced_at, compared.newest_produced_at) AS newest_produced_at
FROM compared
CROSS JOIN newest
LEFT JOIN published ON published.event_day = compared.event_day
LEFT JOIN shown ON shown.event_day = compared.event_day
