"""Who may do what: the difference between declared and actual rights, as pure decisions.

Here: which request brings a right about. Not here: sending it (publish.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from powerbi.deployment import Access

WORKSPACE, DATASET = "groupUserAccessRight", "datasetUserAccessRight"
# What each role in the workspace gives on its semantic models anyway; a dataset's own rights cannot take it away.
_INHERITED = {
    "Admin": {"Read", "Write", "Reshare", "Explore"},
    "Member": {"Read", "Write", "Reshare", "Explore"},
    "Contributor": {"Read", "Write", "Explore"},
    "Viewer": {"Read"},
}
_PARTS = ("Read", "Write", "Reshare", "Explore")


@dataclass(frozen=True)
class Request:
    """One request: what it does in words, method, the path below /users and the body."""

    what: str
    method: str
    path: str = ""
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Requests that remove a difference, and what no request can."""

    requests: tuple[Request, ...] = ()
    notes: tuple[str, ...] = ()


def rights(listed: Iterable[dict[str, Any]], right: str) -> dict[str, tuple[str, str]]:
    """Right and kind of each principal, by its identifier in lower case."""
    return {
        (one.get("identifier") or one.get("emailAddress", "")).lower(): (one[right], one.get("principalType", "User"))
        for one in listed
    }


def workspace_difference(
    now: Mapping[str, tuple[str, str]], declared: Sequence[Access], *, is_exclusive: bool, caller: Iterable[str]
) -> Difference:
    """Rights on the workspace. Whoever asks is never removed: nobody could apply the next change."""
    requests, notes = _grants(now, declared, WORKSPACE, "workspace"), []
    if is_exclusive:
        wanted, own = {one.identifier.lower() for one in declared}, {one.lower() for one in caller}
        for identifier in sorted(set(now) - wanted):
            if identifier in own:
                notes.append(f"{identifier} stays {now[identifier][0]} of the workspace: it is who applies this")
                continue
            requests.append(Request(f"remove {identifier} from the workspace", "DELETE", f"/{identifier}"))
    return Difference(tuple(requests), tuple(notes))


def dataset_difference(
    now: Mapping[str, tuple[str, str]],
    declared: Sequence[Access],
    *,
    is_exclusive: bool,
    roles: Mapping[str, str],
) -> Difference:
    """Rights on the semantic model.

    Args:
        now: as the service lists them, with what is inherited from the workspace.
        declared: what should be.
        is_exclusive: whoever is not declared and has no role in the workspace loses the right.
        roles: each principal's role in the workspace, as it will be.
    """
    requests: list[Request] = []
    notes: list[str] = []
    for one in declared:
        key = one.identifier.lower()
        have, wanted = _parts(now[key][0]) if key in now else set(), _parts(one.right)
        inherited = _INHERITED.get(roles.get(key, ""), set())
        if wanted <= inherited or have - inherited == wanted - inherited:
            continue
        if key in now and one.type == "App" and have - inherited:
            notes.append(
                f"{one.identifier} has {now[key][0]} on the semantic model, declared is {one.right}: the API does not"
                " change a service principal's right; remove it in the service, then apply again"
            )
            continue
        requests += _grants({key: now[key]} if key in now else {}, [one], DATASET, "semantic model")
    if is_exclusive:
        wanted_keys = {one.identifier.lower() for one in declared} | set(roles)
        for identifier in sorted(set(now) - wanted_keys):
            right, kind = now[identifier]
            if kind == "App":
                notes.append(f"{identifier} (a service principal) keeps {right} on the semantic model: see above")
                continue
            body = {"identifier": identifier, "principalType": kind, DATASET: "None"}
            requests.append(Request(f"remove {identifier} from the semantic model", "PUT", body=body))
    return Difference(tuple(requests), tuple(notes))


def _grants(now: Mapping[str, tuple[str, str]], declared: Sequence[Access], right: str, where: str) -> list[Request]:
    found = []
    for one in declared:
        have = now.get(one.identifier.lower(), ("none", ""))[0]
        if have == one.right:
            continue
        method = "POST" if have == "none" else "PUT"
        body = {"identifier": one.identifier, "principalType": one.type, right: one.right}
        found.append(Request(f"{one.identifier} on the {where}: {have} -> {one.right}", method, body=body))
    return found


def _parts(right: str) -> set[str]:
    """ReadReshareExplore -> Read, Reshare, Explore."""
    return {part for part in _PARTS if part in right}
