"""Whether our account may do what it must: asked of Google's own answers, which a small double gives here."""

from __future__ import annotations

from typing import Any

import pytest

from dbt_like_sql.access import ON_PROJECT, ON_TABLES, check_access, require_access
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.errors import AccessError, JobError
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse

CATALOG = load_catalog()


class Client:
    """Answers test_iam_permissions like Google: with those of the asked permissions that are granted."""

    def __init__(self, granted: set[str]) -> None:
        self.granted = granted

    def test_iam_permissions(self, table: str, permissions: list[str]) -> dict[str, Any]:
        assert table.startswith("shop-1.")
        return {"permissions": [name for name in permissions if name in self.granted]}


class OnGoogle(Warehouse):
    may_run = True

    def dry_run(self, sql: str, *, params: Any = None) -> int | None:
        assert (sql, params) == ("SELECT 1", None)
        if not self.may_run:
            raise JobError("job dry run: 403 Access Denied: User does not have bigquery.jobs.create")
        return 0


def warehouse(granted: set[str], *, may_run: bool = True) -> Warehouse:
    opened = OnGoogle(WarehouseSettings("shop-1"), _client=Client(granted))
    opened.may_run = may_run
    return opened


def test_account_with_the_least_roles_passes() -> None:
    opened = warehouse(set(ON_TABLES))
    require_access(opened, CATALOG)
    assert all(each.is_granted for each in check_access(opened, CATALOG))


def test_every_missing_permission_is_named_with_its_role() -> None:
    with pytest.raises(AccessError) as caught:
        require_access(warehouse(set(ON_TABLES) - {"bigquery.tables.updateData"}, may_run=False), CATALOG)
    text = str(caught.value)
    assert f"{ON_PROJECT} on shop-1 (in roles/bigquery.jobUser)" in text
    assert "bigquery.tables.updateData on shop-1.mart.invoice_lines (in roles/bigquery.dataEditor)" in text
    assert len(caught.value.missing) == 1 + sum(table.materialization != "view" for table in CATALOG.physical())


def test_emulator_is_said_to_check_nobody() -> None:
    opened = Warehouse(WarehouseSettings("local", emulator_host="http://127.0.0.1:1"))
    [found] = check_access(opened, CATALOG)
    assert found.is_granted is None
    assert "emulator" in found.detail
    require_access(opened, CATALOG)
