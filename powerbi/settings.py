"""Where Power BI is and who we are there: read once at the edge, all problems reported at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import urlsplit

from powerbi.errors import SettingsError
from powerbi.ids import STANDIN_DATASET, STANDIN_WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_API_URL = "https://api.powerbi.com"
FABRIC_API_URL = "https://api.fabric.microsoft.com"
_LOCAL = {"localhost", "127.0.0.1", "::1", "powerbi"}
_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
RefreshMode = Literal["enhanced", "basic"]


@dataclass(frozen=True)
class PowerBiSettings:
    """Settings of the client.

    Attributes:
        api_url: https://api.powerbi.com, or the stand-in's address.
        workspace_id: the workspace; the stand-in's own unless told.
        dataset_id: the semantic model; the stand-in's own unless told.
        tenant_id: with client_id and client_secret a service principal; else azure-identity's default chain.
        refresh_mode: enhanced (Premium, PPU, Embedded, Fabric) or basic (Pro: 8 refreshes a day, no partitions).
        is_standin: whether the address is a stand-in, which takes a token that nobody signed.
    """

    api_url: str
    workspace_id: str
    dataset_id: str
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    refresh_mode: RefreshMode = "enhanced"
    is_standin: bool = False

    @property
    def fabric_url(self) -> str:
        """Where Fabric's item API is; the stand-in serves both."""
        return self.api_url if self.is_standin else FABRIC_API_URL

    @property
    def report_url(self) -> str:
        """Where a reader opens the report."""
        if self.is_standin:
            return f"{self.api_url}/report"
        return f"https://app.powerbi.com/groups/{self.workspace_id}/datasets/{self.dataset_id}/details"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> PowerBiSettings:
        """Read POWERBI_*.

        Raises:
            SettingsError: lists every problem at once.
        """
        problems: list[str] = []
        url = _url(env, problems)
        is_standin = urlsplit(url).hostname in _LOCAL
        mode = env.get("POWERBI_REFRESH_MODE", "").strip() or "enhanced"
        if mode not in ("enhanced", "basic"):
            problems.append(f"POWERBI_REFRESH_MODE is {mode!r}; expected enhanced or basic")
        settings = cls(
            api_url=url,
            workspace_id=_id(env, "POWERBI_WORKSPACE_ID", STANDIN_WORKSPACE if is_standin else "", problems),
            dataset_id=_id(env, "POWERBI_DATASET_ID", STANDIN_DATASET if is_standin else "", problems),
            tenant_id=env.get("POWERBI_TENANT_ID", "").strip(),
            client_id=env.get("POWERBI_CLIENT_ID", "").strip(),
            client_secret=_secret(env, problems),
            refresh_mode=cast("RefreshMode", mode),
            is_standin=is_standin,
        )
        if settings.client_secret and not (settings.tenant_id and settings.client_id):
            problems.append("POWERBI_CLIENT_SECRET is set, but POWERBI_TENANT_ID or POWERBI_CLIENT_ID is not")
        if problems:
            raise SettingsError(problems)
        return settings


def _url(env: Mapping[str, str], problems: list[str]) -> str:
    url = env.get("POWERBI_API_URL", "").strip().rstrip("/") or DEFAULT_API_URL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problems.append(f"POWERBI_API_URL is {url!r}; expected an address such as {DEFAULT_API_URL}")
    elif parts.scheme == "http" and parts.hostname not in _LOCAL:
        problems.append(f"POWERBI_API_URL is {url!r}; a token is not sent over plain http to another machine")
    return url


def _id(env: Mapping[str, str], name: str, default: str, problems: list[str]) -> str:
    value = env.get(name, "").strip() or default
    if not value:
        problems.append(f"{name} is not set; it stands in the address of the workspace or semantic model in Power BI")
    elif not _ID.fullmatch(value):
        problems.append(f"{name} is {value!r}; expected an id such as f089354e-8366-4e18-aea3-4cb4a3a50b48")
    return value


def _secret(env: Mapping[str, str], problems: list[str]) -> str:
    file = env.get("POWERBI_CLIENT_SECRET_FILE", "").strip()
    if not file:
        return env.get("POWERBI_CLIENT_SECRET", "").strip()
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        problems.append(f"POWERBI_CLIENT_SECRET_FILE {file!r} cannot be read: {error.strerror}")
        return ""
