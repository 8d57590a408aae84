"""Requests to Power BI and Fabric: a fresh token each time, 429 obeyed, what is safe to repeat repeated.

Here: one request at a time and its retries. Not here: what is asked (refresh.py, publish.py).
"""

from __future__ import annotations

import base64
import email.utils
import json
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import requests

from powerbi.errors import AuthorizationError, ServiceError, ThrottledError
from powerbi.ids import STANDIN_CALLER

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.settings import PowerBiSettings

POWERBI_SCOPE = "https://analysis.windows.net/powerbi/api/.default"
FABRIC_SCOPE = "https://api.fabric.microsoft.com/.default"
_MAXIMUM_WAIT_S = 600.0  # of waiting for 429 and 5xx together; beyond it the caller decides
_TIMEOUT_S = 60.0
_SERVER_WAITS = (1.0, 2.0, 5.0, 10.0, 20.0)
_TRANSIENT = {408, 500, 502, 503, 504}


class Credential(Protocol):
    """What azure-identity's credentials do; they cache a token and renew it before it expires."""

    def get_token(self, *scopes: str) -> Any:
        """A token with `.token`."""


class StandInCredential:
    """An unsigned token for the stand-in, good for an hour."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def get_token(self, *scopes: str) -> Any:
        """A token with `.token`."""
        expires_on = int(self._clock() + 3600)
        claims = {"aud": scopes[0] if scopes else "", "exp": expires_on, "appid": "stand-in", "oid": STANDIN_CALLER}
        body = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
            for part in ({"alg": "none"}, claims)
        )
        return type("Token", (), {"token": f"{body}.none", "expires_on": expires_on})()


def credential_of(settings: PowerBiSettings) -> Credential:
    """Who we are: the stand-in's own token, or the credential of azure-identity that POWERBI_AUTH names."""
    if settings.is_standin and settings.auth == "default":
        return StandInCredential()
    from azure import identity  # noqa: PLC0415 - imported only by who needs it

    tenant, client = settings.tenant_id, settings.client_id
    if settings.auth == "managed_identity":
        return identity.ManagedIdentityCredential(client_id=client) if client else identity.ManagedIdentityCredential()
    if settings.auth == "device_code":
        named: dict[str, Any] = {"tenant_id": tenant, "client_id": client}
        return identity.DeviceCodeCredential(**{name: value for name, value in named.items() if value})
    if settings.auth == "cli":
        return identity.AzureCliCredential(tenant_id=tenant)
    if settings.certificate_file or settings.client_secret:
        return _service_principal(settings)
    return identity.DefaultAzureCredential(managed_identity_client_id=client or None)


def _service_principal(settings: PowerBiSettings) -> Credential:
    from azure import identity  # noqa: PLC0415 - imported only by who needs it

    tenant, client = settings.tenant_id, settings.client_id
    if settings.certificate_file:
        return identity.CertificateCredential(tenant, client, settings.certificate_file)
    return identity.ClientSecretCredential(tenant, client, settings.client_secret)


