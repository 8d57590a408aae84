"""Selectors: which tables a command means.

Belongs here: text to names. Does not: BigQuery.
`mart.products` one table, `mart.*` a layer, `*` all; `+` in front adds what it reads, behind what reads it;
`tag:dimension` tables with a tag; `changed:main` tables whose folder differs from a git revision, uncommitted and new
files too.
"""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
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
        if pattern.startswith("changed:"):
            named = changed_since(catalog, pattern.removeprefix("changed:"))
        else:
            named = [table.name for table in catalog if _matches(pattern, table.name, table.tags)]
        if not named and not pattern.startswith("changed:"):
            known = ", ".join(catalog.tables)
            raise SelectionError(f"selecting {selector!r}: no table matches. Nothing was done. There are: {known}")
        for name in named:
            chosen.add(name)
            if selector.startswith("+"):
                chosen.update(catalog.upstream(name))
            if selector.endswith("+"):
                chosen.update(catalog.downstream(name))
    return [name for name in catalog.tables if name in chosen]


def changed_since(catalog: Catalog, revision: str) -> list[str]:
    """Tables whose folder differs from a git revision.

    Raises:
        SelectionError: git is not there, or does not know the revision.
    """
    if revision.startswith("-"):
        raise SelectionError(f"selecting changed:{revision}: an option of git is no revision. Nothing was done.")
    folders = {table.contract_path.parent.resolve(): table.name for table in catalog}
    if not folders:
        return []
    models = next(iter(folders)).parent.parent
    root = Path(_git(models, "rev-parse", "--show-toplevel").strip())
    # By the user's settings git leaves out where a file was moved from, or names it from here; -z: it quotes Málaga
    listed = _git(models, "diff", "--name-only", "--no-renames", "--no-relative", "-z", revision, "--", str(models))
    listed += _git(models, "ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", str(models))
    changed = {(root / name).parent.resolve() for name in listed.split("\0") if name}
    return [name for folder, name in folders.items() if folder in changed]


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SelectionError(f"asking git what has changed: {error}. Nothing was done.") from error
    if done.returncode:
        raise SelectionError(f"asking git what has changed: {done.stderr.strip()}. Nothing was done.")
    return done.stdout


def _matches(pattern: str, name: str, tags: tuple[str, ...]) -> bool:
    if pattern.startswith("tag:"):
        return pattern.removeprefix("tag:") in tags
    return fnmatchcase(name, pattern)
