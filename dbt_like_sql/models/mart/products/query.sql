-- Grain: stock_code. The description of the latest priced line wins: free lines carry notes such as "damaged".
-- The newest instants first, then the newest of their few lines: all lines of a product are never sorted.
WITH own AS (
  SELECT
    stock_code,
    MAX(invoiced_at) AS newest_at,
    MIN(invoice_date) AS first_invoice_date,
    MAX(invoice_date) AS last_invoice_date,
    MAX(IF(description IS NOT NULL, invoiced_at, NULL)) AS described_at,
    MAX(IF(description IS NOT NULL AND price_kind = 'priced', invoiced_at, NULL)) AS described_and_priced_at
  FROM mart.invoice_lines
  GROUP BY stock_code
),
sold AS (
  SELECT lines.stock_code, lines.line_kind
  FROM mart.invoice_lines AS lines
  JOIN own ON own.stock_code = lines.stock_code AND own.newest_at = lines.invoiced_at
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY lines.stock_code
    ORDER BY lines.topic DESC, lines.topic_partition DESC, lines.topic_offset DESC
  ) = 1
),
described AS (
  SELECT lines.stock_code, lines.description
  FROM mart.invoice_lines AS lines
  JOIN own
    ON own.stock_code = lines.stock_code
    AND COALESCE(own.described_and_priced_at, own.described_at) = lines.invoiced_at
  WHERE lines.description IS NOT NULL AND (own.described_and_priced_at IS NULL OR lines.price_kind = 'priced')
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY lines.stock_code
    ORDER BY lines.topic DESC, lines.topic_partition DESC, lines.topic_offset DESC
  ) = 1
)
SELECT
  own.stock_code,
  described.description,
  CONCAT(own.stock_code, ' ', COALESCE(described.description, '(no description)')) AS product,
  sold.line_kind,
  own.first_invoice_date,
  own.last_invoice_date
FROM own
JOIN sold ON sold.stock_code = own.stock_code
LEFT JOIN described ON described.stock_code = own.stock_code
