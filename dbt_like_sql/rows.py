"""Rows on their way into a loaded table: do they fit its contract, and which offsets are they?

Belongs here: pure checks on Arrow tables. Does not: BigQuery, meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt_like_sql.column_types import arrow_type
from dbt_like_sql.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import date

    import pyarrow as pa

    from dbt_like_sql.catalog import Table


@dataclass(frozen=True)
class PartitionOffsets:
    """Offsets of one topic partition, both inclusive."""

    topic_partition: int
    first_offset: int
    last_offset: int
    rows: int


Offsets = tuple[PartitionOffsets, ...]


def check_rows(target: Table, rows: pa.Table, *, days: Collection[date], topic: str) -> pa.Table:
    """Rows in the order and the types of the contract.

    Raises:
        LoadError: a column is missing, unknown, of a type that does not convert exactly, or NULL where the contract
            says required; a day that is not loaded; another topic; one identity twice.
    """
    rows = _typed(target, rows)
    _refuse_nulls(target, rows)
    if rows.num_rows == 0:
        return rows
    _refuse_other_days(target, rows, days)
    if "topic" in rows.column_names:
        import pyarrow.compute as pc  # noqa: PLC0415

        others = [value for value in pc.unique(rows["topic"]).to_pylist() if value != topic]
        if others:
            raise _refused(target, f"rows of topic {others[0]!r} in a load from {topic!r}")
    if not _is_ascending(rows, target.identity):
        identities = rows.group_by(list(target.identity)).aggregate([]).num_rows
        if identities != rows.num_rows:
            raise _refused(target, f"{rows.num_rows} rows have {identities} different ({', '.join(target.identity)})")
    return rows


def _is_ascending(rows: pa.Table, columns: Sequence[str]) -> bool:
    """Whether each row's columns come strictly after those of the row before: then no two rows are alike.

    Rows are read in this order; a comparison with the neighbour costs a tenth of a grouping. NULL compares as no.
    """
    import pyarrow.compute as pc  # noqa: PLC0415

    is_after, is_same = None, None
    for name in columns:
        column = rows[name]
        before, here = column.slice(0, rows.num_rows - 1), column.slice(1)
        greater = pc.greater(here, before)
        is_after = greater if is_same is None else pc.or_(is_after, pc.and_(is_same, greater))
        equal = pc.equal(here, before)
        is_same = equal if is_same is None else pc.and_(is_same, equal)
    return is_after is not None and pc.all(is_after, skip_nulls=False).as_py() is True


def offsets_by_day(target: Table, rows: pa.Table) -> dict[date, Offsets]:
    """For each day, what is brought by topic partition."""
    if rows.num_rows == 0:
        return {}
    day, part, offset = target.partition_column or "", "topic_partition", "topic_offset"
    found: dict[date, list[PartitionOffsets]] = {}
    grouped = rows.group_by([day, part]).aggregate([(offset, "min"), (offset, "max"), (offset, "count")])
    for row in grouped.sort_by([(day, "ascending"), (part, "ascending")]).to_pylist():
        item = PartitionOffsets(row[part], row[f"{offset}_min"], row[f"{offset}_max"], row[f"{offset}_count"])
        found.setdefault(row[day], []).append(item)
    return {key: tuple(items) for key, items in found.items()}


def joined_offsets(parts: Iterable[Offsets]) -> Offsets:
    """The same of several parts of a day's rows together."""
    found: dict[int, PartitionOffsets] = {}
    for each in (each for part in parts for each in part):
        before = found.get(each.topic_partition, each)
        found[each.topic_partition] = PartitionOffsets(
            each.topic_partition,
            min(before.first_offset, each.first_offset),
            max(before.last_offset, each.last_offset),
            each.rows + (before.rows if before is not each else 0),
        )
    return tuple(found[part] for part in sorted(found))


def _typed(target: Table, rows: pa.Table) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    there, wanted = set(rows.column_names), set(target.column_names)
    if there != wanted or len(rows.column_names) != len(there):
        missing, unknown = ", ".join(sorted(wanted - there)) or "none", ", ".join(sorted(there - wanted)) or "none"
        raise _refused(target, f"its columns differ from the contract: missing {missing}; unknown {unknown}")
    columns = []
    for column in target.columns:
        try:
            columns.append(_cast(rows[column.name], arrow_type(column.type)))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            found = rows[column.name].type
            raise _refused(
                target, f"column {column.name} is {found} and does not convert exactly to {column.type}: {error}"
            ) from error
    return pa.table(columns, names=list(target.column_names))


def _cast(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """The same values in another type.

    Arrow's own safe cast guesses and rounds where it can: seconds since 1970 are microseconds to it, 5 is true,
    0.1 + 0.2 is 0.3 as a decimal, and 23:30 is its day.

    Raises:
        pa.ArrowInvalid: of a value there is no equal one.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    kind, found = pa.types, values.type
    is_number = kind.is_integer(found) or kind.is_floating(found)
    if is_number and kind.is_temporal(wanted):
        raise pa.ArrowInvalid("a number does not say whether it counts seconds, milliseconds or days")
    if kind.is_duration(found) or (kind.is_temporal(found) and kind.is_integer(wanted)):
        raise pa.ArrowInvalid("it would be a number of whatever unit the frame keeps; make it one of your own unit")
    if kind.is_timestamp(wanted) and kind.is_temporal(found) and not getattr(found, "tz", None):
        raise pa.ArrowInvalid("it has no time zone, and so names no instant; say which one it is in")
    if kind.is_floating(found) and kind.is_decimal(wanted):  # the digits that everybody is shown, or an error
        return values.cast(pa.string()).cast(wanted, safe=True)
    cast = values.cast(wanted, safe=True)
    differs = None
    if is_number and kind.is_boolean(wanted):
        differs = pc.not_equal(cast.cast(found), values)
    elif kind.is_timestamp(found) and kind.is_date(wanted):
        differs = pc.not_equal(pc.floor_temporal(values, unit="day"), values)
    if differs is not None and pc.any(differs).as_py():
        at = pc.index(differs, value=True).as_py()
        raise pa.ArrowInvalid(f"{values[at]} would be {cast[at]}")
    return cast


def _refuse_nulls(target: Table, rows: pa.Table) -> None:
    import pyarrow.compute as pc  # noqa: PLC0415

    for column in target.columns:
        if column.is_required and rows[column.name].null_count:
            at = pc.index(pc.is_null(rows[column.name]), value=True).as_py()
            who = ", ".join(f"{name} {rows[name][at].as_py()}" for name in target.identity)
            count = rows[column.name].null_count
            raise _refused(target, f"column {column.name} is required and NULL in {count} row(s), first at {who}")


def _refuse_other_days(target: Table, rows: pa.Table, days: Collection[date]) -> None:
    import pyarrow.compute as pc  # noqa: PLC0415

    column = target.partition_column or ""
    others = sorted(set(pc.unique(rows[column]).to_pylist()) - set(days))
    if others:
        raise _refused(target, f"{column} {others[0]} is not among the days of this load")


def _refused(target: Table, problem: str) -> LoadError:
    return LoadError(
        f"loading {target.name}: {problem}. Nothing was written. Mend the rows or {target.contract_path.name}."
    )
