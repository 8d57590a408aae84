-- Runs once, as the table is created: creating a table is the one thing that can only happen once.
SELECT GENERATE_UUID() AS incarnation, 0 AS rows_created, CURRENT_TIMESTAMP() AS created_at
