SELECT
  v.visit_date AS day,
  v.page,
  COUNT(*) AS deliveries,
  COUNTIF(v.seconds >= 60) AS long_ones,
  SUM(v.seconds) AS seconds
FROM core.visits AS v
WHERE v.visit_date IN UNNEST(@days)
GROUP BY v.visit_date, v.page
