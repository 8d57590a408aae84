"""`trace` where the lake or the warehouse is away: told at once and in words, with what to start."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner

from orchestration.trace import main

NOBODY = "127.0.0.1:9"  # the port that nobody listens on
ENV = {
    "LAKE_DSN": f"postgresql://reader:secret@{NOBODY}/lake",
    "WAREHOUSE_PROJECT": "local",
    "BIGQUERY_EMULATOR_HOST": f"http://{NOBODY}",
}


@pytest.mark.parametrize(
    ("command", "env", "words"),
    [
        ("event retail.invoices/0/1", {}, ("LakeUnavailableError: ", "Check that PostgreSQL is up")),
        ("event retail.invoices/0/1", {"LAKE_DSN": ""}, ("SettingsError: ", "LAKE_DSN")),
        ("mart mart.countries country=France", {}, ("JobError: ", f"emulator at http://{NOBODY}", "`make demo`")),
    ],
)
def test_what_is_away_is_told_at_once_with_what_to_do(
    command: str, env: dict[str, str], words: tuple[str, ...]
) -> None:
    began = time.monotonic()
    ran = CliRunner().invoke(main, command.split(), env={**ENV, **env})
    assert (ran.exit_code, type(ran.exception)) == (1, SystemExit), ran.exception
    assert [word for word in words if word not in ran.output] == []
    assert "secret" not in ran.output
    assert time.monotonic() - began < 10
