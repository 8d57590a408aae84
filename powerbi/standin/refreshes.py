"""Refreshes: accepted, queued one at a time, run in a thread of their own, kept as history.

Here: the states of a refresh, its objects and partitions, quotas. Not here: HTTP (app.py), the copy itself (copied.py).
States follow the documented enhanced refresh: NotStarted, InProgress, then Completed, Failed, Cancelled or TimedOut.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from powerbi.errors import PowerBiError
from powerbi.m import Source, source_of
from powerbi.partitions import RefreshPartition, incremental_partitions, partition_named, policy_partitions
from powerbi.standin.copied import Copy, Filled, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from powerbi.model import Model, Table
    from powerbi.standin.faults import Faults
    from powerbi.standin.marts import Marts
    from powerbi.standin.state import Document, State

_Reading = tuple["Table", Source, "Sequence[RefreshPartition] | None"]
log = structlog.get_logger()
_TYPES = {"full", "clearvalues", "calculate", "dataonly", "automatic", "defragment"}
_DATA_TYPES = {"full", "dataonly", "automatic"}
SHARED_LIMIT = 8  # a day, scheduled ones included, on shared capacity
_KEPT = 60  # the history the service returns by default
_REMEMBERED = 2000  # of all models together; a demo that refreshes every five seconds for a day stays small


class RequestRefusedError(PowerBiError):
    """A request the service refuses; `status` and `code` are the HTTP answer's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class CancelledError(PowerBiError):
    """The refresh was cancelled while it ran."""


@dataclass(frozen=True)
class Project:
    """What a refresh needs of the dataset: its model and its parameters' values."""

    model: Model
    parameters: dict[str, str]


