"""`python -m powerbi.standin --port P --data-dir DIR`: the stand-in as a process. Arguments and start, nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import click
import uvicorn

from powerbi.errors import PowerBiError
from powerbi.standin.app import create_app, project_folder
from powerbi.standin.marts import MartsSettings
from powerbi.standin.service import Service, Settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8765, show_default=True)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), required=True, help="State: imported.duckdb, service.sqlite."
)
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True),
    default=None,
    help="Folder with *.SemanticModel and *.Report.",
)
@click.option("--capacity", type=click.Choice(["premium", "shared"]), default="premium", show_default=True)
def main(host: str, port: int, data_dir: Path, project: Path | None, capacity: str) -> None:
    """Serve the stand-in for Power BI Service."""
    marts = MartsSettings.from_env(os.environ)
    if not marts.project:
        raise click.UsageError(
            "WAREHOUSE_PROJECT is not set: the stand-in reads the marts from BigQuery, see .env.example"
        )
    settings = Settings(
        data_dir,
        project or project_folder(),
        marts,
        workspace_id=os.environ.get("POWERBI_WORKSPACE_ID") or Settings.workspace_id,
        dataset_id=os.environ.get("POWERBI_DATASET_ID") or Settings.dataset_id,
        is_shared=capacity == "shared",
    )
    try:
        service = Service(settings)
    except PowerBiError as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
    service.warm()
    try:
        uvicorn.run(create_app(service), host=host, port=port, log_level="warning", access_log=False)
    finally:
        service.close()


if __name__ == "__main__":
    main()
