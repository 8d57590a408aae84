"""How long a page of the report takes over many fact rows, and how soon a refresh shows: --rows, --rounds, --json FILE.

Every round asks another date range and other countries, so nothing is answered from a cache; a page is what the
stand-in sends for it: every visual's numbers, every picture, HTML. Rows are made up from a seed, in the marts' shape:
13 months, 3,958 products, 4,373 customers, 38 countries. No Kafka, no BigQuery: the marts come from memory.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import requests
import uvicorn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from powerbi.refresh import refresh_model  # noqa: E402 - the checkout comes first
from powerbi.settings import PowerBiSettings  # noqa: E402
from powerbi.standin.app import create_app  # noqa: E402
from powerbi.standin.marts import Marts, MartsSettings  # noqa: E402
from powerbi.standin.service import Service, Settings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST, LAST = dt.date(2024, 1, 2), dt.date(2025, 1, 31)
# A few countries buy most, as in any shop; products and customers follow a power of a uniform chance.
_LINES = """
CREATE TABLE invoice_lines AS
WITH chance AS (
  SELECT i, hash(i // 20, 1) % 1000000 / 1e6 AS c, hash(i // 20, 2) % 1000000 / 1e6 AS d, hash(i // 20, 3) % 1000000 / 1e6 AS k,
    hash(i // 20, 4) % 1000000 / 1e6 AS w, hash(i, 5) % 1000000 / 1e6 AS p, hash(i, 6) % 1000000 / 1e6 AS l, hash(i, 7) AS q
  FROM range({rows}) AS t(i)
), drawn AS (
  SELECT *, CASE WHEN k < 0.93 THEN 'sale' WHEN k < 0.998 THEN 'cancellation' ELSE 'adjustment' END AS invoice_kind,
    CASE WHEN l < 0.97 THEN 'product' ELSE 'postage' END AS line_kind
  FROM chance
), priced AS (
  SELECT DATE '{first}' + CAST(floor(d * {days}) AS INTEGER) AS invoice_date,
    CASE invoice_kind WHEN 'sale' THEN '' WHEN 'cancellation' THEN 'C' ELSE 'A' END || (536365 + i // 20) AS invoice_no,
    i % 20 + 1 AS line_no, invoice_kind, line_kind, 'priced' AS price_kind,
    CASE WHEN line_kind = 'product' THEN CAST(10000 + CAST(floor(pow(p, 2) * 3957) AS INTEGER) AS VARCHAR) ELSE 'POST' END
      AS stock_code,
    CASE WHEN w < 0.25 THEN 'guest' ELSE CAST(12000 + CAST(floor(pow(w, 2) * 4373) AS INTEGER) AS VARCHAR) END AS customer_id,
    CASE WHEN c < 0.9 THEN 'United Kingdom' ELSE 'Country ' || lpad(CAST(CAST(floor((c - 0.9) * 370) AS INTEGER) AS VARCHAR), 2, '0') END
      AS country,
    CAST(q % 24 + 1 AS BIGINT) * CASE WHEN invoice_kind = 'cancellation' THEN -1 ELSE 1 END AS quantity,
    CAST((29 + q // 100 % 2000) / 100 AS DECIMAL(38, 9)) AS unit_price_gbp
  FROM drawn
)
SELECT *, CAST(quantity * unit_price_gbp AS DECIMAL(38, 9)) AS amount_gbp,
  CASE WHEN line_kind = 'product' AND invoice_kind = 'sale' THEN amount_gbp ELSE 0::DECIMAL(38, 9) END AS gross_sales_gbp,
  CASE WHEN line_kind = 'product' AND invoice_kind = 'cancellation' THEN -amount_gbp ELSE 0::DECIMAL(38, 9) END AS returns_gbp
FROM priced
"""  # noqa: E501 - the numbers are this file's
_OTHERS = """
CREATE TABLE dates AS SELECT CAST(d AS DATE) AS date, year(d) AS year, year(d) || ' Q' || quarter(d) AS quarter,
  month(d) AS month_number, monthname(d) AS month_name, strftime(d, '%Y-%m') AS year_month,
  year(d) * 100 + month(d) AS year_month_number, strftime(d, '%G-W%V') AS iso_year_week,
  isodow(d) AS weekday_number, dayname(d) AS weekday_name
FROM range(TIMESTAMP '2024-01-01', TIMESTAMP '2026-01-01', INTERVAL 1 DAY) AS t(d);
CREATE TABLE products AS SELECT DISTINCT stock_code, 'THING ' || stock_code AS description,
  stock_code || ' THING ' || stock_code AS product FROM invoice_lines;
CREATE TABLE customers AS SELECT customer_id, max(country) AS country, min(invoice_date) AS first_invoice_date,
  max(invoice_date) AS last_invoice_date, customer_id = 'guest' AS is_guest FROM invoice_lines GROUP BY ALL;
CREATE TABLE countries AS SELECT DISTINCT country FROM invoice_lines;
CREATE TABLE data_trust AS SELECT invoice_date, count(*) AS landed_rows, 0 AS dead_letter_rows,
  0 AS open_dead_letter_rows, count(*) AS core_rows,
  sum(amount_gbp) AS core_amount_gbp, 0 AS repeat_rows, count(*) AS mart_rows, sum(amount_gbp) AS mart_amount_gbp,
  sum(amount_gbp) AS published_amount_gbp,
  true AS is_reconciled, TIMESTAMP '2025-02-01 06:00:00' AS published_at,
  TIMESTAMP '2025-02-01 05:59:58' AS newest_produced_at FROM invoice_lines GROUP BY invoice_date;
"""


class MadeUpMarts(Marts):
    """The marts of a made-up shop."""

    def __init__(self, rows: int) -> None:
        super().__init__(MartsSettings("memory"))
        self.db = duckdb.connect()
        self.db.execute(_LINES.format(rows=rows, first=FIRST, days=(LAST - FIRST).days + 1))
        self.db.execute(_OTHERS)

    def read(
        self, table_id: str, columns: Mapping[str, str], *, cut: tuple[str, dt.date, dt.date] | None = None
    ) -> Any:
        """Read a mart as BigQuery would give it."""
        table = table_id.rsplit(".", 1)[-1]
        listed = ", ".join(f'"{source}" AS "{name}"' for name, source in columns.items())
        where = f" WHERE {cut[0]} >= DATE '{cut[1]}' AND {cut[0]} < DATE '{cut[2]}'" if cut else ""
        return self.db.cursor().execute(f"SELECT {listed} FROM {table}{where}").arrow().read_all()


def main() -> int:
    """Measure, print a table, and write the figures as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=15, help="pages of each kind, each with other filters")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-report-"))
    try:
        figures = _measured(folder, arguments.rows, arguments.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _measured(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    marts = MadeUpMarts(rows)
    service = Service(Settings(folder, ROOT / "powerbi", marts.settings), marts=marts)
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), port=0, log_level="warning", access_log=False, ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        return {
            "rows": rows,
            "rounds": rounds,
            "cpus": _cpus(),
            "python": platform.python_version(),
            "duckdb": duckdb.__version__,
            **_refreshes(url),
            **_pages(url, service, rounds),
        }
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        service.close()


def _cpus() -> int:
    import os  # noqa: PLC0415 - only here

    return len(os.sched_getaffinity(0))


def _refreshes(url: str) -> dict[str, float]:
    """From asking for a refresh to a page that shows it: everything, then the month of one day."""
    settings = PowerBiSettings.from_env({"POWERBI_API_URL": url})
    found = {}
    for name, days in (("refresh_all", None), ("refresh_day", [LAST])):
        began = time.perf_counter()
        refresh_model(settings, days=days)
        found[f"{name}_s"] = time.perf_counter() - began
        _page(url, "overview", {})
        found[f"{name}_to_page_s"] = time.perf_counter() - began
    return found


def _pages(url: str, service: Service, rounds: int) -> dict[str, Any]:
    """Seconds a page, without filters and with other filters each time."""
    chance = random.Random(11)  # noqa: S311 - a repeatable choice
    countries = [
        row["country"] for row in service.copy.reader().execute("FROM model.Country").to_arrow_table().to_pylist()
    ]
    found: dict[str, Any] = {"page_p50_s": {}, "page_p95_s": {}, "page_unfiltered_s": {}, "png_s": {}}
    for page in service.report.pages:
        found["page_unfiltered_s"][page.name] = _page(url, page.name, {})
        times = []
        for _ in range(rounds):
            start = FIRST + dt.timedelta(days=chance.randrange(300))
            end = min(LAST, start + dt.timedelta(days=chance.randrange(30, 365)))
            chosen = ["United Kingdom", *chance.sample(countries, 3)]
            times.append(
                _page(url, page.name, {"Country.country": chosen, "Date.date.from": start, "Date.date.to": end})
            )
        found["page_p50_s"][page.name] = statistics.median(times)
        found["page_p95_s"][page.name] = sorted(times)[int(len(times) * 0.95)]
        found["png_s"][page.name] = _page(url, f"{page.name}.png", {"Country.country": ["France"]})
    found["page_p50_worst_s"] = max(found["page_p50_s"].values())
    return found


def _page(url: str, page: str, parameters: dict[str, Any]) -> float:
    began = time.perf_counter()
    response = requests.get(f"{url}/report/{page}", params=parameters, timeout=300)
    response.raise_for_status()
    return time.perf_counter() - began


def _show(figures: dict[str, Any]) -> None:
    print(f"{figures['rows']:,} fact rows, {figures['rounds']} rounds a page, {figures['cpus']} CPUs\n")
    print(f"| {'page':<18} | p50 s | p95 s | unfiltered s | PNG s |")
    print("|---|---|---|---|---|")
    for page, p50 in figures["page_p50_s"].items():
        others = [figures[name][page] for name in ("page_p95_s", "page_unfiltered_s", "png_s")]
        print(f"| {page:<18} | {p50:.3f} | {' | '.join(f'{one:.3f}' for one in others)} |")
    print()
    for name, what in (("refresh_all", "everything"), ("refresh_day", "one day")):
        print(f"refresh of {what}: {figures[f'{name}_s']:.2f} s, to its page {figures[f'{name}_to_page_s']:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
