CREATE TABLE IF NOT EXISTS `project.control.day` (
  table_name STRING NOT NULL,
  topic STRING NOT NULL,
  event_day DATE NOT NULL,
  version INT64 NOT NULL,
  batches ARRAY<STRUCT<topic_partition INT64, batch INT64>>,
  run_id STRING NOT NULL,
  code_version STRING NOT NULL,
  changed_at TIMESTAMP NOT NULL
)
CLUSTER BY table_name, event_day;
CREATE TABLE IF NOT EXISTS `project.control.incarnation` (
  incarnation STRING NOT NULL,
  rows_created INT64 NOT NULL,
  created_at TIMESTAMP NOT NULL
)
AS
/* Runs once, as the table is created: creating a table is the one thing that can only happen once. */
SELECT
  GENERATE_UUID() AS incarnation,
  0 AS rows_created,
  CURRENT_TIMESTAMP() AS created_at;
CREATE TABLE IF NOT EXISTS `project.control.load` (
  table_name STRING NOT NULL,
  topic STRING NOT NULL,
  event_day DATE NOT NULL,
  version INT64 NOT NULL,
  is_rebuild BOOL NOT NULL,
  staged_rows INT64 NOT NULL,
  offsets ARRAY<STRUCT<topic_partition INT64, first_offset INT64, last_offset INT64, row_count INT64>>,
  batches ARRAY<STRUCT<topic_partition INT64, batch INT64>>,
  run_id STRING NOT NULL,
  code_version STRING NOT NULL,
  loaded_at TIMESTAMP NOT NULL
)
CLUSTER BY table_name, event_day;
CREATE TABLE IF NOT EXISTS `project.control.publication` (
  table_name STRING NOT NULL,
  event_day DATE,
  version INT64 NOT NULL,
  source_version INT64 NOT NULL,
  model_version STRING NOT NULL,
  run_id STRING NOT NULL,
  published_at TIMESTAMP NOT NULL
)
CLUSTER BY table_name, event_day;
CREATE TABLE IF NOT EXISTS `project.control.publisher` (
  table_name STRING NOT NULL,
  version INT64 NOT NULL,
  run_id STRING NOT NULL,
  published_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS `project.control.reconciliation` (
  topic STRING NOT NULL,
  event_day DATE NOT NULL,
  core_version INT64,
  landed_rows INT64,
  landed_checksum NUMERIC,
  dead_letter_rows INT64,
  core_rows INT64,
  core_repeat_rows INT64,
  core_checksum NUMERIC,
  core_amount_gbp NUMERIC,
  mart_rows INT64,
  mart_amount_gbp NUMERIC,
  newest_produced_at TIMESTAMP,
  is_reconciled BOOL NOT NULL,
  run_id STRING NOT NULL,
  recorded_at TIMESTAMP NOT NULL
)
CLUSTER BY topic, event_day;
CREATE TABLE IF NOT EXISTS `project.control.restatement` (
  table_name STRING NOT NULL,
  event_day DATE NOT NULL,
  version INT64 NOT NULL,
  source_version_before INT64 NOT NULL,
  source_version INT64 NOT NULL,
  rows_before INT64 NOT NULL,
  rows_after INT64 NOT NULL,
  measures ARRAY<STRUCT<name STRING, before NUMERIC, after NUMERIC>>,
  caused_by ARRAY<STRUCT<topic STRING, topic_partition INT64, first_offset INT64, last_offset INT64, row_count INT64>>,
  model_version STRING NOT NULL,
  run_id STRING NOT NULL,
  restated_at TIMESTAMP NOT NULL
)
CLUSTER BY table_name, event_day;
CREATE TABLE IF NOT EXISTS `project.core.invoice_lines` (
  topic STRING NOT NULL,
  topic_partition INT64 NOT NULL,
  topic_offset INT64 NOT NULL,
  event_id STRING NOT NULL,
  invoice_date DATE NOT NULL,
  invoiced_at TIMESTAMP NOT NULL,
  invoice_no STRING NOT NULL,
  line_no INT64 NOT NULL,
  invoice_kind STRING NOT NULL,
  line_kind STRING NOT NULL,
  price_kind STRING NOT NULL,
  stock_code STRING NOT NULL,
  description STRING,
  quantity INT64 NOT NULL,
  unit_price_gbp NUMERIC NOT NULL,
  amount_gbp NUMERIC NOT NULL,
  customer_id STRING,
  is_guest BOOL NOT NULL,
  country STRING NOT NULL,
  produced_at TIMESTAMP NOT NULL
)
PARTITION BY invoice_date
CLUSTER BY topic_partition, topic_offset
OPTIONS (require_partition_filter=TRUE);
CREATE OR REPLACE VIEW `project.mart.data_trust` (
  invoice_date,
  landed_rows,
  dead_letter_rows,
  core_rows,
  core_amount_gbp,
  repeat_rows,
  mart_rows,
  mart_amount_gbp,
  is_reconciled,
  published_at,
  newest_produced_at
)
AS SELECT invoice_date, landed_rows, dead_letter_rows, core_rows, core_amount_gbp, repeat_rows, mart_rows, mart_amount_gbp, is_reconciled, published_at, newest_produced_at FROM (
/* Grain: invoice_date. A view, so that it is never older than the ledgers it reads. */
WITH loaded AS (
  SELECT
    event_day,
    version
  FROM `project.control.day` AS day
  WHERE
    table_name = 'core.invoice_lines'
), compared AS (
  SELECT
    *
  FROM `project.control.reconciliation` AS reconciliation
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY event_day ORDER BY recorded_at DESC) = 1
), published AS (
  SELECT
    event_day,
    MAX(published_at) AS published_at
  FROM `project.control.publication` AS publication
  WHERE
    table_name = 'mart.invoice_lines'
  GROUP BY
    event_day
)
SELECT
  loaded.event_day AS invoice_date,
  compared.landed_rows,
  compared.dead_letter_rows,
  compared.core_rows,
  compared.core_amount_gbp,
  compared.core_repeat_rows AS repeat_rows,
  compared.mart_rows,
  compared.mart_amount_gbp,
  COALESCE(compared.is_reconciled AND compared.core_version = loaded.version, FALSE) AS is_reconciled,
  published.published_at,
  compared.newest_produced_at
FROM loaded
LEFT JOIN compared
  ON compared.event_day = loaded.event_day
LEFT JOIN published
  ON published.event_day = loaded.event_day
);
CREATE TABLE IF NOT EXISTS `project.mart.invoice_lines` (
  invoice_date DATE NOT NULL,
  invoiced_at TIMESTAMP NOT NULL,
  event_id STRING NOT NULL,
  invoice_no STRING NOT NULL,
  line_no INT64 NOT NULL,
  invoice_kind STRING NOT NULL,
  line_kind STRING NOT NULL,
  price_kind STRING NOT NULL,
  stock_code STRING NOT NULL,
  description STRING,
  customer_id STRING NOT NULL,
  country STRING NOT NULL,
  quantity INT64 NOT NULL,
  unit_price_gbp NUMERIC NOT NULL,
  gross_sales_gbp NUMERIC NOT NULL,
  returns_gbp NUMERIC NOT NULL,
  net_sales_gbp NUMERIC NOT NULL,
  amount_gbp NUMERIC NOT NULL,
  produced_at TIMESTAMP NOT NULL,
  topic STRING NOT NULL,
  topic_partition INT64 NOT NULL,
  topic_offset INT64 NOT NULL
)
PARTITION BY invoice_date
CLUSTER BY country, stock_code;
CREATE TABLE IF NOT EXISTS `project.mart.countries` (
  country STRING NOT NULL,
  first_invoice_date DATE NOT NULL,
  last_invoice_date DATE NOT NULL
);
CREATE TABLE IF NOT EXISTS `project.mart.customers` (
  customer_id STRING NOT NULL,
  is_guest BOOL NOT NULL,
  country STRING NOT NULL,
  first_invoice_date DATE NOT NULL,
  last_invoice_date DATE NOT NULL,
  invoices INT64 NOT NULL
);
CREATE TABLE IF NOT EXISTS `project.mart.daily_sales_by_country` (
  invoice_date DATE NOT NULL,
  country STRING NOT NULL,
  lines INT64 NOT NULL,
  invoices INT64 NOT NULL,
  items INT64 NOT NULL,
  gross_sales_gbp NUMERIC NOT NULL,
  returns_gbp NUMERIC NOT NULL,
  net_sales_gbp NUMERIC NOT NULL,
  amount_gbp NUMERIC NOT NULL
)
PARTITION BY invoice_date
CLUSTER BY country;
CREATE TABLE IF NOT EXISTS `project.mart.daily_sales_by_product` (
  invoice_date DATE NOT NULL,
  stock_code STRING NOT NULL,
  lines INT64 NOT NULL,
  invoices INT64 NOT NULL,
  items INT64 NOT NULL,
  gross_sales_gbp NUMERIC NOT NULL,
  returns_gbp NUMERIC NOT NULL,
  net_sales_gbp NUMERIC NOT NULL,
  amount_gbp NUMERIC NOT NULL
)
PARTITION BY invoice_date
CLUSTER BY stock_code;
CREATE TABLE IF NOT EXISTS `project.mart.dates` (
  date DATE NOT NULL,
  year INT64 NOT NULL,
  quarter STRING NOT NULL,
  month_number INT64 NOT NULL,
  month_name STRING NOT NULL,
  year_month STRING NOT NULL,
  year_month_number INT64 NOT NULL,
  iso_year_week STRING NOT NULL,
  weekday_number INT64 NOT NULL,
  weekday_name STRING NOT NULL,
  day_of_month INT64 NOT NULL
);
CREATE TABLE IF NOT EXISTS `project.mart.products` (
  stock_code STRING NOT NULL,
  description STRING,
  product STRING NOT NULL,
  line_kind STRING NOT NULL,
  first_invoice_date DATE NOT NULL,
  last_invoice_date DATE NOT NULL
);
