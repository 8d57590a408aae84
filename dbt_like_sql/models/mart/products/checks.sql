#fail product labels are unique
SELECT product, COUNT(*) AS row_count
FROM mart.products
GROUP BY product
HAVING COUNT(*) > 1;

#fail every stock code of the fact table has a product
SELECT DISTINCT lines.stock_code
FROM mart.invoice_lines AS lines
LEFT JOIN mart.products AS products ON products.stock_code = lines.stock_code
WHERE products.stock_code IS NULL;