@dataclass
class Client:
    """Sends requests; `sleep` and `clock` are the tests'."""

    settings: PowerBiSettings
    credential: Credential
    session: requests.Session = field(default_factory=requests.Session)
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def dataset(self, path: str = "") -> str:
        """The address of the semantic model, with a path below it."""
        return f"{self.group(f'/datasets/{self.settings.dataset_id}')}{path}"

    def group(self, path: str = "") -> str:
        """The address of the workspace, with a path below it."""
        return f"{self.settings.api_url}/v1.0/myorg/groups/{self.settings.workspace_id}{path}"

    def send(
        self, method: str, url: str, body: object = None, *, is_repeatable: bool | None = None
    ) -> requests.Response:
        """Send a request and return its answer, which is a success.

        Args:
            method: of HTTP.
            url: absolute.
            body: sent as JSON.
            is_repeatable: whether sending it twice does no harm; GET, PUT and DELETE are, POST is not unless told.
                429 is repeated always: the service has not acted.

        Raises:
            AuthorizationError: 401, or 403 that a new token does not mend.
            ThrottledError: 429 for longer than ten minutes.
            ServiceError: any other answer that is no success.
        """
        repeat = method in ("GET", "PUT", "DELETE") if is_repeatable is None else is_repeatable
        scope = FABRIC_SCOPE if url.startswith(self.settings.fabric_url) and "/v1.0/" not in url else POWERBI_SCOPE
        waited, failures, renewed = 0.0, 0, False
        while True:
            response = self._once(method, url, body, scope, is_last=not repeat or failures >= len(_SERVER_WAITS))
            if response is not None and response.status_code < 300:  # noqa: PLR2004
                return response
            code = _code(response)
            if response is not None and code == "TokenExpired" and not renewed:
                renewed = True
                continue
            if response is not None and response.status_code == 429:  # noqa: PLR2004 - the number says itself
                wait = _retry_after(response)
                if waited + wait > _MAXIMUM_WAIT_S:
                    raise ThrottledError(
                        f"{method} {url}: 429, asked to wait for {wait:.0f} s after {waited:.0f} s of waiting. Nothing "
                        "was done; try later.",
                        status=429,
                    )
            elif repeat and failures < len(_SERVER_WAITS) and (response is None or response.status_code in _TRANSIENT):
                wait = _SERVER_WAITS[failures]
                failures += 1
            else:
                raise _failure(method, url, response)
            waited += wait
            self.sleep(wait)

    def _once(self, method: str, url: str, body: object, scope: str, *, is_last: bool) -> requests.Response | None:
        token = self.credential.get_token(scope).token
        try:
            return self.session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if is_last:
                raise ServiceError(
                    f"{method} {url}: no answer ({error}). Whether it was acted on is unknown."
                ) from error
            return None


def answer(response: requests.Response, *names: str) -> dict[str, Any]:
    """A success's JSON object, which has these names; numbers with a point are Decimal, so that money is exact.

    Raises:
        ServiceError: it is something else. A proxy's page and another server's answer are a 200 as well.
    """
    try:
        found = json.loads(response.text, parse_float=Decimal)
    except ValueError:
        found = None
    if isinstance(found, dict) and all(name in found for name in names):
        return found
    request = response.request
    missing = f"a JSON object with {', '.join(names)}" if names else "a JSON object"
    raise ServiceError(
        f"{request.method} {request.url}: {response.status_code} with {response.text[:200]!r}, expected {missing}. "
        "What it did is unknown. Is POWERBI_API_URL right, is a proxy in between?",
        status=response.status_code,
    )


def _retry_after(response: requests.Response) -> float:
    """Seconds from Retry-After, which is a number or a date."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.1, float(text))
    except ValueError:
        pass
    try:
        return max(0.1, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 30.0


def _code(response: requests.Response | None) -> str | None:
    if response is None:
        return None
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    inner = body.get("error", body)
    return inner.get("code") or inner.get("errorCode") if isinstance(inner, dict) else None


def _failure(method: str, url: str, response: requests.Response | None) -> ServiceError:
    if response is None:
        return ServiceError(f"{method} {url}: no answer")
    code, status = _code(response), response.status_code
    text = f"{method} {url}: {status} {code or ''} {response.text[:500]}".strip()
    if 300 <= status < 400:  # noqa: PLR2004 - not followed: a POST would become a GET, and the token go elsewhere
        text += (
            f". A redirect to {response.headers.get('Location', 'nowhere'):.200}, which the service has none of. "
            "Nothing was done. Is POWERBI_API_URL right, is a proxy in between?"
        )
    if status in (401, 403):
        return AuthorizationError(
            f"{text}. Retrying with the same identity does not help; see docs/rooms/powerbi.md.",
            status=status,
            code=code,
        )
    return ServiceError(text, status=status, code=code)
