#fail every customer of the fact table is there
SELECT DISTINCT lines.customer_id
FROM mart.invoice_lines AS lines
LEFT JOIN mart.customers AS customers ON customers.customer_id = lines.customer_id
WHERE customers.customer_id IS NULL;
