#fail every country of the fact table is there
SELECT DISTINCT lines.country
FROM mart.invoice_lines AS lines
LEFT JOIN mart.countries AS countries ON countries.country = lines.country
WHERE countries.country IS NULL;
