"""Where the warehouse is: read once at the edge, passed in as a value.

Belongs here: the settings of this room and the names that follow from them. Does not: clients, SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dbt_like_sql.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A publish of one day of the largest table should stay far below it; a forgotten partition filter should not.
DEFAULT_MAXIMUM_BYTES_BILLED = 100 * 1024**3
DEFAULT_TIME_ZONE = "Europe/London"
DEFAULT_JOB_TIMEOUT_S = 300
# BigQuery's own limit for a table that is partitioned by a column.
DEFAULT_DAILY_PARTITION_MODIFICATIONS = 30_000
LIMIT = "WAREHOUSE_DAILY_PARTITION_MODIFICATIONS"
_PROJECT = re.compile(r"^[a-z][a-z0-9-]{2,28}[a-z0-9]$")
_PREFIX = re.compile(r"^[A-Za-z0-9_]{0,200}$")


@dataclass(frozen=True)
class WarehouseSettings:
    """Settings of the warehouse.

    Attributes:
        project: Google Cloud project that owns the datasets and is billed.
        location: where datasets are created; a wrong one makes every job fail with "not found".
        dataset_prefix: put before each dataset's name with an underscore; "" for production. Two environments
            with one prefix would write each other's tables.
        emulator_host: URL of a BigQuery emulator; None means Google BigQuery with Application Default Credentials.
        maximum_bytes_billed: a query that would scan more is refused before it costs anything (Google only).
        time_zone: whose midnight ends a day; days before today are the past, and changing them is a restatement.
        job_timeout_s: how long a job may take. Too short fails backfills; too long waits for a job that died with its
            server (a killed emulator shows it as running for ever).
        daily_partition_modifications: how often a day the partitions of one table may be changed. Runs wait, and load
            more at once, so that it lasts (quotas.py). Above Google's 30,000 Google refuses; far below it marts lag.
            None: Google's own limit, and on an emulator none.
    """

    project: str
    location: str = "EU"
    dataset_prefix: str = ""
    emulator_host: str | None = None
    maximum_bytes_billed: int = DEFAULT_MAXIMUM_BYTES_BILLED
    time_zone: str = DEFAULT_TIME_ZONE
    job_timeout_s: int = DEFAULT_JOB_TIMEOUT_S
    daily_partition_modifications: int | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> WarehouseSettings:
        """Read WAREHOUSE_* and BIGQUERY_EMULATOR_HOST.

        Raises:
            SettingsError: lists every problem at once.
        """
        problems: list[str] = []
        settings = cls(
            project=_project(env, problems),
            location=env.get("WAREHOUSE_LOCATION", "").strip() or "EU",
            dataset_prefix=_prefix(env, problems),
            emulator_host=_emulator_host(env, problems),
            maximum_bytes_billed=_whole(
                env, "WAREHOUSE_MAXIMUM_BYTES_BILLED", DEFAULT_MAXIMUM_BYTES_BILLED, "bytes", problems
            ),
            time_zone=_time_zone(env, problems),
            job_timeout_s=_whole(env, "WAREHOUSE_JOB_TIMEOUT_S", DEFAULT_JOB_TIMEOUT_S, "seconds", problems),
            daily_partition_modifications=_whole(
                env, LIMIT, DEFAULT_DAILY_PARTITION_MODIFICATIONS, "modifications", problems
            )
            if env.get(LIMIT, "").strip()
            else None,
        )
        if problems:
            raise SettingsError(problems)
        return settings

    @property
    def is_paced(self) -> bool:
        """Whether runs wait for the day's budget."""
        return self.emulator_host is None or self.daily_partition_modifications is not None

    def today(self) -> date:
        """The day that is going on where the business is."""
        return datetime.now(ZoneInfo(self.time_zone)).date()

    def dataset_id(self, layer: str) -> str:
        """Name of the dataset that holds a layer: `core`, or `dev_core` with the prefix `dev`."""
        return f"{self.dataset_prefix}_{layer}" if self.dataset_prefix else layer

    def table_id(self, name: str) -> str:
        """Full id of a table: `mart.products` becomes `project.prefix_mart.products`."""
        layer, _, table = name.partition(".")
        return f"{self.project}.{self.dataset_id(layer)}.{table}"


def _project(env: Mapping[str, str], problems: list[str]) -> str:
    project = env.get("WAREHOUSE_PROJECT", "").strip()
    if not project:
        problems.append("WAREHOUSE_PROJECT is not set; name the Google Cloud project (any name for the emulator)")
    elif not _PROJECT.match(project):
        problems.append(f"WAREHOUSE_PROJECT is {project!r}; expected 4-30 lower-case letters, digits or hyphens")
    return project


def _prefix(env: Mapping[str, str], problems: list[str]) -> str:
    prefix = env.get("WAREHOUSE_DATASET_PREFIX", "").strip()
    if not _PREFIX.match(prefix):
        problems.append(f"WAREHOUSE_DATASET_PREFIX is {prefix!r}; expected letters, digits and underscores only")
    return prefix.rstrip("_")


def _emulator_host(env: Mapping[str, str], problems: list[str]) -> str | None:
    host = env.get("BIGQUERY_EMULATOR_HOST", "").strip().rstrip("/")
    if not host:
        return None
    url = urlsplit(host)
    if url.scheme not in {"http", "https"} or not url.netloc:
        problems.append(f"BIGQUERY_EMULATOR_HOST is {host!r}; expected a URL such as http://127.0.0.1:9050")
    return host


def _whole(env: Mapping[str, str], name: str, default: int, unit: str, problems: list[str]) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) == 0:
        problems.append(f"{name} is {text!r}; expected a whole number of {unit} above 0")
        return default
    return int(text)


def _time_zone(env: Mapping[str, str], problems: list[str]) -> str:
    name = env.get("WAREHOUSE_TIME_ZONE", "").strip() or DEFAULT_TIME_ZONE
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        problems.append(f"WAREHOUSE_TIME_ZONE is {name!r}; expected an IANA name such as Europe/London")
    return name
