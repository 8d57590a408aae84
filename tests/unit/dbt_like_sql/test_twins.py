"""A job that arrives together with its twin: which refusals of the emulator are answered by submitting again."""

from __future__ import annotations

import pytest
from google.api_core.exceptions import BadRequest, Conflict

from dbt_like_sql import warehouse

ID_TAKEN = 'Duplicate key "project_id: local, job_id: load_1" violates primary key constraint.'
TABLE_BUSY = "Conflict on update!"


class Emulator:
    """Refuses so many times, then answers."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.submitted: list[str] = []

    def submit(self, job_id: str) -> str:
        self.submitted.append(job_id)
        if self.refusals:
            raise self.refusals.pop(0)
        return "job"


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "TWIN_PAUSE_S", 0.0)


@pytest.mark.parametrize("refusal", [ID_TAKEN, TABLE_BUSY])
def test_load_refused_for_its_twin_is_submitted_again_and_then_attaches(refusal: str) -> None:
    emulator = Emulator(BadRequest(refusal), Conflict("Already Exists"))
    with pytest.raises(Conflict):  # what the caller attaches on
        warehouse._submit_once(emulator.submit, "load_1", "load")
    assert emulator.submitted == ["load_1", "load_1"]


def test_conflict_of_a_script_is_a_lost_race_and_is_told_at_once() -> None:
    emulator = Emulator(BadRequest(TABLE_BUSY))
    with pytest.raises(BadRequest):
        warehouse._submit_once(emulator.submit, "core_1", "core")
    assert emulator.submitted == ["core_1"]


def test_key_that_is_not_the_jobs_own_is_no_twin() -> None:
    emulator = Emulator(BadRequest("Duplicate key in MERGE"))
    with pytest.raises(BadRequest):
        warehouse._submit_once(emulator.submit, "load_1", "load")


def test_twin_that_never_ends_is_an_error_after_a_limit() -> None:
    emulator = Emulator(*[BadRequest(ID_TAKEN)] * 50)
    with pytest.raises(BadRequest):
        warehouse._submit_once(emulator.submit, "load_1", "load")
    assert len(emulator.submitted) == warehouse.TWIN_TRIES + 1
