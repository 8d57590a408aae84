"""The warehouse's own sums of what the report's key measures say, by day: the independent side of their comparison.

Belongs here: the SQL, and the comparison's outcome as Dagster shows it. Not here: the DAX (powerbi.verify).
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_SHOWN = 50
# Clocks of the service and the warehouse differ; a day published so near the refresh is taken for one published after.
CLOCK_MARGIN = timedelta(seconds=5)


def expected_by_day(warehouse: Any) -> dict[date, dict[str, Any]]:
    """Each key measure of each day in SQL on the marts.

    A customer that mart.customers does not know yet counts: in DAX its is_guest is BLANK, which equals FALSE.
    """
    lines, customers = warehouse.table_id("mart.invoice_lines"), warehouse.table_id("mart.customers")
    sql = f"""
SELECT
  lines.invoice_date,
  SUM(lines.amount_gbp) AS total_amount,
  SUM(lines.gross_sales_gbp) AS gross_sales,
  SUM(lines.returns_gbp) AS returned,
  SUM(lines.gross_sales_gbp) - SUM(lines.returns_gbp) AS net_sales,
  COUNT(*) AS line_count,
  COUNT(DISTINCT IF(lines.invoice_kind = 'sale', lines.invoice_no, NULL)) AS orders,
  COUNT(DISTINCT IF(COALESCE(customers.is_guest, FALSE), NULL, lines.customer_id)) AS customers
FROM `{lines}` AS lines
LEFT JOIN `{customers}` AS customers ON customers.customer_id = lines.customer_id
GROUP BY lines.invoice_date
"""
    names = {
        "Total Amount": "total_amount", "Gross Sales": "gross_sales", "Returns": "returned", "Net Sales": "net_sales",
        "Invoice Lines": "line_count", "Orders": "orders", "Customers": "customers",
    }  # fmt: skip
    rows = warehouse.run(sql, kind="reconcile").rows
    return {row["invoice_date"]: {name: row[column] for name, column in names.items()} for row in rows}


def days_published_since(
    warehouse: Any, moment: datetime, *, tables: Collection[str] = ("mart.invoice_lines",)
) -> set[date]:
    """Days whose marts were published at or after a moment: a refresh that began then need not show them.

    The ledger is append-only, and clustered by table: what is read is three columns of these tables' rows.
    """
    ledger, named = warehouse.table_id("control.publication"), ", ".join(f"'{name}'" for name in tables)
    sql = (
        f"SELECT DISTINCT event_day FROM `{ledger}` "
        f"WHERE table_name IN ({named}) AND published_at >= @since AND event_day IS NOT NULL"
    )
    rows = warehouse.run(sql, kind="reconcile", params={"since": moment - CLOCK_MARGIN}).rows
    return {row["event_day"] for row in rows}


def verified_result(name: str, found: Any) -> dg.AssetCheckResult:
    """The comparison as a check: what was not compared is never shown as passed."""
    if found.skipped:
        description = f"Not verified: {found.skipped}"
    elif found.differences:
        day, measure, shown, expected = found.differences[0]
        description = (
            f"{len(found.differences)} difference(s). First: {day}, [{measure}]: the report shows {shown:f}, the "
            f"warehouse {expected:f}. Refresh again (materialize the semantic model with `whole`); if it stays, "
            "compare that day's rows in the mart with its reconciliation."
        )
    elif not found.compared:
        description = f"Not verified: no day to compare ({found.moved} published since the refresh)"
    else:
        left_out = f"; {found.moved} published since the refresh are left out" if found.moved else ""
        description = f"every key measure agrees on {found.compared} day(s){left_out}"
    rows = [
        dg.TableRecord({"day": str(day), "measure": measure, "report": f"{shown:f}", "warehouse": f"{expected:f}"})
        for day, measure, shown, expected in found.differences[:MAX_SHOWN]
    ]
    columns = [dg.TableColumn(each) for each in ("day", "measure", "report", "warehouse")]
    return dg.AssetCheckResult(
        check_name=name,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if found.differences else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "days_compared": found.compared,
            "days_left_out": found.moved,
            "skipped": found.skipped or "no",
            "differences": dg.MetadataValue.table(rows, schema=dg.TableSchema(columns=columns)),
        },
    )
