"""Answers in the service's shape: errors, JSON with exact decimals, refresh entries. No state, no routing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from powerbi.standin.service import exact

if TYPE_CHECKING:
    from powerbi.standin.state import Document

Worker = Callable[[Request, Any], Response]
"""What answers a request: it gets the request and its body as JSON."""


def answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; decimals are written digit by digit."""
    return Response(to_json(body), status_code=status, media_type="application/json", headers=dict(headers or {}))


def error(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """An error as Power BI's REST writes it."""
    body = {"error": {"code": code, "message": message, "pbi.error": {"code": code, "details": []}}}
    return answer(body, status=status, headers=headers)


def to_json(value: object) -> str:
    """JSON text; a Decimal is a number with all its digits, a date is ISO 8601."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(k))}:{to_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(to_json(one) for one in value) + "]"
    if isinstance(value, Decimal):
        return exact(value)
    if isinstance(value, dt.datetime):
        return json.dumps(value.isoformat())
    if isinstance(value, dt.date):
        return json.dumps(f"{value.isoformat()}T00:00:00")
    return json.dumps(value)


def history_entry(one: Document) -> Document:
    """A refresh as the history lists it."""
    found = {
        name: one[name] for name in ("refreshType", "startTime", "endTime", "status", "requestId") if one.get(name)
    }
    if one.get("serviceExceptionJson"):
        found["serviceExceptionJson"] = one["serviceExceptionJson"]
    attempt = {"attemptId": 1, "startTime": one["startTime"], "type": "Data"}
    found["refreshAttempts"] = [attempt | ({"endTime": one["endTime"]} if one.get("endTime") else {})]
    return found


def detail(one: Document) -> Document:
    """A refresh as the execution details show it."""
    body = one["body"]
    found = {
        "startTime": one["startTime"],
        "type": body.get("type", "Full"),
        "commitMode": body.get("commitMode", "Transactional"),
        "status": one["status"],
        "extendedStatus": one["extendedStatus"],
        "currentRefreshType": body.get("type", "Full"),
        "numberOfAttempts": 1,
        "messages": one["messages"],
        "objects": [{**entry, "status": one["extendedStatus"]} for entry in body.get("objects", [])],
        "refreshAttempts": history_entry(one)["refreshAttempts"],
    }
    return found | ({"endTime": one["endTime"]} if one.get("endTime") else {})
