#fail every day of the fact table is there
SELECT DISTINCT lines.invoice_date
FROM mart.invoice_lines AS lines
LEFT JOIN mart.dates AS dates ON dates.date = lines.invoice_date
WHERE dates.date IS NULL;

#fail no day is missing in between
SELECT MIN(date) AS first_date, MAX(date) AS last_date, COUNT(*) AS row_count
FROM mart.dates
HAVING COUNT(*) != DATE_DIFF(MAX(date), MIN(date), DAY) + 1;