@dataclass
class Refreshes:
    """The refreshes of one semantic model; `check` raises where its source may not be read."""

    state: State
    copy: Copy
    marts: Marts
    project: Callable[[], Project]
    faults: Faults
    item: str = ""
    check: Callable[[], None] = lambda: None
    is_shared: bool = False
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cancelled: set[str] = field(default_factory=set)
    _running: threading.Thread | None = None

    def recover(self) -> None:
        """After a restart: what was running did not commit, so it has failed."""
        for one in self._all():
            if one["extendedStatus"] in ("NotStarted", "InProgress"):
                self._finish(one, "Failed", "ModelRefreshInterrupted", "the service was restarted while it ran")

    def close(self) -> None:
        """Cancel what runs and wait for its thread: nothing writes after this."""
        for one in self._all():
            if one["extendedStatus"] in ("NotStarted", "InProgress"):
                self._cancelled.add(one["requestId"])
        if self._running is not None:
            self._running.join(timeout=30)

    def accept(self, body: Document, *, started_by: str | None = None) -> Document:
        """Accept a refresh and run it in the background; `started_by` replaces what the history says of its kind.

        Raises:
            RequestRefusedError: 400 or 429, as the service documents it.
        """
        is_enhanced = any(name != "notifyOption" for name in body)
        self._check(body, is_enhanced=is_enhanced)
        with self._lock:
            if any(one["extendedStatus"] in ("NotStarted", "InProgress") for one in self.history()):
                raise RequestRefusedError(
                    400, "RefreshInProgressException", "Another refresh request is already executing"
                )
            document = self._new(body, is_enhanced=is_enhanced)
            document["refreshType"] = started_by or document["refreshType"]
            self.state.put("refresh", document["requestId"], document)
            self.state.trim("refresh", _REMEMBERED)
            self._running = threading.Thread(
                target=self._run, args=(document["requestId"],), name="refresh", daemon=True
            )
            self._running.start()
        return document

    def get(self, request_id: str) -> Document | None:
        """A refresh of this model by id."""
        found = self.state.get("refresh", request_id)
        return found if found is not None and found["item"] == self.item else None

    def _all(self) -> list[Document]:
        return [one for one in self.state.all("refresh") if one["item"] == self.item]

    def history(self, top: int = _KEPT) -> list[Document]:
        """Refreshes, newest first."""
        return list(reversed(self._all()))[:top]

    def used_today(self) -> int:
        """Refreshes accepted today (UTC)."""
        today = self.now().date().isoformat()
        return sum(one["startTime"].startswith(today) for one in self._all())

    def cancel(self, request_id: str) -> None:
        """Cancel a running refresh."""
        document = self.get(request_id)
        if document is None:
            raise RequestRefusedError(404, "RefreshNotFound", f"refresh {request_id} does not exist")
        if document["extendedStatus"] not in ("NotStarted", "InProgress"):
            raise RequestRefusedError(
                400, "RefreshAlreadyFinished", f"refresh {request_id} is {document['extendedStatus']}"
            )
        self._cancelled.add(request_id)

    # ------------------------------------------------------------------ accepting

    def _check(self, body: Document, *, is_enhanced: bool) -> None:
        if self.is_shared and is_enhanced:
            raise RequestRefusedError(
                400,
                "EnhancedRefreshNotSupported",
                "Enhanced refresh is not supported on shared capacity; only notifyOption can be specified",
            )
        if self.is_shared and self.used_today() >= SHARED_LIMIT:
            raise RequestRefusedError(
                400, "RefreshLimitReached", f"the limit of {SHARED_LIMIT} refreshes a day is reached"
            )
        if is_enhanced and "notifyOption" in body:
            raise RequestRefusedError(400, "InvalidRequest", "notifyOption must not be set in an enhanced refresh")
        kind = str(body.get("type", "Full")).lower()
        if kind not in _TYPES:
            raise RequestRefusedError(400, "InvalidRequest", f"type {body.get('type')!r} is unknown")
        mode = str(body.get("commitMode", "Transactional")).lower()
        if mode not in ("transactional", "partialbatch"):
            raise RequestRefusedError(400, "InvalidRequest", f"commitMode {body.get('commitMode')!r} is unknown")
        if mode == "partialbatch" and body.get("applyRefreshPolicy", False):
            raise RequestRefusedError(
                400, "InvalidRequest", "applyRefreshPolicy is not supported with commitMode PartialBatch"
            )
        self._check_objects(body)

    def _check_objects(self, body: Document) -> None:
        model = self.project().model
        for one in body.get("objects", []):
            table = model.table(one.get("table", ""))
            if table is None:
                raise RequestRefusedError(
                    400, "InvalidRequest", f"table {one.get('table')!r} does not exist in the model"
                )
            name = one.get("partition")
            if name is not None and body.get("applyRefreshPolicy", True) and table.refresh_policy is not None:
                raise RequestRefusedError(
                    400, "InvalidRequest", "a partition of a table with a refresh policy needs applyRefreshPolicy false"
                )
            if name is not None and name not in self._existing(table):
                raise RequestRefusedError(
                    400, "PartitionNotFound", f"partition {name!r} does not exist in table {table.name!r}"
                )

    def _existing(self, table: Table) -> set[str]:
        return (
            {one.name for one in table.partitions} if table.refresh_policy is None else self.copy.partitions(table.name)
        )

    def _new(self, body: Document, *, is_enhanced: bool) -> Document:
        return {
            "requestId": str(uuid.uuid4()),
            "item": self.item,
            "refreshType": "ViaEnhancedApi" if is_enhanced else "ViaApi",
            "startTime": _text(self.now()),
            "endTime": None,
            "status": "Unknown",
            "extendedStatus": "NotStarted",
            "body": body,
            "messages": [],
        }

    # ------------------------------------------------------------------ running

    def _run(self, request_id: str) -> None:
        document = self.state.get("refresh", request_id)
        if document is None:
            return
        document["extendedStatus"] = "InProgress"
        self.state.put("refresh", request_id, document)
        try:
            self._work(document)
        except CancelledError:
            self._finish(document, "Cancelled", "RefreshCancelled", "cancelled on request")
        except TimeoutError:
            self._finish(document, "TimedOut", "RefreshTimedOut", "the timeout passed")
        except PowerBiError as error:
            self._finish(document, "Failed", getattr(error, "code", None) or "ModelRefreshFailed", str(error))
        except Exception as error:
            log.exception("refresh broke", request_id=request_id)
            self._finish(document, "Failed", "ModelRefreshFailed", repr(error))
        else:
            self._finish(document, "Completed", "", "")

    def _work(self, document: Document) -> None:
        body = document["body"]
        if str(body.get("type", "Full")).lower() not in _DATA_TYPES:
            return
        deadline = self.now() + _duration(str(body.get("timeout", "05:00:00")))
        fault = self.faults.take("fail_refresh")
        if fault is not None:
            raise RequestRefusedError(
                400, fault.get("code", "ModelRefreshFailed"), fault.get("message", "asked to fail")
            )
        slow = self.faults.take("slow_refresh")
        if slow is not None:
            self._wait(document["requestId"], float(slow.get("seconds", 5)), deadline)
        self.check()
        project = self.project()
        parts = self._read_all(self._plan(project, body), document["requestId"], _parallelism(body))
        self._stop_if_cancelled(document["requestId"])
        self.copy.replace(project.model, parts, at=self.now())

    def _wait(self, request_id: str, seconds: float, deadline: dt.datetime) -> None:
        end = self.now() + dt.timedelta(seconds=seconds)
        while self.now() < end:
            self._stop_if_cancelled(request_id)
            if self.now() > deadline:
                raise TimeoutError
            threading.Event().wait(0.02)

    def _stop_if_cancelled(self, request_id: str) -> None:
        if request_id in self._cancelled:
            raise CancelledError(request_id)

    def _plan(self, project: Project, body: Document) -> list[_Reading]:
        """Tables with the partitions to read; None is the whole table."""
        wanted: dict[str, set[str]] = {}
        for one in body.get("objects") or [{"table": table.name} for table in project.model.tables]:
            wanted.setdefault(one["table"], set()).update({one["partition"]} if "partition" in one else set())
        plan = []
        for table in project.model.tables:
            key = next((name for name in wanted if name.lower() == table.name.lower()), None)
            if key is not None:
                plan.append((table, self._source(table, project), self._partitions(table, wanted[key], body)))
        return plan

    def _source(self, table: Table, project: Project) -> Source:
        text = table.refresh_policy.source_expression if table.refresh_policy else table.partitions[0].source
        source = source_of(text, project.parameters)
        if source is None:
            raise RequestRefusedError(
                400,
                "ModelRefreshFailed_UnknownSource",
                f"table {table.name!r}: its M query is not read from BigQuery by project, schema and table",
            )
        return source

    def _partitions(self, table: Table, named: set[str], body: Document) -> Sequence[RefreshPartition] | None:
        policy = table.refresh_policy
        if policy is None:
            return None
        effective = str(body.get("effectiveDate") or self.now().date().isoformat())[:10]
        filled = self.copy.partitions(table.name)
        if named or not body.get("applyRefreshPolicy", True):  # those there are, whatever day they were made for
            return sorted(map(partition_named, named or filled), key=lambda one: one.start)
        every = policy_partitions(policy, dt.date.fromisoformat(effective))
        again = {one.name for one in incremental_partitions(policy, dt.date.fromisoformat(effective))}
        if "applyRefreshPolicy" not in body and "objects" not in body and "type" not in body:
            return every  # a plain refresh of everything
        return [one for one in every if one.name in again or one.name not in filled]

    def _read_all(self, plan: list[_Reading], request_id: str, workers: int) -> list[Filled]:
        """Read several tables at a time. What tells of freshness first: it must never promise more than the facts."""
        parts: list[Filled] = []
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="reading") as pool:
            for is_fact in (False, True):
                stage = [one for one in plan if (one[0].refresh_policy is not None) == is_fact]
                for found in pool.map(lambda one: self._read(one[0], one[1], one[2], request_id), stage):
                    parts += found
        return parts

    def _read(
        self, table: Table, source: Source, wanted: Sequence[RefreshPartition] | None, request_id: str
    ) -> list[Filled]:
        """Partitions that follow on one another are read by one query."""
        table_id = f"{source.project}.{source.dataset}.{source.table}"
        if wanted is None:
            return [Filled(table.name, self.marts.read(table_id, sources(table)))]
        if source.range_column is None:
            raise RequestRefusedError(
                400,
                "ModelRefreshFailed_NoRange",
                f"table {table.name!r} has a refresh policy but its query does not use RangeStart and RangeEnd",
            )
        column = next(c.name for c in table.columns if c.source_column == source.range_column)
        found = []
        for run in _runs(wanted):
            self._stop_if_cancelled(request_id)
            rows = self.marts.read(table_id, sources(table), cut=(source.range_column, run[0].start, run[-1].end))
            found.append(Filled(table.name, rows, tuple(run), column))
        return found

    def _finish(self, document: Document, extended: str, code: str, message: str) -> None:
        document["endTime"] = _text(self.now())
        document["extendedStatus"] = extended
        document["status"] = extended if extended in ("Completed", "Disabled", "Cancelled") else "Failed"
        if code:
            document["serviceExceptionJson"] = json.dumps({"errorCode": code, "errorDescription": message})
            document["messages"] = [{"code": code, "message": message, "type": "Error"}]
        self.state.put("refresh", document["requestId"], document)
        self._cancelled.discard(document["requestId"])
        log.info(
            "refreshed", request_id=document["requestId"], status=extended, code=code or None, reason=message or None
        )


def _runs(partitions: Sequence[RefreshPartition]) -> list[list[RefreshPartition]]:
    runs: list[list[RefreshPartition]] = []
    for one in sorted(partitions, key=lambda p: p.start):
        if runs and runs[-1][-1].end == one.start:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _parallelism(body: Document) -> int:
    """How many tables at a time: maxParallelism of the request; the service takes 10 unless told."""
    try:
        return min(10, max(1, int(body.get("maxParallelism", 10))))
    except (TypeError, ValueError):
        return 1


def _text(at: dt.datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _duration(text: str) -> dt.timedelta:
    hours, minutes, seconds = (int(part) for part in text.split(":"))
    return dt.timedelta(hours=hours, minutes=minutes, seconds=seconds)
