"""`make audit`: are locked packages known to be vulnerable? Says "not audited" where nobody can be asked, never "fine".

pip-audit answers "No known vulnerabilities found" for packages of which its database told it nothing, and where the
database cannot be reached through a mirror that answers every question with an empty page. So a package whose
vulnerabilities everybody knows is asked about first; if it is called clean, nothing has been audited.

Exit code 0: audited, nothing but the exceptions in audit-exceptions.yaml; 1: vulnerable, or an exception has run out;
3: not audited. Not here: which versions are locked (pyproject.toml, uv.lock).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
EXCEPTIONS = ROOT / "deploy" / "audit-exceptions.yaml"
CANARY = "jinja2==2.4.1"  # of 2010, with advisories that no database lacks
PIP_AUDIT = "pip-audit>=2.9"
CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 3


@dataclass(frozen=True)
class Vulnerability:
    """One advisory about one locked package."""

    package: str
    version: str
    ids: frozenset[str]
    fixed_in: str

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.package} {self.version}: {', '.join(sorted(self.ids))} (fixed in {self.fixed_in or 'no release'})"
        )


@dataclass(frozen=True)
class Excepted:
    """An advisory that we live with for a while."""

    id: str
    package: str
    reason: str
    until: date


class NotAuditedError(Exception):
    """Nobody could be asked."""


def read_exceptions(path: Path = EXCEPTIONS) -> list[Excepted]:
    """The file's entries; one without a reason or a date is an error."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    return [Excepted(**entry) for entry in entries]


def judge(
    found: list[Vulnerability], excepted: list[Excepted], *, today: date
) -> tuple[list[Vulnerability], list[Excepted], list[Excepted]]:
    """What must be mended, which exceptions have run out, and which are needed no longer."""
    valid = [each for each in excepted if each.until >= today]
    open_ = [
        vulnerability
        for vulnerability in found
        if not any(each.package == vulnerability.package and each.id in vulnerability.ids for each in valid)
    ]
    needed = {(vulnerability.package, id_) for vulnerability in found for id_ in vulnerability.ids}
    run_out = [each for each in excepted if each.until < today]
    idle = [each for each in valid if (each.package, each.id) not in needed]
    return open_, run_out, idle


def parse(report: dict[str, Any]) -> list[Vulnerability]:
    """pip-audit's JSON. A package that it skipped has not been audited."""
    skipped = [each["name"] for each in report["dependencies"] if "skip_reason" in each]
    if skipped:
        raise NotAuditedError(f"pip-audit skipped {', '.join(skipped)}")
    return [
        Vulnerability(
            each["name"], each["version"], frozenset([one["id"], *one["aliases"]]), ", ".join(one["fix_versions"])
        )
        for each in report["dependencies"]
        for one in each["vulns"]
    ]


def find_uv() -> str:
    """The uv that set this checkout up."""
    for candidate in (
        os.environ.get("UV"),
        shutil.which("uv"),
        str(ROOT / ".tools/uv/bin/uv"),
        str(ROOT / ".tools/bin/uv"),
    ):
        if candidate and Path(candidate).exists():
            return candidate
    raise NotAuditedError("uv is not installed; run `make setup`")


def audit(uv: str, requirements: Path) -> list[Vulnerability]:
    """Ask pip-audit about pinned requirements."""
    command = [
        uv,
        "tool",
        "run",
        "--from",
        PIP_AUDIT,
        "pip-audit",
        "-r",
        str(requirements),
        "--no-deps",
        "--disable-pip",
    ]
    done = subprocess.run(
        [*command, "-f", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    try:
        return parse(json.loads(done.stdout))
    except ValueError as error:
        raise NotAuditedError(f"pip-audit gave no report: {done.stderr.strip()[-600:]}") from error


def locked(uv: str, project: Path, target: Path) -> None:
    """Write what a project's lock pins."""
    command = [
        uv,
        "export",
        "-q",
        "--frozen",
        "--no-dev",
        "--no-emit-project",
        "--no-hashes",
        "--project",
        str(project),
    ]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise NotAuditedError(f"uv could not export {project}/uv.lock: {done.stderr.strip()[-600:]}")


def run(today: date) -> int:
    """Audit both locks."""
    uv = find_uv()
    found: list[Vulnerability] = []
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY + "\n")
        if not audit(uv, canary):
            raise NotAuditedError(
                f"the database knows nothing against {CANARY}, so its silence about others means nothing"
            )
        for name in (".", "deploy/embedded"):
            requirements = Path(folder) / f"{name.replace('/', '-')}.txt"
            locked(uv, ROOT / name, requirements)
            found += audit(uv, requirements)
    open_, run_out, idle = judge(found, read_exceptions(), today=today)
    for vulnerability in open_:
        print(f"vulnerable: {vulnerability}")
    for each in run_out:
        print(f"exception has run out on {each.until}: {each.package} {each.id} ({each.reason})")
    for each in idle:
        print(f"exception is needed no longer, remove it: {each.package} {each.id}")
    print(f"audited: {len(open_)} to mend, {len(found) - len(open_)} excepted")
    return VULNERABLE if open_ or run_out else CLEAN


def main() -> int:
    """Audit, or say that it was not possible."""
    try:
        return run(datetime.now(UTC).date())
    except NotAuditedError as error:
        print(f"NOT AUDITED: {error}", file=sys.stderr)
        return NOT_AUDITED


if __name__ == "__main__":
    sys.exit(main())
