"""Where this room's lake and warehouse are, read from the environment when asked, never at import.

Belongs here: this room's own variables. Not here: the warehouse's (dbt_like_sql.settings reads those).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mage_project.transforms.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class MageSettings:
    """What a block needs to reach the lake."""

    lake_dsn: str
    contracts_dir: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> MageSettings:
        """Read the settings; every problem is named in one error.

        Raises:
            SettingsError: a variable is missing, or names a file or folder that is not there.
        """
        problems: list[str] = []
        dsn = env.get("LAKE_DSN", "").strip() or _from_file(env.get("LAKE_DSN_FILE", "").strip(), problems)
        if not dsn and not problems:
            problems.append("LAKE_DSN (or LAKE_DSN_FILE): not set; expected postgresql://user:password@host:port/name")
        contracts = env.get("STREAMING_CONTRACTS_DIR", "").strip()
        if contracts and not Path(contracts).is_dir():
            problems.append(f"STREAMING_CONTRACTS_DIR: {contracts} is not a folder")
        if problems:
            raise SettingsError(
                "reading the settings of mage_project: " + "; ".join(problems) + ". Nothing was started. "
                "See .env.example."
            )
        return cls(lake_dsn=dsn, contracts_dir=Path(contracts) if contracts else None)


def _from_file(path: str, problems: list[str]) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        problems.append(f"LAKE_DSN_FILE: {path} cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        problems.append(f"LAKE_DSN_FILE: {path} is not UTF-8 text")
    return ""
