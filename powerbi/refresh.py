"""Refreshing the semantic model: only what changed, followed to its end, cancelled with its caller.

Here: which objects, one refresh at a time, what counts as done, the budget of a shared capacity. Not here: HTTP and its
retries (rest.py), when to refresh (whoever calls).

A refresh counts only if it began after the data it must show was published. That holds for every refresh that is not in
the history when this module looks before asking, whoever started it, so no two clocks are compared.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbi.budget import SHARED_BUDGET, next_refresh_at, refreshes_left
from powerbi.errors import BudgetSpentError, RefreshError, ServiceError
from powerbi.model import Model, read_model
from powerbi.partitions import granule
from powerbi.rest import Client, answer, credential_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    import requests

    from powerbi.settings import PowerBiSettings

_ACCEPTED, _BAD_REQUEST, _SERVER_ERROR = 202, 400, 500
_STARTS = 3  # tries to start a refresh whose answer is lost; more would spend a budget on a service that is ill
_APPEARS_S = 60.0  # a plain refresh is in the history after some seconds
_RUNNING = {"Unknown", "NotStarted", "InProgress", ""}
# Asked for again after an eighth of the time waited so far: what took 4 s is seen after 4.5, what takes an hour costs
# six requests a minute (the service allows 120).
_POLL_SHARE, _SHORTEST_POLL_S, _LONGEST_POLL_S = 0.125, 0.2, 10.0
_MODEL = Path(__file__).parent / "Retail.SemanticModel"


@dataclass(frozen=True)
class Refresh:
    """A refresh that ended as Completed; instants are the service's."""

    request_id: str
    started_at: dt.datetime
    ended_at: dt.datetime
    objects: tuple[tuple[str, str | None], ...]
    mode: str
    budget_left: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Wish:
    """What should be refreshed: days of the fact tables, and other tables; None means all."""

    days: frozenset[dt.date] | None = None
    tables: frozenset[str] | None = None


