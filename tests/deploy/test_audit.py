"""The audit fails for what is vulnerable, for exceptions that have run out, and for questions that nobody answered."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from pathlib import Path

import pytest

from deploy import audit
from deploy.audit import CLEAN, NOT_AUDITED, VULNERABLE, Excepted, NotAuditedError, Vulnerability, judge, parse

TODAY = date(2026, 11, 24)
FOUND = Vulnerability("tornado", "6.4.2", frozenset({"PYSEC-1", "CVE-1", "GHSA-1"}), "6.5")


def excepted(until: date = TODAY, package: str = "tornado", id_: str = "CVE-1") -> Excepted:
    return Excepted(id=id_, package=package, reason="not reached here", until=until)


def test_an_exception_holds_to_its_last_day_for_any_of_the_advisory_s_names() -> None:
    for name in FOUND.ids:
        assert judge([FOUND], [excepted(id_=name)], today=TODAY) == ([], [], [])


def test_an_exception_that_has_run_out_counts_no_longer_and_is_told() -> None:
    late = excepted(until=date(2026, 11, 23))
    assert judge([FOUND], [late], today=TODAY) == ([FOUND], [late], [])


def test_an_exception_for_another_package_does_not_count() -> None:
    other = excepted(package="requests")
    assert judge([FOUND], [other], today=TODAY) == ([FOUND], [], [other])


def test_the_report_is_read_with_its_aliases() -> None:
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": []},
            {"name": "tornado", "version": "6.4.2",
             "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1", "GHSA-1"], "fix_versions": ["6.5"]}]},
        ]
    }  # fmt: skip
    assert parse(report) == [FOUND]


def test_a_package_that_was_skipped_is_not_taken_for_clean() -> None:
    with pytest.raises(NotAuditedError, match="skipped jinja2"):
        parse({"dependencies": [{"name": "jinja2", "skip_reason": "Dependency not found on PyPI"}]})


def fake_uv(tmp_path: Path, answers: str) -> str:
    """A uv whose pip-audit answers by the requirements' name, and whose export writes one line."""
    script = tmp_path / "uv"
    script.write_text(
        "#!/usr/bin/env bash\n"
        'if [ $1 = export ]; then for a in "$@"; do last=$a; done; echo \'a==1\' > "$last"; exit 0; fi\n'
        'for a in "$@"; do case $a in *.txt) file=$a;; esac; done\n'
        'if grep -q jinja2 "$file"; then which=canary; else which=locked; fi\n'
        f"{answers}\n"
    )
    script.chmod(0o755)
    return str(script)


CLEAN_REPORT = json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]})
BAD_REPORT = json.dumps(
    {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "aliases": [], "fix_versions": []}]}]}
)


@pytest.mark.parametrize(
    ("canary", "locked", "expected", "told"),
    [
        (BAD_REPORT, CLEAN_REPORT, CLEAN, "audited: 0 to mend"),
        (BAD_REPORT, BAD_REPORT, VULNERABLE, "vulnerable: a 1: X-1"),
        (CLEAN_REPORT, CLEAN_REPORT, NOT_AUDITED, "its silence about others means nothing"),
        ("", CLEAN_REPORT, NOT_AUDITED, "gave no report"),
        (BAD_REPORT, "", NOT_AUDITED, "gave no report"),
    ],
)
def test_silence_is_never_taken_for_safety(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    canary: str, locked: str, expected: int, told: str,
) -> None:  # fmt: skip
    answers = f"[ $which = canary ] && echo '{canary}' || echo '{locked}'"
    monkeypatch.setenv("UV", fake_uv(tmp_path, answers))
    monkeypatch.setattr(audit, "read_exceptions", list)
    assert audit.main() == expected
    said = capsys.readouterr()
    assert told in said.out + said.err


def test_every_exception_in_force_has_a_reason_and_a_day() -> None:
    for each in audit.read_exceptions():
        assert len(each.reason) > 20
        assert isinstance(each.until, date)


def test_the_workflow_audits_and_its_commands_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / ".github" / "workflows" / "ci.yaml").read_text(encoding="utf-8")
    assert "python -m deploy.audit" in text
    targets = subprocess.run(["make", "-qp"], capture_output=True, text=True, check=False, cwd=root).stdout
    for target in ("check",):
        assert f"make {target}" in text
        assert f"\n{target}:" in targets
