-- Grain: country.
SELECT
  country,
  MIN(invoice_date) AS first_invoice_date,
  MAX(invoice_date) AS last_invoice_date
FROM mart.invoice_lines
GROUP BY country
