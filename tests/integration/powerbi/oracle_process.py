"""Cells by an independent DAX engine, as a process of the embedded environment: a question as JSON in, cells out.

Not imported by tests: it runs under another interpreter, reads the model's tables from a DuckDB file, and knows nothing
of this project's DAX. The engine degrades what it cannot evaluate to BLANK; what it says about that goes out as well.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from decimal import Decimal
from typing import Any

import duckdb
from pbix_mcp.dax import engine


def main() -> None:
    asked = json.load(sys.stdin)
    tables = _tables(asked)
    relationships = asked["relationships"]
    answers = []
    for context in asked["contexts"]:
        base = {name: [_typed(name, one, asked) for one in values] for name, values in context["filters"].items()}
        cells = []
        for member in context["members"]:
            own = {name: [_typed(name, value, asked)] for name, value in zip(context["groups"], member, strict=True)}
            filters = dict(base)
            for name, values in own.items():
                filters[name] = [one for one in values if name not in base or one in base[name]]
            found = engine.evaluate_measures_batch(
                list(asked["measures"]),
                tables,
                asked["measures"],
                filter_context=filters,
                relationships=relationships,
                date_tables=asked["date_tables"],
                group_keys=set(context["groups"]) or None,
                selected_filters=base,
                measure_tables=asked["measure_tables"],
                model_columns={name: set(table["columns"]) for name, table in tables.items()},
                culture="en-GB",
            )
            cells.append({name: _plain(value) for name, value in found.items()})
        answers.append(cells)
    core = engine._engine
    told = {
        "eval_errors": core.eval_errors,
        "unsupported_functions": sorted(core.unsupported_functions),
        "timed_out": sorted(core.timed_out),
    }
    json.dump({"answers": answers, "told": told}, sys.stdout)


def _tables(asked: dict[str, Any]) -> dict[str, Any]:
    connection = duckdb.connect(asked["data"], read_only=True)
    tables = {}
    for name, where in asked["tables"].items():
        cursor = connection.execute(f'SELECT * FROM model."{name}" WHERE {where}')
        columns = [one[0] for one in cursor.description]
        rows = [[_loaded(value) for value in row] for row in cursor.fetchall()]
        tables[name] = {"columns": columns, "rows": rows}
    engine.mark_currency_columns(tables, asked["decimals"])
    return tables


def _loaded(value: Any) -> Any:
    """As the engine's own reader gives it: dates are datetimes, decimals floats of a marked column."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001 - as DuckDB gives a moment
    return value


def _typed(name: str, value: Any, asked: dict[str, Any]) -> Any:
    return dt.datetime.fromisoformat(value) if name in asked["dates"] and value is not None else value


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return float(value)


if __name__ == "__main__":
    main()
