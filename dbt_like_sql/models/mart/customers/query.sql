-- Grain: customer_id; all guests share one row.
-- The newest instant first, then the newest of its few lines: all lines of a customer are never sorted. Guests are a fifth of all.
WITH own AS (
  SELECT
    customer_id,
    MAX(invoiced_at) AS newest_at,
    MIN(invoice_date) AS first_invoice_date,
    MAX(invoice_date) AS last_invoice_date,
    COUNT(DISTINCT IF(invoice_kind = 'sale', invoice_no, NULL)) AS invoices
  FROM mart.invoice_lines
  GROUP BY customer_id
),
latest AS (
  SELECT lines.customer_id, lines.country
  FROM mart.invoice_lines AS lines
  JOIN own ON own.customer_id = lines.customer_id AND own.newest_at = lines.invoiced_at
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY lines.customer_id
    ORDER BY lines.topic DESC, lines.topic_partition DESC, lines.topic_offset DESC
  ) = 1
)
SELECT
  own.customer_id,
  own.customer_id = 'guest' AS is_guest,
  IF(own.customer_id = 'guest', 'Various', latest.country) AS country,
  own.first_invoice_date,
  own.last_invoice_date,
  own.invoices
FROM own
JOIN latest ON latest.customer_id = own.customer_id
