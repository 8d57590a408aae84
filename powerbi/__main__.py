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
    from powerbi.publish import Publisher

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
def plan(environment: str, project: Path) -> None:
    """Show what differs between the declared and the actual state of an environment."""
    changes = _publisher(environment, project).plan()
    for change in changes:
        click.echo(change.what)
    click.echo(f"{len(changes)} changes")


@main.command()
@click.argument("environment")
@click.option("--project", type=_Folder, default=_PROJECT)
@click.option("--yes", is_flag=True, help="Do not ask.")
def apply(environment: str, project: Path, *, yes: bool) -> None:
    """Bring an environment to its declared state."""
    publisher = _publisher(environment, project)
    changes = publisher.plan()
    for change in changes:
        click.echo(change.what)
    if changes and not yes:
        click.confirm(f"Apply {len(changes)} changes?", abort=True)
    publisher.apply(changes)
    click.echo(f"{len(changes)} changes applied")


def _publisher(environment: str, project: Path) -> Publisher:
    from powerbi.deployment import read_environment  # noqa: PLC0415 - imported only by who needs it
    from powerbi.publish import Publisher  # noqa: PLC0415 - imported only by who needs it
    from powerbi.rest import Client, credential_of  # noqa: PLC0415 - imported only by who needs it
    from powerbi.settings import PowerBiSettings  # noqa: PLC0415 - imported only by who needs it

    settings = PowerBiSettings.from_env(os.environ)
    client = Client(settings, credential_of(settings))
    return Publisher(client, project, read_environment(project / "deployment.yaml", environment))


if __name__ == "__main__":
    main()
