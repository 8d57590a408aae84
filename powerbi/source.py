"""How the semantic model gets at BigQuery: credentials of a cloud source, a cloud connection, or a gateway's source.

Here: whether it can already, and the requests that make it so. Not here: what is declared (deployment.py).

The API takes a service account's key as Basic credentials: user is its e-mail address, password the key's JSON on one
line. For a cloud source nothing is encrypted beyond TLS (encryptionAlgorithm None); the public key of RSA-OAEP exists
for on-premises gateways only. An OAuth2 token could be sent too, and would work for an hour.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from powerbi.errors import AuthorizationError, ProjectError, ServiceError
from powerbi.rest import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.deployment import Source
    from powerbi.rest import Client

_KIND = "GoogleBigQuery"


@dataclass(frozen=True)
class Key:
    """A service account's key."""

    user: str
    text: str = field(repr=False)


def read_key(text: str, file: str) -> Key:
    """A key from the JSON that Google gives out.

    Raises:
        ProjectError: it is no such key. Nothing of its content is shown.
    """
    try:
        found = json.loads(text)
        user = found["client_email"]
        if not found["private_key"] or found["type"] != "service_account":
            raise KeyError("type")  # noqa: TRY301 - one way out for every fault
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError(file, 1, "not a service account's key: expected Google's JSON with client_email") from error
    return Key(str(user), json.dumps(found, separators=(",", ":")))


@dataclass
class SourceAccess:
    """Access of one semantic model."""

    client: Client
    source: Source
    key: Key | None
    renew: bool = False

    def missing(self, workspace: str | None, model: str | None) -> tuple[str | None, str | None]:
        """What has to be done, or what nobody but a person can do: (change, note)."""
        access = self.source.access
        if access == "by_hand":
            return None, None
        is_set = model is not None and not self.renew and self._is_set(str(workspace), model)
        if is_set:
            return None, None
        if access == "service_account":
            if self.key is None:
                return None, (
                    "BigQuery's credentials are not set: name the service account's key in POWERBI_BIGQUERY_KEY_FILE"
                    " and apply again, or sign in by hand in the model's settings"
                )
            return f"set BigQuery's credentials: service account {self.key.user}", None
        bound = self.source.connection if access == "connection" else self.source.gateway
        return f"bind BigQuery to {access} {bound}", None

    def apply(self, workspace: str, model: str) -> None:
        """Give access; whoever applies takes the model over first where another identity owns it."""
        base = self._dataset(workspace, model)
        if self.source.access == "connection":
            self.as_owner(base, lambda: self._bind_connection(workspace, model))
        elif self.source.access == "gateway":
            body = {
                "gatewayObjectId": self.source.gateway, "datasourceObjectIds": list(self.source.gateway_sources)
            }  # fmt: skip
            url = f"{base}/Default.BindToGateway"
            self.as_owner(base, lambda: self.client.send("POST", url, body, is_repeatable=True))
        else:
            self.as_owner(base, lambda: self._set_credentials(workspace, model))

    def as_owner(self, dataset: str, work: Callable[[], object]) -> None:
        """Do what only the owner may; take the model over if that is refused."""
        try:
            work()
        except AuthorizationError:
            self.client.send("POST", f"{dataset}/Default.TakeOver", is_repeatable=True)
            work()

    # ------------------------------------------------------------------ credentials

    def _is_set(self, workspace: str, model: str) -> bool:
        access = self.source.access
        if access == "connection":
            url = f"{self.client.settings.fabric_url}/v1/workspaces/{workspace}/items/{model}/connections"
            listed = answer(self.client.send("GET", url), "value")["value"]
            return any(str(one.get("id", "")).lower() == self.source.connection.lower() for one in listed)
        sources = self._sources(workspace, model)
        if access == "gateway":
            return any(str(one.get("gatewayId", "")).lower() == self.source.gateway.lower() for one in sources)
        return bool(sources) and all(self._has_credentials(one, workspace, model) for one in sources)

    def _has_credentials(self, source: dict[str, Any], workspace: str, model: str) -> bool:
        try:
            found = answer(self.client.send("GET", self._source(source)))
        except AuthorizationError:
            # It tells only some owners; a refresh that completed is as good a witness.
            url = f"{self._dataset(workspace, model)}/refreshes?$top=60"
            return any(
                one.get("status") == "Completed" for one in answer(self.client.send("GET", url), "value")["value"]
            )
        except ServiceError as error:
            if error.status in (400, 404):
                return False
            raise
        return bool(found.get("credentialType") == "Basic")

    def _set_credentials(self, workspace: str, model: str) -> None:
        if self.key is None:
            raise ProjectError("POWERBI_BIGQUERY_KEY_FILE", 1, "not set; there is no key to send")
        given = {
            "credentialData": [
                {"name": "username", "value": self.key.user}, {"name": "password", "value": self.key.text}
            ]
        }  # fmt: skip
        details = {
            "credentialType": "Basic",
            "credentials": json.dumps(given),
            "encryptedConnection": "Encrypted",
            "encryptionAlgorithm": "None",
            "privacyLevel": "Organizational",
            "useEndUserOAuth2Credentials": False,
        }
        sources = self._sources(workspace, model)
        if not sources:
            raise ServiceError(f"semantic model {model} names no {_KIND} source; nothing could be given credentials")
        for one in sources:
            self.client.send("PATCH", self._source(one), {"credentialDetails": details}, is_repeatable=True)

    def _bind_connection(self, workspace: str, model: str) -> None:
        details = next(iter(self._sources(workspace, model)), {}).get("connectionDetails") or {}
        binding = {
            "id": self.source.connection,
            "connectivityType": "ShareableCloud",
            "connectionDetails": {"type": _KIND, "path": details.get("path") or _KIND},
        }
        url = f"{self.client.settings.fabric_url}/v1/workspaces/{workspace}/semanticModels/{model}/bindConnection"
        self.client.send("POST", url, {"connectionBinding": binding}, is_repeatable=True)

    def _sources(self, workspace: str, model: str) -> list[dict[str, Any]]:
        """The model's BigQuery sources."""
        listed = answer(self.client.send("GET", f"{self._dataset(workspace, model)}/datasources"), "value")["value"]
        return [one for one in listed if _is_bigquery(one)]

    def _dataset(self, workspace: str, model: str) -> str:
        return f"{self.client.settings.api_url}/v1.0/myorg/groups/{workspace}/datasets/{model}"

    def _source(self, source: dict[str, Any]) -> str:
        base = f"{self.client.settings.api_url}/v1.0/myorg/gateways"
        return f"{base}/{source['gatewayId']}/datasources/{source['datasourceId']}"


def _is_bigquery(source: dict[str, Any]) -> bool:
    details = source.get("connectionDetails") or {}
    kinds = {source.get("datasourceType"), details.get("kind"), details.get("extensionDataSourceKind")}
    return _KIND in kinds