@dataclass
class Refresher:
    """Refreshes one semantic model; `sleep` and `clock` are the tests'."""

    client: Client
    model: Model
    timeout_s: float = 7200.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _began: float = field(default=0.0)

    def run(self, wish: Wish) -> Refresh:
        """Refresh what is wished and wait for the end.

        Raises:
            BudgetSpentError: a shared capacity's refreshes of the day are used up. Nothing was started.
            RefreshError: it failed, timed out or was cancelled; the report shows the state before.
            ServiceError: the service could not be asked.
        """
        self._began = self.clock()
        if self.client.settings.refresh_mode == "basic":
            return self._finish(self._basic())
        objects = list(self.objects(wish))
        if wish.days is None:
            # Applying the policy makes and fills what is missing; what was filled before is read by the second.
            is_first = not self._was_refreshed()
            done = self._enhanced(
                {**_REQUEST, "applyRefreshPolicy": True, "objects": [_entry(*one) for one in objects]}, objects
            )
            return self._finish(done if is_first else self._named(objects))
        try:
            return self._finish(self._named(objects))
        except ServiceError as error:
            if not _is_missing_partition(error):
                raise
        # The month is new, or the model is empty: applying the policy makes the partition and fills every empty one.
        is_first = not self._was_refreshed()
        done = self._enhanced({**_REQUEST, "applyRefreshPolicy": True, **_as_of(wish.days)}, [])
        return self._finish(done if is_first else self._named(objects))

    def _was_refreshed(self) -> bool:
        """Whether anything was filled before: then some partitions are older than the data to be shown."""
        return any(one.get("status") == "Completed" for one in history(self.client))

    def objects(self, wish: Wish) -> Iterator[tuple[str, str | None]]:
        """Tables and refresh partitions that hold what is wished."""
        for table in self.model.tables:
            if wish.tables is not None and table.name not in wish.tables:
                continue
            policy = table.refresh_policy
            if policy is None or wish.days is None:
                yield table.name, None
                continue
            for name in sorted({granule(day, policy.incremental_granularity).name for day in wish.days}):
                yield table.name, name

    def _named(self, objects: list[tuple[str, str | None]]) -> Refresh:
        return self._enhanced(
            {**_REQUEST, "applyRefreshPolicy": False, "objects": [_entry(*one) for one in objects]}, objects
        )

    def _finish(self, done: Refresh) -> Refresh:
        left = None
        if self.client.settings.refresh_mode == "basic":
            left = budget_left(self.client)
        return Refresh(
            done.request_id, done.started_at, done.ended_at, done.objects, done.mode, left, self.clock() - self._began
        )

    # ------------------------------------------------------------------ enhanced

    def _enhanced(self, body: dict[str, Any], objects: list[tuple[str, str | None]]) -> Refresh:
        request_id = self._start({**body, "timeout": _duration(self.timeout_s)})
        try:
            detail = self._follow(request_id)
        except BaseException:  # also a caller's interruption: what nobody waits for must not go on
            self._cancel(request_id)
            raise
        status = detail.get("extendedStatus") or detail.get("status")
        if status != "Completed":
            messages = "; ".join(str(one.get("message") or one.get("code")) for one in detail.get("messages", []))
            code = next((one.get("code") for one in detail.get("messages", []) if one.get("code")), None)
            raise RefreshError(
                f"refresh {request_id} ended as {status}: {messages or 'no reason given'}."
                " The report shows the state before it.",
                request_id=request_id, code=code,
            )  # fmt: skip
        return Refresh(
            request_id, _instant(detail["startTime"]), _instant(detail["endTime"]), tuple(objects), "enhanced"
        )

    def _start(self, body: dict[str, Any]) -> str:
        """Start a refresh, once, whatever becomes of the answer; returns its id."""
        for attempt in itertools.count(1):
            before = {one["requestId"] for one in history(self.client)}
            try:
                response = self.client.send("POST", self.client.dataset("/refreshes"), body, is_repeatable=False)
            except ServiceError as error:
                if error.status is None or error.status >= _SERVER_ERROR:
                    found = self._unanswered(before, body)
                    if found is not None:
                        return found
                    if attempt >= _STARTS:
                        raise
                    continue
                if error.status == _BAD_REQUEST and self._wait_for_running():
                    continue
                raise
            except BaseException:  # interrupted before the answer: it may run, and nobody would know
                found = self._started_since(before, body)
                if found is not None:
                    self._cancel(found)
                raise
            return self._identifier(response, before, body)
        raise AssertionError("the attempts end above")

    def _identifier(self, response: requests.Response, before: set[str], body: dict[str, Any]) -> str:
        """The id of the refresh that was asked for."""
        identifier = response.headers.get("x-ms-request-id") or response.headers.get("Location", "").rsplit("/", 1)[-1]
        if not identifier and response.status_code != _ACCEPTED:
            found = self._unanswered(before, body)  # a page of a proxy: whether it went through is to be seen
            if found is not None:
                return found
            answer(response, "requestId")
        if not identifier:
            raise RefreshError(
                "the service accepted a refresh but gave no request id; is this a shared capacity?"
                " Set POWERBI_REFRESH_MODE=basic."
            )
        return identifier

    def _unanswered(self, before: set[str], body: dict[str, Any]) -> str | None:
        """The refresh of a request whose answer was lost; it may take a moment to be listed."""
        for pause in (0.0, 1.0, 2.0):
            if pause:
                self._wait(pause, "looking whether a refresh was started")
            found = self._started_since(before, body)
            if found is not None:
                return found
        return None

    def _started_since(self, before: set[str], body: dict[str, Any]) -> str | None:
        """A refresh that is new and of the same objects."""
        wanted = {(one["table"], one.get("partition")) for one in body.get("objects", [])}
        for entry in history(self.client):
            if entry["requestId"] in before or entry.get("refreshType") != "ViaEnhancedApi":
                continue
            url = self.client.dataset(f"/refreshes/{entry['requestId']}")
            listed = answer(self.client.send("GET", url)).get("objects", [])
            names = {(one.get("table"), one.get("partition")) for one in listed}
            if wanted <= names | {(table, None) for table, _ in names}:
                return str(entry["requestId"])
        return None

    def _wait_for_running(self) -> bool:
        """Wait while another refresh runs; whether there was one. It began before ours and does not count."""
        running = [one["requestId"] for one in history(self.client) if one.get("status") in _RUNNING]
        for request_id in running:
            for pause in _pauses():
                if all(
                    one["requestId"] != request_id or one.get("status") not in _RUNNING for one in history(self.client)
                ):
                    break
                self._wait(pause, f"waiting for refresh {request_id}, which another started and which runs")
        return bool(running)

    def _follow(self, request_id: str) -> dict[str, Any]:
        for pause in _pauses():
            detail = answer(self.client.send("GET", self.client.dataset(f"/refreshes/{request_id}")), "status")
            if (detail.get("extendedStatus") or detail.get("status")) not in _RUNNING:
                return detail
            self._wait(pause, f"refresh {request_id}")
        raise AssertionError("the pauses never end")

    def _cancel(self, request_id: str) -> None:
        try:
            self.client.send("DELETE", self.client.dataset(f"/refreshes/{request_id}"))
        except ServiceError:
            return  # it has ended, or the service is away: the reason we are here is the one to tell

    def _wait(self, seconds: float, what: str) -> None:
        if self.clock() - self._began > self.timeout_s:
            raise RefreshError(
                f"{what}: no end after {self.timeout_s:.0f} s. It was cancelled if it was ours; the report shows the"
                " state before. See the refresh history in the service; then refresh again, or raise the limit."
            )
        self.sleep(seconds)

    # ------------------------------------------------------------------ basic

    def _basic(self) -> Refresh:
        """Shared capacity: no request id and no objects; a new entry of the history is ours, or as good as ours.

        Any refresh there is of the whole model, so one that somebody else starts after we looked shows our data too.
        """
        body = {"notifyOption": "NoNotification"}
        for attempt in itertools.count(1):
            self._wait_for_running()
            before = {one["requestId"] for one in history(self.client)}
            if budget_left(self.client) <= 0:
                raise _spent()
            try:
                self.client.send("POST", self.client.dataset("/refreshes"), body, is_repeatable=False)
            except ServiceError as error:
                if _is_spent(error):
                    raise _spent() from error
                is_unknown = error.status is None or error.status >= _SERVER_ERROR
                if attempt >= _STARTS or not (is_unknown or error.status == _BAD_REQUEST):
                    raise
            entry = self._new_entry(before)
            if entry is not None:
                return self._basic_result(entry)
            if attempt >= _STARTS:
                raise RefreshError(
                    f"asked {_STARTS} times for a refresh, and the history has no new one. The report shows the state"
                    " before. Is POWERBI_API_URL right, is a proxy in between?"
                )
        raise AssertionError("the attempts end above")

    def _new_entry(self, before: set[str]) -> dict[str, Any] | None:
        """The end of a refresh that was not in the history before; None if none begins within a minute."""
        asked = self.clock()
        for pause in _pauses():
            new = [one for one in history(self.client) if one["requestId"] not in before]
            ended = [one for one in new if one.get("status") not in _RUNNING]
            if ended:
                return ended[-1]
            if not new and self.clock() - asked > _APPEARS_S:
                return None
            self._wait(pause, "waiting for the refresh to end, by the history")
        raise AssertionError("the pauses never end")

    def _basic_result(self, entry: dict[str, Any]) -> Refresh:
        if entry["status"] != "Completed":
            reason = entry.get("serviceExceptionJson", "no reason given")
            raise RefreshError(
                f"refresh {entry['requestId']} ended as {entry['status']}: {reason}", request_id=entry["requestId"]
            )
        return Refresh(entry["requestId"], _instant(entry["startTime"]), _instant(entry["endTime"]), (), "basic")


