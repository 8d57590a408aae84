"""What this room needs to know of its surroundings, read when a tick or a run asks, never at import.

Belongs here: orchestration's own options. Not here: the other rooms' settings; each reads its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Google's quotas (1,500 modifications a table a day) and Power BI's refreshes are what a shorter span would spend.
SERVE_EVERY_S = 300.0
SERVE_EVERY_EMULATED_S = 15.0
# With the emulator all parts share a machine, so refreshes of a large day must leave most of it to the line.
SERVE_SHARE, SERVE_SHARE_EMULATED = 1.0, 0.15
# A run that keeps its day up loads every second or so: free on the emulator, thousands of jobs a day on BigQuery, so
# there it is off unless it is asked for. Longer than a minute, and an edit of the code waits that long to be live.
KEEP_UP_S, KEEP_UP_EMULATED_S = 0.0, 600.0
# A month of runs is what somebody looks back at; a steady flow leaves some thousand a day in Dagster's database.
RUNS_KEPT_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class OrchestrationSettings:
    """Options of sensors and runs.

    Attributes:
        lake_dsn: where the ledger of landed batches is.
        serve_every_s: least time between two refreshes of the report; below it quotas are spent for little, above
            it the report is older than it need be.
        serve_share: the most of the time that refreshes may take, 1: no limit. After one that took 6 s, 0.15 lets the
            next one wait for 40 s.
        keep_up_s: how long a run of one day goes on while its batches land; 0: a run ends after its first pass, and
            the next batch waits up to 5 s for the sensor. Above a minute, new code waits for the old run's end.
        alert_webhook: where failed runs are told; empty for the log only.
        runs_kept_days: older runs are deleted every night, but for the newest of each partition.
        stop_file: once this file exists, runs come to an end as soon as they can; empty: there is none.
    """

    lake_dsn: str
    serve_every_s: float
    serve_share: float = SERVE_SHARE
    keep_up_s: float = 0.0
    alert_webhook: str = ""
    runs_kept_days: int = RUNS_KEPT_DAYS
    stop_file: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> OrchestrationSettings:
        """Read the settings; every problem is named in one error.

        Raises:
            SettingsError: something is missing or wrong.
        """
        problems: list[str] = []
        is_emulated = bool(env.get("BIGQUERY_EMULATOR_HOST", "").strip())
        settings = cls(
            lake_dsn=_dsn(env, problems),
            serve_every_s=_seconds(
                env, "SERVE_EVERY_S", SERVE_EVERY_EMULATED_S if is_emulated else SERVE_EVERY_S, problems
            ),
            serve_share=_share(env, "SERVE_SHARE", SERVE_SHARE_EMULATED if is_emulated else SERVE_SHARE, problems),
            keep_up_s=_seconds(env, "KEEP_UP_S", KEEP_UP_EMULATED_S if is_emulated else KEEP_UP_S, problems),
            alert_webhook=env.get("ALERT_WEBHOOK_URL", "").strip(),
            runs_kept_days=_days(env.get("DAGSTER_RUNS_KEPT_DAYS", ""), problems),
            stop_file=env.get("RUNS_STOP_FILE", "").strip(),
        )
        if problems:
            raise SettingsError(
                "reading the settings of orchestration: " + "; ".join(problems) + ". Nothing was started. "
                "See .env.example."
            )
        return settings

    @property
    def is_stopping(self) -> bool:
        """Whether the place where runs run is about to go away (a new image)."""
        return bool(self.stop_file) and Path(self.stop_file).exists()


def _dsn(env: Mapping[str, str], problems: list[str]) -> str:
    dsn = env.get("LAKE_DSN", "").strip()
    path = env.get("LAKE_DSN_FILE", "").strip()
    if dsn:
        return dsn
    if not path:
        problems.append("LAKE_DSN (or LAKE_DSN_FILE): not set; expected postgresql://user:password@host:port/name")
        return ""
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        problems.append(f"LAKE_DSN_FILE: {path} cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        problems.append(f"LAKE_DSN_FILE: {path} is not UTF-8 text")
    return ""


def _seconds(env: Mapping[str, str], name: str, default: float, problems: list[str]) -> float:
    value = _number(env, name, default)
    if not 0 <= value < float("inf"):
        problems.append(f"{name}: {env[name]!r} is not a number of seconds")
    return value


def _share(env: Mapping[str, str], name: str, default: float, problems: list[str]) -> float:
    value = _number(env, name, default)
    if not 0 < value <= 1:
        problems.append(f"{name}: {env[name]!r} is not a share above 0, up to 1")
    return value


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    """What is set, below 0 if it is no number; the default if nothing is."""
    text = env.get(name, "")
    if not text.strip():
        return default
    try:
        return float(text)
    except ValueError:
        return -1.0


def _days(text: str, problems: list[str]) -> int:
    if not text.strip():
        return RUNS_KEPT_DAYS
    if not text.strip().isdecimal() or int(text) < 1:
        problems.append(f"DAGSTER_RUNS_KEPT_DAYS: {text!r} is not a whole number of days, 1 or more")
        return RUNS_KEPT_DAYS
    return int(text)
