"""One semantic model of the stand-in: its definition, its copy, its refreshes, its answers to queries.

Here: what belongs to one model. Not here: workspaces and reports (service.py), HTTP (app.py and its neighbours).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from powerbi.dax.parse import parse_query
from powerbi.dax.queries import query_statement, security_of
from powerbi.errors import ProjectError
from powerbi.m import parameters_of
from powerbi.model import Model, model_of
from powerbi.parameters import with_parameters
from powerbi.standin.copied import Copy
from powerbi.standin.refreshes import Project, Refreshes, RequestRefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from powerbi.standin.faults import Faults
    from powerbi.standin.marts import Marts
    from powerbi.standin.state import Document, State

NO_CREDENTIALS = "ModelRefreshFailed_CredentialsNotSpecified"


class Hosted:
    """A semantic model that the stand-in holds."""

    def __init__(
        self, item: str, state: State, copy: Path, marts: Marts, faults: Faults, *, is_shared: bool = False
    ) -> None:
        self.item = item
        self.state = state
        self.copy = Copy(copy)
        self.model: Model
        self.is_emptied = False
        self.load()
        self.refreshes = Refreshes(
            state, self.copy, marts, self.project, faults, item=item, check=self.check_credentials, is_shared=is_shared
        )
        self.refreshes.recover()

    def close(self) -> None:
        """Stop what runs and close the file."""
        self.refreshes.close()
        self.copy.close()

    def load(self) -> None:
        """Take the definition as it is on disk."""
        self.model = model_of(self.files)
        self.is_emptied = self.copy.prepare(self.model)

    @property
    def files(self) -> dict[str, str]:
        """The definition's files."""
        found = self.state.get("definition", self.item)
        files: dict[str, str] = found["files"] if found else {}
        return files

    def project(self) -> Project:
        """What a refresh needs."""
        return Project(self.model, self.parameters())

    def check_credentials(self) -> None:
        """Refuse to read while nobody has given the source's credentials.

        Raises:
            RequestRefusedError: there are none.
        """
        if self.state.get("credential", self.item) is None:
            raise RequestRefusedError(
                400, NO_CREDENTIALS, "the data source GoogleBigQuery has no credentials; set them, then refresh again"
            )

    def parameters(self) -> dict[str, str]:
        """Values of the model's M parameters."""
        return parameters_of(self.model.expressions)

    def set_parameters(self, values: dict[str, str]) -> None:
        """Write values into the definition, which is where the service keeps them too."""
        self.state.put("definition", self.item, {"files": with_parameters(self.files, values)})
        self.load()

    def define(self, files: dict[str, str]) -> None:
        """Replace the definition.

        Raises:
            ProjectError: it is not one; what was there stays.
        """
        check_definition(files)
        self.state.put("definition", self.item, {"files": files})
        self.load()

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

    def last_completed(self) -> Document | None:
        """The newest refresh that completed."""
        return next((one for one in self.refreshes.history() if one["extendedStatus"] == "Completed"), None)


def check_definition(files: dict[str, str]) -> None:
    """Refuse what is no semantic model.

    Raises:
        ProjectError: with file and line.
    """
    if not model_of(files).tables:
        raise ProjectError("definition", 1, "the model has no tables")
