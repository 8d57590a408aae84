"""A command says at once that no emulator is there; Google's BigQuery is never asked."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from click.testing import CliRunner

from dbt_like_sql.__main__ import main
from dbt_like_sql.errors import JobError
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import reach_emulator


@pytest.mark.parametrize("command", ["days", "totals", "plan", "check", "quotas"])
def test_a_command_tells_at_once_that_the_emulator_is_away(command: str) -> None:
    began = time.monotonic()
    env = {"WAREHOUSE_PROJECT": "local", "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:9"}
    ran = CliRunner().invoke(main, [command], env=env)
    assert ran.exit_code == 1
    assert "JobError: connecting to the BigQuery emulator at http://127.0.0.1:9: " in ran.output
    assert "`make demo`" in ran.output
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("command", ["publish", "plan"])
@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("core.invoice_lines", "core.invoice_lines: loaded, not made by a query"),
        ("changed:HEAD", "no table is selected"),
    ],
)
def test_a_selection_of_which_nothing_is_published_is_told(
    monkeypatch: pytest.MonkeyPatch, command: str, selector: str, why: str
) -> None:
    monkeypatch.setattr("dbt_like_sql.selection.changed_since", lambda *_: [])
    ran = CliRunner().invoke(main, [command, selector], env={})
    assert (ran.exit_code, ran.output) == (0, f"nothing to publish ({why})\n")


def test_an_emulator_that_takes_connections_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = WarehouseSettings("local", emulator_host=f"http://127.0.0.1:{server.getsockname()[1]}")
        reach_emulator(settings)
    with pytest.raises(JobError) as away:
        reach_emulator(settings)
    assert away.value.is_retryable


def test_google_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", refused)
    reach_emulator(WarehouseSettings("shop-1"))
