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
Auth = Literal["default", "service_principal", "managed_identity", "device_code", "cli"]
_AUTHS = ("default", "service_principal", "managed_identity", "device_code", "cli")


@dataclass(frozen=True)
class PowerBiSettings:
    """Settings of the client.

    Attributes:
        api_url: https://api.powerbi.com, or the stand-in's address.
        workspace_id: the workspace; the stand-in's own unless told.
        dataset_id: the semantic model; the stand-in's own unless told.
        auth: who we are: service_principal (tenant, client and secret, or its certificate), managed_identity (client_id
            names one of several), device_code (a person signs in in a browser), cli (`az login`), or default: a service
            principal where a secret is given, else whatever azure-identity finds.
        tenant_id: of a service principal or a person.
        client_id: of a service principal, an app to sign in with, or a managed identity.
        certificate_file: of a service principal, PEM or PFX; instead of a secret.
        refresh_mode: enhanced (Premium, PPU, Embedded, Fabric) or basic (Pro: 8 refreshes a day, no partitions).
        bigquery_key: the key of the service account with which Power BI reads BigQuery, for `powerbi apply`.
        is_standin: whether the address is a stand-in, which takes a token that nobody signed.
    """

    api_url: str
    workspace_id: str
    dataset_id: str
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    certificate_file: str = ""
    auth: Auth = "default"
    bigquery_key: str = field(default="", repr=False)
    refresh_mode: RefreshMode = "enhanced"
    is_standin: bool = False

    @property
    def fabric_url(self) -> str:
        """Where Fabric's item API is; the stand-in serves both."""
        return self.api_url if self.is_standin else FABRIC_API_URL

    @property
    def model_url(self) -> str:
        """Where the semantic model and its reports are looked at."""
        if self.is_standin:
            return f"{self.api_url}/status"
        return f"https://app.powerbi.com/groups/{self.workspace_id}/datasets/{self.dataset_id}/details"

    @property
    def report_url(self) -> str:
        """Where a reader opens the report."""
        return f"{self.api_url}/report" if self.is_standin else self.model_url

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, needs_ids: bool = True) -> PowerBiSettings:
        """Read POWERBI_*.

        Args:
            env: the environment.
            needs_ids: whether workspace and model must be named; publishing finds them by name.

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
            workspace_id=_id(
                env, "POWERBI_WORKSPACE_ID", STANDIN_WORKSPACE if is_standin else "", problems, is_needed=needs_ids
            ),
            dataset_id=_id(
                env, "POWERBI_DATASET_ID", STANDIN_DATASET if is_standin else "", problems, is_needed=needs_ids
            ),
            tenant_id=env.get("POWERBI_TENANT_ID", "").strip(),
            client_id=env.get("POWERBI_CLIENT_ID", "").strip(),
            client_secret=_secret(env, "POWERBI_CLIENT_SECRET", problems),
            certificate_file=env.get("POWERBI_CERTIFICATE_FILE", "").strip(),
            auth=_auth(env, problems),
            bigquery_key=_secret(env, "POWERBI_BIGQUERY_KEY", problems),
            refresh_mode=cast("RefreshMode", mode),
            is_standin=is_standin,
        )
        _check_identity(settings, problems)
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


def _id(env: Mapping[str, str], name: str, default: str, problems: list[str], *, is_needed: bool) -> str:
    value = env.get(name, "").strip() or default
    if not value:
        if is_needed:
            problems.append(
                f"{name} is not set; it stands in the address of the workspace or semantic model in Power BI"
            )
    elif not _ID.fullmatch(value):
        problems.append(f"{name} is {value!r}; expected an id such as f089354e-8366-4e18-aea3-4cb4a3a50b48")
    return value


def _auth(env: Mapping[str, str], problems: list[str]) -> Auth:
    value = env.get("POWERBI_AUTH", "").strip() or "default"
    if value not in _AUTHS:
        problems.append(f"POWERBI_AUTH is {value!r}; expected one of {', '.join(_AUTHS)}")
    return cast("Auth", value)


def _check_identity(settings: PowerBiSettings, problems: list[str]) -> None:
    is_named = bool(settings.tenant_id and settings.client_id)
    if settings.client_secret and not is_named:
        problems.append("POWERBI_CLIENT_SECRET is set, but POWERBI_TENANT_ID or POWERBI_CLIENT_ID is not")
    if settings.auth != "service_principal":
        return
    if not is_named or not (settings.client_secret or settings.certificate_file):
        problems.append(
            "POWERBI_AUTH is service_principal; it needs POWERBI_TENANT_ID, POWERBI_CLIENT_ID and POWERBI_CLIENT_SECRET"
            " (or POWERBI_CERTIFICATE_FILE)"
        )


def _secret(env: Mapping[str, str], name: str, problems: list[str]) -> str:
    file = env.get(f"{name}_FILE", "").strip()
    if not file:
        return env.get(name, "").strip()
    try:
        return Path(file).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        problems.append(f"{name}_FILE {file!r} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{name}_FILE {file!r} is not UTF-8 text")
    return ""
