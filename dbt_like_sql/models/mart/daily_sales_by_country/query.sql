-- Grain: invoice_date, country. Cancellations are netted in net_sales_gbp; amount_gbp holds every line of whatever kind.
SELECT
  invoice_date,
  country,
  COUNT(*) AS lines,
  COUNT(DISTINCT invoice_no) AS invoices,
  SUM(IF(line_kind = 'product' AND invoice_kind IN ('sale', 'cancellation'), quantity, 0)) AS items,
  SUM(gross_sales_gbp) AS gross_sales_gbp,
  SUM(returns_gbp) AS returns_gbp,
  SUM(net_sales_gbp) AS net_sales_gbp,
  SUM(amount_gbp) AS amount_gbp
FROM mart.invoice_lines
WHERE invoice_date IN UNNEST(@days)
GROUP BY invoice_date, country
