"""Pages as files: `powerbi render`, and what Dagster attaches to a materialization. No HTTP, no service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from powerbi.dax.query import VisualQuery
from powerbi.dax.translate import translate
from powerbi.evaluate import Scope
from powerbi.lint.check import project_files
from powerbi.model import model_of
from powerbi.pbir import report_of
from powerbi.render.page import Reader, page_png, page_svg, selections_of
from powerbi.render.whole import report_html

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from powerbi.model import Model

_AS_OF = "Data As Of"


def render_report(
    project: Path, data: Path, out: Path, *, formats: Sequence[str] = ("html",), filters: Sequence[str] = ()
) -> Iterator[Path]:
    """Write every page as a picture, and the whole report as one HTML file; yields the files.

    Args:
        project: folder with `*.SemanticModel` and `*.Report`.
        data: an imported copy; it is opened read-only, so no stand-in may hold it.
        out: folder, made if absent.
        formats: html (report.html, all pages), png, svg (a file a page).
        filters: `Table.column=value` as in a page's address.
    """
    model = model_of(project_files(project, "SemanticModel")[1])
    report = report_of(project_files(project, "Report")[1])
    out.mkdir(parents=True, exist_ok=True)
    pairs = [(name, value) for name, _, value in (one.partition("=") for one in filters)]
    with duckdb.connect(str(data), read_only=True) as connection:
        blanks = connection.execute("SELECT table_name FROM blank_member").fetchall()
        scope = Scope(selections_of(pairs, model), blank_members=frozenset(name for (name,) in blanks))
        reader = Reader(model, report, connection, scope, as_of=_as_of(connection, model))
        if "html" in formats:
            path = out / "report.html"
            path.write_text(report_html(reader), encoding="utf-8")
            yield path
        for page in report.pages:
            for kind in [one for one in formats if one != "html"]:
                path = out / f"{page.name}.{kind}"
                path.write_bytes(page_png(page, reader) if kind == "png" else page_svg(page, reader).encode())
                yield path


def _as_of(connection: duckdb.DuckDBPyConnection, model: Model) -> str:
    """As of when the copy is, by the model's own measure where it has one, and when it was refreshed."""
    row = connection.execute("SELECT MAX(filled_at) FROM filled").fetchone()
    if row is None or row[0] is None:
        return "Not refreshed yet"
    newest = None
    if model.measure(_AS_OF) is not None:
        statement = translate(model, VisualQuery((), ((_AS_OF, f"[{_AS_OF}]"),)))
        newest = connection.execute(statement.sql).fetchall()[0][0]
    known = "" if newest is None else f"Data as of {newest:%Y-%m-%d %H:%M:%S} UTC · refreshed "
    return f"{known or 'Refreshed '}{row[0]:%Y-%m-%d %H:%M:%S} UTC"
