"""Selectors: which tables a command means.

Belongs here: pure text to names. Does not: git, BigQuery.
`mart.products` one table, `mart.*` a layer, `*` all; `+` in front adds what it reads, behind what reads it;
`tag:dimension` tables with a tag.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dbt_like_sql.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt_like_sql.catalog import Catalog


def select(catalog: Catalog, selectors: Iterable[str]) -> list[str]:
    """Names that the selectors mean, each once, in the catalog's order.

    Raises:
        SelectionError: a selector names nothing.
    """
    chosen: set[str] = set()
    for selector in selectors:
        pattern = selector.strip("+")
        named = [table.name for table in catalog if _matches(pattern, table.name, table.tags)]
        if not named:
            known = ", ".join(catalog.tables)
            raise SelectionError(f"selecting {selector!r}: no table matches. Nothing was done. There are: {known}")
        for name in named:
            chosen.add(name)
            if selector.startswith("+"):
                chosen.update(catalog.upstream(name))
            if selector.endswith("+"):
                chosen.update(catalog.downstream(name))
    return [name for name in catalog.tables if name in chosen]


def _matches(pattern: str, name: str, tags: tuple[str, ...]) -> bool:
    if pattern.startswith("tag:"):
        return pattern.removeprefix("tag:") in tags
    return fnmatchcase(name, pattern)
