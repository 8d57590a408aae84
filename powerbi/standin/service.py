"""The stand-in's workspaces, semantic models and reports, and the one report whose pages it shows first.

Here: what exists, and what the first report says of itself. Not here: one model (hosted.py), HTTP (app.py).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import threading
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from powerbi.dax.queries import security_of
from powerbi.errors import ProjectError
from powerbi.evaluate import Scope
from powerbi.ids import STANDIN_CALLER, STANDIN_DATASET, STANDIN_REPORT, STANDIN_WORKSPACE, id_of
from powerbi.parameters import with_parameters
from powerbi.pbir import Report, report_of
from powerbi.render.page import Reader
from powerbi.standin.faults import Faults
from powerbi.standin.hosted import Hosted, check_definition
from powerbi.standin.marts import Marts, MartsSettings
from powerbi.standin.state import Document, State, prepare_folder
from powerbi.texts import read_texts

if TYPE_CHECKING:
    from pathlib import Path

    from powerbi.model import Model
    from powerbi.standin.copied import Copy
    from powerbi.standin.refreshes import Refreshes

_MODEL_ID = re.compile(r"semanticmodelid=\"?([0-9a-fA-F-]{36})", re.IGNORECASE)
_OPERATIONS_KEPT = 200
_STATUS = {"amount": "Total Amount", "rows": "Invoice Lines", "as_of": "Data As Of"}  # shown where the model has them


@dataclass(frozen=True)
class Settings:
    """What the stand-in is started with; page_size: of lists of workspaces and items."""

    data_dir: Path
    project_dir: Path
    marts: MartsSettings
    workspace_id: str = STANDIN_WORKSPACE
    dataset_id: str = STANDIN_DATASET
    report_id: str = STANDIN_REPORT
    is_shared: bool = False
    page_size: int = 100


class Service:
    """The state of the stand-in, opened once a process."""

    def __init__(self, settings: Settings, *, marts: Marts | None = None) -> None:
        was_rebuilt = prepare_folder(settings.data_dir)
        self.settings = settings
        self.faults = Faults()
        self.state = State(settings.data_dir / "service.sqlite")
        self._marts = marts or Marts(settings.marts, settings.data_dir)
        self._hosted: dict[str, Hosted] = {}
        self._reports: dict[str, Report] = {}
        self._lock = threading.RLock()
        is_first = self.state.get("workspace", settings.workspace_id) is None
        self._make_defaults()
        self.load_project(settings.project_dir)
        for item in self.items(kind="SemanticModel"):
            self._hosted.setdefault(item["id"], self._host(item["id"]))
        if was_rebuilt or (self.default.is_emptied and not is_first):
            # Nobody would ask for what they think is there: what an older version had kept is read again.
            self.refreshes.accept({}, started_by="Scheduled")

    def close(self) -> None:
        """Close the files."""
        for one in self._hosted.values():
            one.close()
        self.state.close()

    def warm(self) -> None:
        """Do in the background what the first refresh would wait for."""
        threading.Thread(target=self._marts.warm, name="warming", daemon=True).start()

    # ------------------------------------------------------------------ workspaces and items

    def workspaces(self) -> list[Document]:
        """Every workspace: id, name, capacity."""
        return self.state.all("workspace")

    def workspace(self, workspace: str) -> Document | None:
        """A workspace by id."""
        return self.state.get("workspace", workspace)

    def create_workspace(self, name: str, capacity: str | None) -> Document:
        """A workspace of that name, its creator the only user.

        Raises:
            ValueError: the name is taken.
        """
        with self._lock:
            if any(one["name"].lower() == name.lower() for one in self.workspaces()):
                raise ValueError(name)
            identifier = str(uuid.uuid4())
            made: Document = {"id": identifier, "name": name, "capacity": capacity}
            self.state.put("workspace", identifier, made)
            self._put_owner(identifier)
        return made

    def items(self, workspace: str | None = None, *, kind: str | None = None) -> list[Document]:
        """Items of a workspace, or all, of one kind or any."""
        return [
            one
            for one in self.state.all("item")
            if workspace in (None, one["workspace"]) and kind in (None, one["type"])
        ]

    def item(self, item: str, *, kind: str | None = None) -> Document | None:
        """An item by id."""
        found = self.state.get("item", item)
        return found if found is not None and kind in (None, found["type"]) else None

    def create_item(self, workspace: str, kind: str, name: str, files: dict[str, str]) -> Document:
        """Create a semantic model or a report from a definition.

        Raises:
            ProjectError: the definition is not one; nothing was created.
        """
        made = {"id": str(uuid.uuid4()), "type": kind, "displayName": name, "workspace": workspace}
        with self._lock:
            self._check(kind, files)
            self.state.put("definition", made["id"], {"files": files})
            self.state.put("item", made["id"], made)
            if kind == "SemanticModel":
                self._hosted[made["id"]] = self._host(made["id"])
            else:
                self._reports[made["id"]] = report_of(files)
        return made

    def define(self, item: str, files: dict[str, str]) -> None:
        """Replace an item's definition.

        Raises:
            ProjectError: it is not one; what was there stays.
        """
        found = self.item(item)
        if found is None:
            raise KeyError(item)
        self._check(found["type"], files)
        if found["type"] == "SemanticModel":
            self._hosted[item].define(files)
        else:
            self.state.put("definition", item, {"files": files})
            self._reports[item] = report_of(files)

    def _check(self, kind: str, files: dict[str, str]) -> None:
        if kind == "SemanticModel":
            check_definition(files)
            return
        report_of(files)
        model = model_id_of(files)
        if model is None:
            raise ProjectError(
                "definition.pbir", 1, "the service takes byConnection only, with semanticmodelid=<id of the model>"
            )
        if self.item(model, kind="SemanticModel") is None:
            raise ProjectError("definition.pbir", 1, f"semantic model {model} does not exist")

    def hosted(self, model: str) -> Hosted:
        """A semantic model by id; KeyError where there is none."""
        return self._hosted[model]

    def model_of_report(self, report: str) -> str:
        """The semantic model that a report shows."""
        found = self.state.get("definition", report) or {"files": {}}
        return model_id_of(found["files"]) or self.settings.dataset_id

    def remember_operation(self, document: Document) -> None:
        """Keep a long-running operation's state, and forget old ones."""
        self.state.put("operation", document["id"], document)
        self.state.trim("operation", _OPERATIONS_KEPT)

    # ------------------------------------------------------------------ what is there from the start

    def _make_defaults(self) -> None:
        settings = self.settings
        if self.workspace(settings.workspace_id) is None:
            capacity = None if settings.is_shared else id_of("capacity")
            self.state.put(
                "workspace",
                settings.workspace_id,
                {"id": settings.workspace_id, "name": "Retail", "capacity": capacity},
            )
            self._put_owner(settings.workspace_id)
        for item, kind in ((settings.dataset_id, "SemanticModel"), (settings.report_id, "Report")):
            if self.item(item) is None:
                made = {"id": item, "type": kind, "displayName": "Retail", "workspace": settings.workspace_id}
                self.state.put("item", item, made)
        if self.state.get("credential", settings.dataset_id) is None:
            self.state.put("credential", settings.dataset_id, {"type": "Anonymous", "user": ""})

    def _put_owner(self, workspace: str) -> None:
        owner = {"identifier": STANDIN_CALLER, "principalType": "App", "groupUserAccessRight": "Admin"}
        self.state.put("group_user", f"{workspace}/{STANDIN_CALLER}", {**owner, "scope": workspace})

    def load_project(self, folder: Path) -> None:
        """Publish the project's folder to the first model and report, if it differs from what was taken before.

        What was published since by others stays through a restart.
        """
        settings = self.settings
        for kind, item in (("SemanticModel", settings.dataset_id), ("Report", settings.report_id)):
            found = next(iter(sorted(folder.glob(f"*.{kind}"))), None)
            if found is None:
                raise FileNotFoundError(f"no *.{kind} folder in {folder}")
            files = read_texts(found)
            if kind == "SemanticModel":
                where = {"WarehouseProject": settings.marts.project, "MartDataset": settings.marts.mart_dataset}
                files = with_parameters(files, where)
            else:
                files["definition.pbir"] = by_connection(files["definition.pbir"], settings.dataset_id)
            digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
            if (self.state.get("project", kind) or {}).get("digest") != digest:
                self._check(kind, files)
                self.state.put("definition", item, {"files": files})
                self.state.put("project", kind, {"digest": digest})
            if kind == "SemanticModel":
                if item in self._hosted:
                    self._hosted[item].load()
                else:
                    self._hosted[item] = self._host(item)
            else:
                self._reports[item] = report_of((self.state.get("definition", item) or {"files": files})["files"])
        for one in self.items(kind="Report"):
            definition = self.state.get("definition", one["id"])
            if definition is not None:
                self._reports.setdefault(one["id"], report_of(definition["files"]))

    def _host(self, item: str) -> Hosted:
        name = "imported.duckdb" if item == self.settings.dataset_id else f"{item}.duckdb"
        workspace = (self.item(item) or {}).get("workspace", "")
        is_shared = self.settings.is_shared or not (self.workspace(workspace) or {}).get("capacity")
        path = self.settings.data_dir / name
        return Hosted(item, self.state, path, self._marts, self.faults, is_shared=is_shared)

    # ------------------------------------------------------------------ the first report

    @property
    def default(self) -> Hosted:
        """The model of the first report."""
        return self._hosted[self.settings.dataset_id]

    @property
    def model(self) -> Model:
        """Its definition."""
        return self.default.model

    @property
    def copy(self) -> Copy:
        """Its copy."""
        return self.default.copy

    @property
    def refreshes(self) -> Refreshes:
        """Its refreshes."""
        return self.default.refreshes

    @property
    def report(self) -> Report:
        """The first report."""
        return self._reports[self.settings.report_id]

    def report_by_id(self, report: str) -> Report | None:
        """A report by id."""
        return self._reports.get(report)

    def query(self, dax: str, *, user: str = "", roles: list[str] | None = None) -> list[dict[str, Any]]:
        """Evaluate a DAX query on the first model."""
        return self.default.query(dax, user=user, roles=roles)

    def reader(
        self,
        connection: Any,
        *,
        selections: tuple[Any, ...] = (),
        roles: list[str] | None = None,
        user: str = "",
        report: str | None = None,
    ) -> Reader:
        """What a page is drawn from."""
        shown = report or self.settings.report_id
        hosted = self._hosted[self.model_of_report(shown)]
        scope = Scope(selections, security_of(hosted.model, roles or []), user, hosted.copy.blank_members())
        return Reader(hosted.model, self._reports[shown], connection, scope, self.as_of_line(hosted))

    def as_of_line(self, hosted: Hosted | None = None) -> str:
        """One line for the page's head: as of when, and when it was refreshed."""
        status = self.status(hosted)
        if status["refreshed_at"] is None:
            return "Not refreshed yet"
        as_of = str(status["as_of"] or "unknown").replace("T", " ")[:19]
        return f"Data as of {as_of} UTC · refreshed {status['refreshed_at'].replace('T', ' ')[:19]} UTC"

    def status(self, hosted: Hosted | None = None) -> dict[str, Any]:
        """As of when the report is, and the number that reconciles, as an exact text."""
        shown = hosted or self.default
        done = shown.last_completed()
        asked = {name: measure for name, measure in _STATUS.items() if shown.model.measure(measure)}
        listed = ", ".join(f'"{name}", [{measure}]' for name, measure in asked.items())
        row = dict.fromkeys((f"[{name}]" for name in _STATUS), None)
        row |= shown.query(f"EVALUATE ROW({listed})")[0] if asked else {}
        as_of = row["[as_of]"]
        return {
            "as_of": as_of.replace(tzinfo=dt.UTC).isoformat() if as_of is not None else None,
            "refreshed_at": done["endTime"] if done else None,
            "refresh_started_at": done["startTime"] if done else None,
            "amount": exact(row["[amount]"]) if row["[amount]"] is not None else None,
            "rows": int(row["[rows]"] or 0),
            "refreshes_today": shown.refreshes.used_today(),
        }


def model_id_of(files: dict[str, str]) -> str | None:
    """The semantic model that a report's definition names by connection."""
    try:
        reference = json.loads(files.get("definition.pbir", "{}")).get("datasetReference", {})
    except (ValueError, AttributeError):
        return None
    match = _MODEL_ID.search(str((reference.get("byConnection") or {}).get("connectionString", "")))
    return match[1].lower() if match else None


def by_connection(text: str, model: str) -> str:
    """A report's definition.pbir that names its model by id."""
    found = json.loads(text)
    found["datasetReference"] = {"byConnection": {"connectionString": f"semanticmodelid={model}"}}
    return json.dumps(found, indent=2) + "\n"


def exact(value: Any) -> str:
    """A decimal without trailing zeros and without an exponent: 748957.02."""
    number = Decimal(value)
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
