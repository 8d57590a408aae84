"""What our account must be allowed to do on Google Cloud, and whether it is.

Belongs here: the least permissions, and asking for them. Does not: granting them (docs/rooms/dbt_like_sql.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt_like_sql.errors import AccessError, JobError

if TYPE_CHECKING:
    from dbt_like_sql.catalog import Catalog
    from dbt_like_sql.warehouse import Warehouse

# In roles/bigquery.dataEditor on our datasets; jobs.create is in roles/bigquery.jobUser on the project.
ON_TABLES = ("bigquery.tables.get", "bigquery.tables.getData", "bigquery.tables.update", "bigquery.tables.updateData")
ON_PROJECT = "bigquery.jobs.create"
ROLE_OF = {ON_PROJECT: "roles/bigquery.jobUser"} | dict.fromkeys(ON_TABLES, "roles/bigquery.dataEditor")


@dataclass(frozen=True)
class Permission:
    """One permission on one thing. `is_granted` None: it could not be asked, or there is nobody to ask."""

    name: str
    on: str
    is_granted: bool | None
    detail: str = ""


def check_access(warehouse: Warehouse, catalog: Catalog) -> list[Permission]:
    """Ask Google which of the least permissions our account has; on an emulator, say that it checks nobody."""
    if warehouse.settings.emulator_host:
        return [Permission(ON_PROJECT, warehouse.settings.project, None, "an emulator: it checks nobody's rights")]
    found = [_may_run_jobs(warehouse)]
    for table in catalog.physical():
        if table.materialization != "view":
            found += _on_table(warehouse, warehouse.table_id(table.name))
    return found


def require_access(warehouse: Warehouse, catalog: Catalog) -> None:
    """The check at a start.

    Raises:
        AccessError: lists every permission that is missing, with the role that has it.
    """
    missing = [each for each in check_access(warehouse, catalog) if each.is_granted is False]
    if missing:
        raise AccessError(
            [
                f"{each.name} on {each.on} (in {ROLE_OF[each.name]}){each.detail and ': ' + each.detail}"
                for each in missing
            ]
        )


def _may_run_jobs(warehouse: Warehouse) -> Permission:
    try:
        warehouse.dry_run("SELECT 1")
    except JobError as error:
        return Permission(ON_PROJECT, warehouse.settings.project, is_granted=False, detail=str(error))
    return Permission(ON_PROJECT, warehouse.settings.project, is_granted=True)


def _on_table(warehouse: Warehouse, table_id: str) -> list[Permission]:
    from google.api_core.exceptions import Forbidden, NotFound  # noqa: PLC0415

    try:
        granted = set(warehouse.client.test_iam_permissions(table_id, list(ON_TABLES)).get("permissions", ()))
    except NotFound:
        return [Permission(name, table_id, None, "not there yet: run migrate") for name in ON_TABLES[:1]]
    except Forbidden as error:
        return [Permission(name, table_id, is_granted=False, detail=str(error)) for name in ON_TABLES]
    return [Permission(name, table_id, is_granted=name in granted) for name in ON_TABLES]
