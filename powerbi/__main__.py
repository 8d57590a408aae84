"""The room's command line: check, tidy, render, refresh, plan, apply. Arguments and exit codes, nothing else."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerbi.errors import PowerBiError

if TYPE_CHECKING:
    from powerbi.lint.finding import Finding
    from powerbi.publish import Plan, Publisher

_PROJECT = Path(__file__).parent
_Folder = click.Path(path_type=Path, exists=True, file_okay=False)


class _Group(click.Group):
    """An error of this room is a message, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PowerBiError as error:
            raise click.ClickException(f"{type(error).__name__}: {error}") from error


@click.group(cls=_Group)
def main() -> None:
    """Power BI as code: check the project, show it, publish it, refresh it."""


@main.command()
@click.option("--project", type=_Folder, default=_PROJECT, help="Folder with *.SemanticModel and *.Report.")
@click.option("--no-contracts", is_flag=True, help="Do not compare with the marts' contracts.")
def check(project: Path, *, no_contracts: bool) -> None:
    """Check model and report: files, names, types, DAX, M, contracts, best practice. Exit code 1 on an error."""
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415 - imported only by who needs it
    from powerbi.lint.check import check_project  # noqa: PLC0415 - imported only by who needs it

    findings: list[Finding] = check_project(project, catalog=None if no_contracts else load_catalog())
    for one in findings:
        click.echo(str(one))
    errors = sum(one.severity == "error" for one in findings)
    click.echo(f"{errors} errors, {len(findings) - errors} warnings")
    sys.exit(1 if errors else 0)


@main.command()
@click.option("--project", type=_Folder, default=_PROJECT)
def tidy(project: Path) -> None:
    """Give every object its lineageTag. Running it again changes nothing."""
    from powerbi.tidy import tidy_folder  # noqa: PLC0415 - imported only by who needs it

    for path in tidy_folder(project):
        click.echo(f"tidied {path}")


@main.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), required=True, help="imported.duckdb of a stand-in."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the pages.")
@click.option("--project", type=_Folder, default=_PROJECT)
@click.option("--format", "formats", type=click.Choice(["html", "png", "svg"]), multiple=True, default=("html", "png"))
@click.option("--filter", "filters", multiple=True, help="Table.column=value, Table.column.from=, Table.column.to=")
def render(data: Path, out: Path, project: Path, formats: tuple[str, ...], filters: tuple[str, ...]) -> None:
    """Draw every page of the report over an imported copy, without Power BI and without a browser."""
    from powerbi.render.files import render_report  # noqa: PLC0415 - imported only by who needs it

    for path in render_report(project, data, out, formats=formats, filters=filters):
        click.echo(str(path))


@main.command()
@click.option("--day", "days", multiple=True, help="Invoice day whose rows changed, YYYY-MM-DD. None: everything.")
@click.option("--timeout", "timeout_s", type=float, default=7200.0, show_default=True)
def refresh(days: tuple[str, ...], timeout_s: float) -> None:
    """Refresh the semantic model and wait for its end."""
    from powerbi.refresh import refresh_model  # noqa: PLC0415 - imported only by who needs it
    from powerbi.settings import PowerBiSettings  # noqa: PLC0415 - imported only by who needs it

    touched = [dt.date.fromisoformat(day) for day in days] if days else None
    done = refresh_model(PowerBiSettings.from_env(os.environ), days=touched, timeout_s=timeout_s)
    left = "" if done.budget_left is None else f", {done.budget_left} refreshes left today"
    click.echo(f"refreshed {done.request_id} in {done.seconds:.1f} s{left}")


@main.command()
@click.argument("environment")
@click.option("--project", type=_Folder, default=_PROJECT)
@click.option("--renew-credentials", is_flag=True, help="Send BigQuery's credentials although there are some.")
def plan(environment: str, project: Path, *, renew_credentials: bool) -> None:
    """Show what differs between the declared and the actual state of an environment: what apply would change."""
    _show(_publisher(environment, project, renew=renew_credentials).plan())


@main.command()
@click.argument("environment")
@click.option("--project", type=_Folder, default=_PROJECT)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--renew-credentials", is_flag=True, help="Send BigQuery's credentials although there are some.")
def apply(environment: str, project: Path, *, yes: bool, renew_credentials: bool) -> None:
    """Bring an environment to its declared state, then look whether anything is left. Exit code 1 if so."""
    publisher = _publisher(environment, project, renew=renew_credentials)
    found = publisher.plan()
    _show(found)
    if found.changes and not yes:
        click.confirm(f"Apply {len(found.changes)} changes?", abort=True)
    target = publisher.apply(found)
    publisher.renew = publisher.access.renew = False
    left = publisher.plan()
    click.echo(f"{len(found.changes)} changes applied, {len(left.changes)} left")
    click.echo(f"POWERBI_WORKSPACE_ID={target.workspace}\nPOWERBI_DATASET_ID={target.model}")
    for line in left.lines:
        click.echo(f"the service did not keep: {line}")
    sys.exit(1 if left.changes else 0)


@main.command("role-members")
@click.argument("environment")
@click.option("--project", type=_Folder, default=_PROJECT)
def role_members(environment: str, project: Path) -> None:
    """Print roles and declared members as a TMSL script for the XMLA endpoint."""
    import json  # noqa: PLC0415 - imported only by who needs it

    from powerbi.definitions import model_files  # noqa: PLC0415 - imported only by who needs it
    from powerbi.deployment import read_environment  # noqa: PLC0415 - imported only by who needs it
    from powerbi.lint.check import project_files  # noqa: PLC0415 - imported only by who needs it
    from powerbi.publish import members_script  # noqa: PLC0415 - imported only by who needs it

    declared = read_environment(project / "deployment.yaml", environment)
    name = project_files(project, "SemanticModel")[0].removesuffix(".SemanticModel")
    click.echo(json.dumps(members_script(declared, model_files(project, declared), name), indent=2))


def _show(found: Plan) -> None:
    for line in found.lines:
        click.echo(line)
    for note in found.notes:
        click.echo(f"note: {note}")
    click.echo(f"{len(found.changes)} changes")


def _publisher(environment: str, project: Path, *, renew: bool) -> Publisher:
    from powerbi.deployment import read_environment  # noqa: PLC0415 - imported only by who needs it
    from powerbi.publish import Publisher  # noqa: PLC0415 - imported only by who needs it
    from powerbi.rest import Client, credential_of  # noqa: PLC0415 - imported only by who needs it
    from powerbi.settings import PowerBiSettings  # noqa: PLC0415 - imported only by who needs it
    from powerbi.source import read_key  # noqa: PLC0415 - imported only by who needs it

    settings = PowerBiSettings.from_env(os.environ, needs_ids=False)
    client = Client(settings, credential_of(settings))
    key = read_key(settings.bigquery_key, "POWERBI_BIGQUERY_KEY") if settings.bigquery_key else None
    declared = read_environment(project / "deployment.yaml", environment)
    return Publisher(client, project, declared, key, renew)


if __name__ == "__main__":
    main()
