"""Settings and variables tell everything that is wrong at once."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mage_project.reading import Request
from mage_project.settings import MageSettings
from mage_project.transforms.errors import SettingsError, VariableError

CONFIGURED = {"configuration": {"topic": "retail.invoices", "table": "core.invoice_lines"}}


def test_the_dsn_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://lake\n")
    assert MageSettings.from_env({"LAKE_DSN_FILE": str(secret)}).lake_dsn == "postgresql://lake"
    secret.write_text("postgresql://lake\n", encoding="utf-8-sig")
    assert MageSettings.from_env({"LAKE_DSN_FILE": str(secret)}).lake_dsn == "postgresql://lake"
    secret.write_text("postgresql://lake\n", encoding="utf-16")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        MageSettings.from_env({"LAKE_DSN_FILE": str(secret)})


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    env = {"LAKE_DSN_FILE": str(tmp_path / "none"), "STREAMING_CONTRACTS_DIR": str(tmp_path / "nowhere")}
    with pytest.raises(SettingsError) as failure:
        MageSettings.from_env(env)
    assert "LAKE_DSN_FILE" in str(failure.value)
    assert "STREAMING_CONTRACTS_DIR" in str(failure.value)


def test_a_missing_dsn_is_a_problem() -> None:
    with pytest.raises(SettingsError, match="LAKE_DSN"):
        MageSettings.from_env({})


def test_a_run_is_about_one_day_unless_it_says_more() -> None:
    request = Request.from_variables({**CONFIGURED, "day": "2010-12-01"})
    assert request.days == (date(2010, 12, 1),)
    assert request.mode == "incremental"


def test_a_run_may_span_days() -> None:
    request = Request.from_variables({**CONFIGURED, "day": "2011-02-27", "last_day": "2011-03-01", "mode": "rebuild"})
    assert [day.isoformat() for day in request.days] == ["2011-02-27", "2011-02-28", "2011-03-01"]
    assert request.mode == "rebuild"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({**CONFIGURED}, "day is None"),
        ({**CONFIGURED, "day": "yesterday"}, "day is 'yesterday'"),
        ({**CONFIGURED, "day": "2010-12-02", "last_day": "2010-12-01"}, "before day"),
        ({**CONFIGURED, "day": "2010-12-01", "mode": "all"}, "mode is 'all'"),
        ({"day": "2010-12-01"}, "configuration.topic"),
    ],
)
def test_wrong_variables_are_told(variables: dict[str, Any], told: str) -> None:
    with pytest.raises(VariableError, match=f"{told}.*Nothing was read. Mend the run's variables") as found:
        Request.from_variables(variables)
    assert found.value.says_next_step, "or the block would be named as what is to be mended"
