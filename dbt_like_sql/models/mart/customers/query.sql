-- Grain: customer_id; all guests share one row.
WITH latest AS (
  SELECT customer_id, country
  FROM mart.invoice_lines
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY customer_id
    ORDER BY invoiced_at DESC, topic DESC, topic_partition DESC, topic_offset DESC
  ) = 1
)
SELECT
  lines.customer_id,
  lines.customer_id = 'guest' AS is_guest,
  IF(lines.customer_id = 'guest', 'Various', ANY_VALUE(latest.country)) AS country,
  MIN(lines.invoice_date) AS first_invoice_date,
  MAX(lines.invoice_date) AS last_invoice_date,
  COUNT(DISTINCT IF(lines.invoice_kind = 'sale', lines.invoice_no, NULL)) AS invoices
FROM mart.invoice_lines AS lines
JOIN latest ON latest.customer_id = lines.customer_id
GROUP BY lines.customer_id
