"""What the report reads, as the warehouse keeps it to name what a breaking change breaks."""

from __future__ import annotations

import json

from dbt_like_sql.migrate import READERS
from orchestration.trace import report_readers


def test_readers_file_is_what_the_report_reads_now() -> None:
    how = "it is stale: python -m orchestration.trace readers > dbt_like_sql/models/readers.json"
    assert json.loads(READERS.read_text(encoding="utf-8")) == report_readers(), how


def test_slicers_and_filters_are_readers_of_their_columns_and_visuals_of_their_measures_columns() -> None:
    found = {each["name"]: set(each["columns"]) for each in report_readers() if each["kind"] == "visual"}
    assert "mart.countries.country" in found["overview/slicer_country"]
    assert "mart.invoice_lines.gross_sales_gbp" in found["overview/card_net_sales"]
    assert len(found) > 30