def _as_of(days: Collection[dt.date]) -> dict[str, str]:
    """The day to apply the policy for: events may be dated ahead, and today a month to come has no partition."""
    newest = max(days, default=dt.date.min)
    return {"effectiveDate": newest.isoformat()} if newest > dt.datetime.now(dt.UTC).date() else {}


_REQUEST = {"type": "Full", "commitMode": "Transactional", "maxParallelism": 4, "retryCount": 1}


def refresh_model(
    settings: PowerBiSettings,
    *,
    days: Collection[dt.date] | None = None,
    tables: Iterable[str] | None = None,
    not_before: dt.datetime | None = None,
    timeout_s: float = 7200.0,
    client: Client | None = None,
) -> Refresh:
    """Refresh the semantic model and wait until it shows the data.

    Args:
        settings: where the service is.
        days: invoice days whose rows changed; only their refresh partitions are read. None: everything.
        tables: of the model, None: all.
        not_before: when the data was published; a refresh that began earlier does not count. It must have passed.
        timeout_s: after this long the refresh is cancelled.
        client: of an own making; None: one from the settings.

    Raises:
        PowerBiError: see Refresher.run.
    """
    now = dt.datetime.now(dt.UTC)
    if not_before is not None and not_before > now:
        raise RefreshError(
            f"the data is to be published at {not_before.isoformat()}, which is still to come; nothing was started"
        )
    client = client or Client(settings, credential_of(settings))
    wish = Wish(frozenset(days) if days is not None else None, frozenset(tables) if tables is not None else None)
    return Refresher(client, read_model(_MODEL), timeout_s).run(wish)


