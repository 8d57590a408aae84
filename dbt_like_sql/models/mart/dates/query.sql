-- Grain: day. Whole years, since time intelligence in DAX needs them.
WITH bounds AS (
  SELECT
    LEAST(COALESCE(EXTRACT(YEAR FROM MIN(invoice_date)), EXTRACT(YEAR FROM @today)), EXTRACT(YEAR FROM @today)) AS first_year,
    GREATEST(COALESCE(EXTRACT(YEAR FROM MAX(invoice_date)), EXTRACT(YEAR FROM @today)), EXTRACT(YEAR FROM @today)) AS last_year
  FROM mart.invoice_lines
)
SELECT
  day AS date,
  EXTRACT(YEAR FROM day) AS year,
  FORMAT('%d Q%d', EXTRACT(YEAR FROM day), EXTRACT(QUARTER FROM day)) AS quarter,
  EXTRACT(MONTH FROM day) AS month_number,
  FORMAT_DATE('%B', day) AS month_name,
  FORMAT_DATE('%Y-%m', day) AS year_month,
  EXTRACT(YEAR FROM day) * 100 + EXTRACT(MONTH FROM day) AS year_month_number,
  FORMAT('%d-W%02d', EXTRACT(ISOYEAR FROM day), EXTRACT(ISOWEEK FROM day)) AS iso_year_week,
  MOD(EXTRACT(DAYOFWEEK FROM day) + 5, 7) + 1 AS weekday_number,
  FORMAT_DATE('%A', day) AS weekday_name,
  EXTRACT(DAY FROM day) AS day_of_month
FROM bounds
CROSS JOIN UNNEST(GENERATE_DATE_ARRAY(DATE(bounds.first_year, 1, 1), DATE(bounds.last_year, 12, 31))) AS day
