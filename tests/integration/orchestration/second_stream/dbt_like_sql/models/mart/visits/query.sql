SELECT v.visit_date, v.visit_id, v.page, v.seconds, v.topic, v.topic_partition, v.topic_offset
FROM core.visits AS v
WHERE v.visit_date IN UNNEST(@days)
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY v.visit_date, v.visit_id ORDER BY v.topic, v.topic_partition, v.topic_offset
) = 1
