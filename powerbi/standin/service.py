"""The stand-in's dataset and report: definitions, parameters, queries, pages and status.

Here: what the service knows, in terms of this room's own modules. Not here: HTTP (app.py).
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from powerbi.dax.parse import parse_query
from powerbi.dax.queries import query_statement, security_of
from powerbi.evaluate import Scope
from powerbi.ids import STANDIN_DATASET, STANDIN_REPORT, STANDIN_WORKSPACE
from powerbi.m import parameters_of
from powerbi.model import Model, model_of
from powerbi.pbir import Report, report_of
from powerbi.render.page import Reader
from powerbi.standin.copied import Copy
from powerbi.standin.faults import Faults
from powerbi.standin.marts import Marts, MartsSettings
from powerbi.standin.refreshes import Project, Refreshes
from powerbi.standin.state import State

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = {".tmdl", ".json", ".pbir", ".pbism", ".platform", ""}


@dataclass(frozen=True)
class Settings:
    """What the stand-in is started with."""

    data_dir: Path
    project_dir: Path
    marts: MartsSettings
    workspace_id: str = STANDIN_WORKSPACE
    dataset_id: str = STANDIN_DATASET
    report_id: str = STANDIN_REPORT
    is_shared: bool = False


class Service:
    """The state of the stand-in, opened once a process."""

    def __init__(self, settings: Settings, *, marts: Marts | None = None) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.faults = Faults()
        self.state = State(settings.data_dir / "service.sqlite")
        self.copy = Copy(settings.data_dir / "imported.duckdb")
        self._lock = threading.Lock()
        self.model: Model
        self.report: Report
        self.load_project(settings.project_dir)
        self.refreshes = Refreshes(
            self.state,
            self.copy,
            marts or Marts(settings.marts),
            self.project,
            self.faults,
            is_shared=settings.is_shared,
        )
        self.refreshes.recover()

    def close(self) -> None:
        """Close the files."""
        self.copy.close()
        self.state.close()

    # ------------------------------------------------------------------ definitions

    def load_project(self, folder: Path) -> None:
        """Take model and report from a project folder, as a publish would."""
        for kind, suffix in (("model", "SemanticModel"), ("report", "Report")):
            found = next(iter(sorted(folder.glob(f"*.{suffix}"))), None)
            if found is None:
                raise FileNotFoundError(f"no *.{suffix} folder in {folder}")
            files = {
                p.relative_to(found).as_posix(): p.read_text(encoding="utf-8") for p in found.rglob("*") if p.is_file()
            }
            self.define(kind, files)

    def define(self, kind: str, files: dict[str, str]) -> None:
        """Replace the definition of the model or the report."""
        if kind == "model":
            model = model_of(files)
            self.copy.prepare(model)
            self.model = model
        else:
            self.report = report_of(files)
        self.state.put("definition", kind, {"files": files})

    def project(self) -> Project:
        """Model and parameters' values; where the warehouse is, is a parameter of the environment."""
        values = parameters_of(self.model.expressions)
        values |= {"WarehouseProject": self.settings.marts.project, "MartDataset": self.settings.marts.mart_dataset}
        values |= (self.state.get("parameters", "values") or {}).get("values", {})
        return Project(self.model, values)

    # ------------------------------------------------------------------ reading

    def query(self, dax: str, *, user: str = "", roles: list[str] | None = None) -> list[dict[str, Any]]:
        """Evaluate a DAX query.

        Raises:
            DaxError: by name and position.
        """
        statement, columns = query_statement(
            self.model, parse_query(dax), security=security_of(self.model, roles or []), user=user,
            blank_members=self.copy.blank_members(),
        )  # fmt: skip
        reader = self.copy.reader()
        try:
            rows = reader.execute(statement).fetchall()
        finally:
            reader.close()
        return [dict(zip(columns, row, strict=False)) for row in rows]

    def reader(
        self, connection: Any, *, selections: tuple[Any, ...] = (), roles: list[str] | None = None, user: str = ""
    ) -> Reader:
        """What a page is drawn from."""
        scope = Scope(selections, security_of(self.model, roles or []), user, self.copy.blank_members())
        return Reader(self.model, self.report, connection, scope, self.as_of_line())

    def as_of_line(self) -> str:
        """One line for the page's head: as of when, and when it was refreshed."""
        status = self.status()
        if status["refreshed_at"] is None:
            return "Not refreshed yet"
        as_of = str(status["as_of"] or "unknown").replace("T", " ")[:19]
        return f"Data as of {as_of} UTC · refreshed {status['refreshed_at'].replace('T', ' ')[:19]} UTC"

    def status(self) -> dict[str, Any]:
        """As of when the report is, and the number that reconciles, as an exact text."""
        done = next((one for one in self.refreshes.history() if one["extendedStatus"] == "Completed"), None)
        row = self.query('EVALUATE ROW("amount", [Total Amount], "rows", [Invoice Lines], "as_of", [Data As Of])')[0]
        as_of = row["[as_of]"]
        return {
            "as_of": as_of.replace(tzinfo=dt.UTC).isoformat() if as_of is not None else None,
            "refreshed_at": done["endTime"] if done else None,
            "refresh_started_at": done["startTime"] if done else None,
            "amount": exact(row["[amount]"]) if row["[amount]"] is not None else None,
            "rows": int(row["[rows]"] or 0),
            "refreshes_today": self.refreshes.used_today(),
        }


def exact(value: Any) -> str:
    """A decimal without trailing zeros and without an exponent: 748957.02."""
    number = Decimal(value)
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def text_files(folder: Path) -> dict[str, str]:
    """The text files of a project item's folder by path."""
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8")
        for p in folder.rglob("*")
        if p.is_file() and p.suffix in _TEXT
    }
