"""What the UI shows of a warehouse table, from its contract.

Belongs here: contract to metadata. Not here: the contracts (dbt_like_sql), runs' own numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from dbt_like_sql.catalog import Table


def table_metadata(table: Table) -> dict[str, Any]:
    """Grain, limits, partitioning and columns of the table."""
    return {
        "grain": table.grain,
        "known_limits": table.known_limits,
        "partitioned_by": table.partition_column or "not partitioned",
        "clustered_by": ", ".join(table.clustering) or "not clustered",
        "dagster/table_name": table.name,
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=column.type,
                    description=column.description,
                    constraints=dg.TableColumnConstraints(nullable=not column.is_required, unique=False),
                )
                for column in table.columns
            ]
        ),
    }
