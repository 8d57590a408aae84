-- Grain: stock_code. The description of the latest priced line wins: free lines carry notes such as "damaged".
WITH described AS (
  SELECT
    stock_code,
    description,
    ROW_NUMBER() OVER (
      PARTITION BY stock_code
      ORDER BY IF(price_kind = 'priced', 0, 1), invoiced_at DESC, topic DESC, topic_partition DESC, topic_offset DESC
    ) AS rank_from_latest
  FROM mart.invoice_lines
  WHERE description IS NOT NULL
),
sold AS (
  SELECT
    stock_code,
    line_kind,
    MIN(invoice_date) OVER (PARTITION BY stock_code) AS first_invoice_date,
    MAX(invoice_date) OVER (PARTITION BY stock_code) AS last_invoice_date
  FROM mart.invoice_lines
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY stock_code
    ORDER BY invoiced_at DESC, topic DESC, topic_partition DESC, topic_offset DESC
  ) = 1
)
SELECT
  sold.stock_code,
  described.description,
  CONCAT(sold.stock_code, ' ', COALESCE(described.description, '(no description)')) AS product,
  sold.line_kind,
  sold.first_invoice_date,
  sold.last_invoice_date
FROM sold
LEFT JOIN described ON described.stock_code = sold.stock_code AND described.rank_from_latest = 1
