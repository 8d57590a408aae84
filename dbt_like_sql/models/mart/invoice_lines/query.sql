-- Grain: one row an event. A repeat is the same event_id delivered again; its first delivery (lowest offset) counts.
SELECT
  l.invoice_date,
  l.invoiced_at,
  l.event_id,
  l.invoice_no,
  l.line_no,
  l.invoice_kind,
  l.line_kind,
  l.price_kind,
  l.stock_code,
  l.description,
  COALESCE(l.customer_id, 'guest') AS customer_id,
  l.country,
  l.quantity,
  l.unit_price_gbp,
  IF(l.line_kind = 'product' AND l.invoice_kind = 'sale', l.amount_gbp, NUMERIC '0') AS gross_sales_gbp,
  IF(l.line_kind = 'product' AND l.invoice_kind = 'cancellation', -l.amount_gbp, NUMERIC '0') AS returns_gbp,
  IF(l.line_kind = 'product' AND l.invoice_kind IN ('sale', 'cancellation'), l.amount_gbp, NUMERIC '0') AS net_sales_gbp,
  l.amount_gbp,
  l.produced_at,
  l.topic,
  l.topic_partition,
  l.topic_offset
FROM core.invoice_lines AS l
WHERE l.invoice_date IN UNNEST(@days)
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY l.invoice_date, l.event_id
  ORDER BY l.topic, l.topic_partition, l.topic_offset
) = 1
