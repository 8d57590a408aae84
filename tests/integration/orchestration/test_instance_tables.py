"""Dagster's tables are made whole, wherever a first start was cut off; Dagster then works with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import sqlalchemy
from dagster_postgres import DagsterPostgresStorage

from orchestration.instance_tables import complete, main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


class CutOffError(BaseException):
    """Stands for a kill: what was committed before stays, nothing that comes after happens."""


def start_cut_off(url: str, statements: int) -> None:
    """Dagster's own first start, which ends after so many statements that make something."""
    left = statements

    def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal left
        left -= statement.lstrip().upper().startswith(("CREATE", "INSERT"))
        if left == 0:
            raise CutOffError

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "after_cursor_execute", count)
    try:
        with pytest.raises(CutOffError):
            DagsterPostgresStorage(url)
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "after_cursor_execute", count)


@pytest.fixture
def url(lake_dsn: str) -> str:
    return lake_dsn  # an empty database


def schema_of(url: str) -> set[tuple[str, str, str]]:
    """Each column, index and unique constraint: its table, what it is, its name."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    inspector: Any = sqlalchemy.inspect(engine)
    parts = {
        "column": inspector.get_multi_columns(),
        "index": inspector.get_multi_indexes(),
        "unique": inspector.get_multi_unique_constraints(),
    }
    return {
        (table, kind, str(each["name"]))
        for kind, part in parts.items()
        for (_, table), found in part.items()
        for each in found
    }


def marks_of(url: str) -> set[str]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as conn:
        return set(conn.execute(sqlalchemy.text("SELECT name FROM secondary_indexes")).scalars())


@pytest.fixture(scope="module")
def dagsters_own(module_lake_dsn: str) -> str:
    DagsterPostgresStorage(module_lake_dsn)
    return module_lake_dsn


def test_new_database_gets_what_dagster_itself_would_make(url: str, dagsters_own: str) -> None:
    assert len(complete(url)) > 20
    assert schema_of(url) == schema_of(dagsters_own)
    assert marks_of(url) == marks_of(dagsters_own)
    assert complete(url) == []


@pytest.mark.parametrize("statements", [1, 2, 7, 24, 44, 52, 60, 65])
def test_first_start_that_was_killed_is_completed(url: str, dagsters_own: str, statements: int) -> None:
    start_cut_off(url, statements)
    assert schema_of(url) != schema_of(dagsters_own) or marks_of(url) != marks_of(dagsters_own)
    complete(url)
    assert schema_of(url) == schema_of(dagsters_own)
    assert marks_of(url) == marks_of(dagsters_own)


def test_dagster_works_with_the_tables(url: str, tmp_path: Path) -> None:
    complete(url)
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("landing"))
        instance.report_runless_asset_event(dg.AssetMaterialization("landing"))
        assert instance.get_latest_materialization_event(dg.AssetKey("landing")) is not None
        assert instance.all_asset_keys() == [dg.AssetKey("landing")]


def test_tables_of_another_version_are_left_alone(url: str) -> None:
    complete(url)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as conn:
        conn.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '567bc23fd1ac'"))
        conn.execute(sqlalchemy.text("DROP TABLE asset_keys"))
        conn.execute(sqlalchemy.text("DELETE FROM secondary_indexes"))
    before = schema_of(url)
    assert complete(url) == []
    assert schema_of(url) == before
    assert marks_of(url) == set()


def test_beside_dagsters_own_making_both_end_well(url: str, dagsters_own: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        for work in [threads.submit(each, url) for each in (DagsterPostgresStorage, complete, complete)]:
            work.result()
    assert schema_of(url) == schema_of(dagsters_own)
    assert marks_of(url) == marks_of(dagsters_own)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def run(url: str | None) -> str:
        monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
        if url is not None:
            monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
        main()
        return capsys.readouterr().out

    return run


def test_the_command_says_what_it_made(said: Any, url: str) -> None:
    assert "tables and indexes were made" in said(url)
    assert "nothing was missing" in said(url)


def test_the_command_tells_a_missing_setting_and_a_database_that_refuses(said: Any, url: str) -> None:
    with pytest.raises(SystemExit, match="DAGSTER_POSTGRES_URL is not set"):
        said(None)
    with pytest.raises(SystemExit, match=r"nothing was changed.*does not exist"):
        said(url + "_none")