def history(client: Client, *, top: int = 60) -> list[dict[str, Any]]:
    """The refresh history, newest first."""
    found: list[dict[str, Any]] = answer(client.send("GET", client.dataset(f"/refreshes?$top={top}")), "value")["value"]
    return found


def last_refresh(client: Client) -> Refresh | None:
    """The newest refresh that completed, whoever started it."""
    for one in history(client):
        if one.get("status") == "Completed":
            mode = "enhanced" if one.get("refreshType") == "ViaEnhancedApi" else "basic"
            return Refresh(str(one["requestId"]), _instant(one["startTime"]), _instant(one["endTime"]), (), mode)
    return None


def budget_left(client: Client, *, now: dt.datetime | None = None) -> int:
    """Refreshes that a shared capacity allows for the rest of the day (UTC)."""
    return refreshes_left(history(client), now or dt.datetime.now(dt.UTC))


def refresh_due_at(settings: PowerBiSettings, *, client: Client | None = None) -> dt.datetime:
    """When a change may have its refresh: now, or on a shared capacity when its budget says so."""
    now = dt.datetime.now(dt.UTC)
    if settings.refresh_mode != "basic":
        return now
    return next_refresh_at(history(client or Client(settings, credential_of(settings))), now)


def query_row(client: Client, dax: str) -> dict[str, Any]:
    """The first row of a DAX query, by column name without brackets; numbers are exact.

    Raises:
        AuthorizationError: the service refuses service principals on models with row-level security.
    """
    rows = query_rows(client, dax)
    return {name.strip("[]"): value for name, value in rows[0].items()} if rows else {}


def query_rows(client: Client, dax: str) -> list[dict[str, Any]]:
    """Every row of a DAX query, by column name as the service writes it; numbers are exact.

    Raises:
        AuthorizationError: the service refuses service principals on models with row-level security.
    """
    body = {"queries": [{"query": dax}], "serializerSettings": {"includeNulls": True}}
    response = client.send("POST", client.dataset("/executeQueries"), body, is_repeatable=True)
    result = answer(response, "results")["results"][0]
    # A query that fails on the way, or has more rows than the service gives, is a 200 with what there is of it.
    table: dict[str, Any] = next(iter(result.get("tables", [])), {})
    error = result.get("error") or table.get("error")
    if error or "rows" not in table:
        raise ServiceError(f"the service did not answer a DAX query whole: {error or 'no rows, and no reason given'}")
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def _entry(table: str, partition: str | None) -> dict[str, str]:
    return {"table": table} if partition is None else {"table": table, "partition": partition}


def _spent() -> BudgetSpentError:
    return BudgetSpentError(
        f"today's {SHARED_BUDGET} refreshes are used up. Nothing was started;"
        " the change stays pending until the next day (UTC)."
    )


def _is_spent(error: ServiceError) -> bool:
    """Whether the service refuses since the day's refreshes are used up; a busy capacity says `limit` too."""
    text = f"{error.code} {error}".lower()
    return error.status in (400, 429) and "limit" in text and "refresh" in text and "capacity limit" not in text


def _duration(seconds: float) -> str:
    """hh:mm:ss as the service takes it: it stops by itself should we not be there to cancel."""
    whole = int(min(max(seconds, 60.0), 86_399.0))
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _is_missing_partition(error: ServiceError) -> bool:
    text = f"{error.code} {error}".lower()
    return "partition" in text and any(
        word in text for word in ("not exist", "notfound", "not found", "cannot be found")
    )


def _pauses() -> Iterator[float]:
    waited = 0.0
    while True:
        pause = min(max(waited * _POLL_SHARE, _SHORTEST_POLL_S), _LONGEST_POLL_S)
        yield pause
        waited += pause


def _instant(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
