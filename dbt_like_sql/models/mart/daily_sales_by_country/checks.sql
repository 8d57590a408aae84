#fail lines and amounts are those of the fact table
SELECT fact.invoice_date, fact.lines AS fact_lines, sales.lines, fact.amount_gbp AS fact_amount_gbp, sales.amount_gbp
FROM (
  SELECT invoice_date, COUNT(*) AS lines, SUM(net_sales_gbp) AS net_sales_gbp, SUM(amount_gbp) AS amount_gbp
  FROM mart.invoice_lines
  WHERE invoice_date IN UNNEST(@days)
  GROUP BY invoice_date
) AS fact
FULL OUTER JOIN (
  SELECT invoice_date, SUM(lines) AS lines, SUM(net_sales_gbp) AS net_sales_gbp, SUM(amount_gbp) AS amount_gbp
  FROM mart.daily_sales_by_country
  WHERE invoice_date IN UNNEST(@days)
  GROUP BY invoice_date
) AS sales ON sales.invoice_date = fact.invoice_date
WHERE fact.lines IS DISTINCT FROM sales.lines
  OR fact.net_sales_gbp IS DISTINCT FROM sales.net_sales_gbp
  OR fact.amount_gbp IS DISTINCT FROM sales.amount_gbp;
