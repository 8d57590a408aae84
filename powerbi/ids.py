"""Ids that follow from names, so that both sides of a demo, and two runs of a tool, agree without a registry."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "powerbi:Retail")


def id_of(*names: str) -> str:
    """The id of a thing from the path of names that leads to it."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(names)))


STANDIN_WORKSPACE = id_of("workspace")
STANDIN_DATASET = id_of("dataset")
STANDIN_REPORT = id_of("report")
STANDIN_CALLER = id_of("caller")
