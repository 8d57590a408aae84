#fail net sales are gross sales less returns
SELECT event_id, gross_sales_gbp, returns_gbp, net_sales_gbp
FROM mart.invoice_lines
WHERE invoice_date IN UNNEST(@days) AND net_sales_gbp != gross_sales_gbp - returns_gbp;

#fail rows and amount are those of the first deliveries in core
-- Rows and amount of all deliveries, less those of the deliveries behind the first: few events are delivered twice, and
-- only their deliveries are put in order.
SELECT core.invoice_date, core.row_count, core.amount_gbp, mart.row_count AS mart_rows, mart.amount_gbp AS mart_amount_gbp
FROM (
  SELECT
    deliveries.invoice_date,
    deliveries.row_count - COALESCE(later.row_count, 0) AS row_count,
    deliveries.amount_gbp - COALESCE(later.amount_gbp, NUMERIC '0') AS amount_gbp
  FROM (
    SELECT invoice_date, COUNT(*) AS row_count, SUM(amount_gbp) AS amount_gbp
    FROM core.invoice_lines
    WHERE invoice_date IN UNNEST(@days)
    GROUP BY invoice_date
  ) AS deliveries
  LEFT JOIN (
    SELECT ordered.invoice_date, COUNT(*) AS row_count, SUM(ordered.amount_gbp) AS amount_gbp
    FROM (
      SELECT invoice_date, amount_gbp
      FROM core.invoice_lines
      WHERE invoice_date IN UNNEST(@days) AND event_id IN (
        SELECT event_id
        FROM core.invoice_lines
        WHERE invoice_date IN UNNEST(@days)
        GROUP BY event_id
        HAVING COUNT(*) > 1
      )
      QUALIFY ROW_NUMBER() OVER (
        PARTITION BY invoice_date, event_id
        ORDER BY topic, topic_partition, topic_offset
      ) > 1
    ) AS ordered
    GROUP BY ordered.invoice_date
  ) AS later ON later.invoice_date = deliveries.invoice_date
) AS core
FULL OUTER JOIN (
  SELECT invoice_date, COUNT(*) AS row_count, SUM(amount_gbp) AS amount_gbp
  FROM mart.invoice_lines
  WHERE invoice_date IN UNNEST(@days)
  GROUP BY invoice_date
) AS mart ON mart.invoice_date = core.invoice_date
WHERE core.row_count IS DISTINCT FROM mart.row_count OR core.amount_gbp IS DISTINCT FROM mart.amount_gbp;

#warn no line has a stock code that no rule knows
SELECT event_id, stock_code
FROM mart.invoice_lines
WHERE invoice_date IN UNNEST(@days) AND line_kind = 'unknown';
