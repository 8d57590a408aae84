"""What an alert says, and how it is told: one log line, and a webhook if there is one.

An alert carries what happened, why, and what to do next; never a secret. Telling it never fails anything: what a
webhook does not take waits for the sensor's next tick, and the log has the alert all the same.

Belongs here: words, redaction, delivery; pure but for the delivery. Not here: when to tell (defs/alerts.py).
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

log = logging.getLogger("orchestration.alerts")

# Dagster gives a sensor's tick 60 s, and one that it gives up keeps no cursor: the same alerts would come again.
BUDGET_S = 25.0  # for all posts of a tick; below POST_S nothing would be sent
POST_S = 10.0  # for one post, whatever it does; a receiver that takes longer is silent
ANSWER_S = 8.0  # for each step of it (connecting, an answer), so that the log can say which
# A silent receiver may have taken the alert: it is sent again so long after it was found, and then no more.
AFTER_SILENCES = (timedelta(0), timedelta(minutes=1), timedelta(minutes=15))
KEPT = timedelta(days=1)  # how long a receiver may be away; what is older is in the log, and no news
MAX_WAITING = 50  # they stand in the sensor's cursor, some 4 kB each at most
MAX_REASON = 1500  # what chat programs show without folding
_RETRYABLE = {408, 425, 429, *range(500, 600)}

_SECRETS = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]*:)[^\s@]+@", re.IGNORECASE), r"\1***@"),
    (
        re.compile(
            r"((?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|sig|signature|credential)s?"
            r"[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&}]+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9._-]+"), "***"),
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", re.DOTALL), "***"),
)

# By the name of the error, of whatever room; the first that fits. Runbooks say more than a line can.
NEXT_STEPS: Mapping[str, str] = {
    "MageRunError": "Mend the block that the reason names, in Mage's UI or its file. The sensor runs the day again.",
    "RestoredError": (
        "As the lake's owner run `streaming lake restored`: docs/runbooks/backup-and-restore.md. The sensor runs the "
        "days again."
    ),
    "MageSpecError": "Mend the file that the reason names, then reload the code location.",
    "ChecksFailedError": "Look at the rows that the reason shows: docs/runbooks/does-not-reconcile.md.",
    "ReconcileError": "Compare the layers and rebuild the day: docs/runbooks/does-not-reconcile.md.",
    "BudgetSpentError": "Nothing today: the refresh follows when the service's day begins anew.",
    "RefreshError": "docs/runbooks/failed-refresh.md.",
    "ServiceError": "docs/runbooks/failed-refresh.md.",
    "AuthorizationError": "Renew the service principal's secret or rights: docs/runbooks/failed-refresh.md.",
    "LakeUnavailableError": "Is PostgreSQL up? docs/runbooks/service-down.md. The sensor runs the day again by itself.",
    "SilentLakeError": "Is PostgreSQL well? docs/runbooks/service-down.md. The sensor runs the day again by itself.",
    "LakeRefusedError": "Is LAKE_DSN right? docs/runbooks/change-a-password.md. The sensor runs the day again.",
    "LostRowsError": "Restore the rows: docs/runbooks/backup-and-restore.md. The sensor runs the days again.",
    "RetiredError": "Restore landing, or leave the day as it is loaded: docs/runbooks/backup-and-restore.md.",
    "BudgetError": "Nothing today: what has landed is loaded together once the limits are renewed.",
    "ThrottledError": "Nothing if it was once: the sensor asks again. Often: docs/runbooks/failed-refresh.md.",
    "JobError": "Read BigQuery's message in the reason; the sensor tries again with growing pauses.",
    "ExportError": "Look whether several runs of the day are at work; the sensor runs it again.",
    "Failure": "Start it again as the reason says: a person asked for it, and nothing repeats it by itself.",
    "DagsterExecutionInterruptedError": (
        "Nothing if the line was stopped or updated: the run's process was told to end, and what it left is asked for "
        "again. Else look who stops runs: is memory short? docs/runbooks/service-down.md."
    ),
    "DagsterUserCodeUnreachableError": (
        "Is the code server up? docs/runbooks/service-down.md. The sensor runs the day again by itself."
    ),
    "VariableError": (
        "Mend what the reason names: in the launchpad, and start the run again; in the pipeline's metadata.yaml, and "
        "the sensor runs the day again."
    ),
    "SettingsError": "Set what the reason names (.env.example) and start the code server again.",
}
OTHERWISE = "Open the run in Dagster: its last error says more. The sensor runs the day again, with growing pauses."
REBUILD = " This run was to rebuild its days; the sensor loads only what they lack. So then re-execute it in Dagster."
CRASHED = "Nothing if it was once: the next run does the rest. Often: is memory short? docs/runbooks/service-down.md."


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing that somebody should know."""

    kind: str  # run_failed, check_failed, not_fresh
    subject: str  # the job, check or asset
    reason: str
    next_step: str
    run_id: str = ""
    days: Sequence[str] = field(default_factory=tuple)

    def as_json(self) -> dict[str, object]:
        """For the log and the webhook. `text` is what Slack, Teams and Mattermost show."""
        cleaned = {name: redact(value) if isinstance(value, str) else value for name, value in asdict(self).items()}
        days = f" ({self.days[0]}{f' to {self.days[-1]}' if len(self.days) > 1 else ''})" if self.days else ""
        text = f"{self.kind.replace('_', ' ')}: {self.subject}{days}\n{cleaned['reason']}\nNext: {cleaned['next_step']}"
        return {**cleaned, "days": list(self.days), "text": text}


def redact(text: str) -> str:
    """Without passwords, tokens and keys, and not longer than somebody reads."""
    text = text[: 8 * MAX_REASON]  # first: some patterns take long on a long text
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


def next_step(error_names: Sequence[str], reason: str) -> str:
    """What to do about errors of these names; the first that is known counts.

    The block that failed counts last: of what it ran into, if that is known, there is more to say.
    """
    for name in sorted(error_names, key=lambda name: name == "MageRunError"):
        if name in NEXT_STEPS:
            return NEXT_STEPS[name]
    is_gone = "run worker status FAILED" in reason or ("process" in reason and "before the run had ended" in reason)
    is_late = "timed out due to taking longer" in reason and "to start" in reason
    return CRASHED if is_gone or is_late else OTHERWISE


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An alert that the receiver has not taken yet, as it stands in a sensor's cursor."""

    content: Mapping[str, Any]  # without secrets; `at` is when it was found, ISO 8601
    silences: int = 0  # how often the receiver did not answer, and may have taken it


def kept_from(stored: Mapping[str, Any]) -> Kept:
    """An alert as it was stored in a cursor (`dataclasses.asdict`).

    Raises:
        ValueError, TypeError, KeyError: nothing of ours was stored there.
    """
    kept = Kept(**stored)
    datetime.fromisoformat(kept.content["at"])
    if kept.silences not in range(len(AFTER_SILENCES)) or not {"kind", "subject", "run_id"} <= set(kept.content):
        raise ValueError("it is no alert that waits")
    return kept


def tell(
    found: Iterable[Alert],
    waiting: Iterable[Kept],
    webhook: str,
    *,
    now: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> list[Kept]:
    """Log what was found, and post it after what still waits; never an error, and never longer than BUDGET_S.

    After the first post that is not taken there are no more: the others would fare no better now. They wait, and the
    one that was not taken waits behind them, so that none can hold up the rest.

    Args:
        found: new ones.
        waiting: what an earlier call returned.
        webhook: where to; empty: the log alone.
        now: aware.
        clock: seconds; tests have their own.

    Returns: what waits for the next call: MAX_WAITING at most, none older than KEPT, none sent more often than
        AFTER_SILENCES says.
    """
    new = [Kept(content={"at": now.isoformat(timespec="seconds"), **alert.as_json()}) for alert in found]
    for each in new:
        log.error(json.dumps({"event": "alert", **each.content}, ensure_ascii=False))
    later, left = _by_turn([*waiting, *new] if webhook else [], now)
    end, problem = clock() + BUDGET_S, ""
    while left and not problem and clock() + POST_S <= end:
        each = left.popleft()
        answer = _post_in_time(webhook, each.content)
        if answer.may_help:
            problem = answer.problem
            left.append(replace(each, silences=each.silences + answer.is_silent))
        elif answer.problem:
            _give_up(each, webhook, answer.problem)
    if left:
        fields = {"host": _address(webhook)[1], "problem": redact(problem or "no time left"), "waiting": len(left)}
        log.warning(json.dumps({"event": "alerts wait for the next tick", **fields}))
    return _worth_keeping([*left, *later], webhook, now)


def _by_turn(waiting: Iterable[Kept], now: datetime) -> tuple[list[Kept], deque[Kept]]:
    """Those whose next turn is yet to come, and those whose turn it is."""
    later, due = list[Kept](), deque[Kept]()
    for each in waiting:
        turn = datetime.fromisoformat(each.content["at"]) + AFTER_SILENCES[each.silences]
        (due if now >= turn else later).append(each)
    return later, due


def _worth_keeping(waiting: Iterable[Kept], webhook: str, now: datetime) -> list[Kept]:
    kept = []
    for each in waiting:
        if each.silences >= len(AFTER_SILENCES):
            _give_up(each, webhook, f"sent {each.silences} times without an answer")
        elif now - datetime.fromisoformat(each.content["at"]) > KEPT:
            _give_up(each, webhook, f"not taken for {KEPT}")
        else:
            kept.append(each)
    oldest = sorted(kept, key=lambda each: str(each.content["at"]))[: max(0, len(kept) - MAX_WAITING)]
    for each in oldest:
        _give_up(each, webhook, f"more than {MAX_WAITING} wait")
    return [each for each in kept if each not in oldest]


def _give_up(alert: Kept, webhook: str, problem: str) -> None:
    fields = {name: alert.content[name] for name in ("kind", "subject", "run_id", "at")}
    host = _address(webhook)[1]
    log.error(json.dumps({"event": "alert not delivered", "host": host, "problem": redact(problem), **fields}))


def _address(webhook: str) -> tuple[str, str]:
    """Scheme and host; the rest of a webhook's address is its secret."""
    try:
        parts = urlsplit(webhook)
    except ValueError:
        return "", "unreadable"
    return parts.scheme, parts.hostname or ""


@dataclass(frozen=True)
class _Answer:
    problem: str = ""  # empty: it was taken
    may_help: bool = False  # another try
    is_silent: bool = False  # it was sent, so that it may have been taken all the same


def _post_in_time(webhook: str, content: Mapping[str, object]) -> _Answer:
    """Post in a thread of its own: looking a name up has no timeout, and a socket's begins anew with every byte."""
    answers: SimpleQueue[_Answer] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(_post(webhook, content)), daemon=True, name="alert").start()
    try:
        return answers.get(timeout=POST_S)
    except Empty:
        return _Answer(f"no answer within {POST_S:g} s", may_help=True, is_silent=True)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: urllib would follow it by a GET, without the alert, and call it taken."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def _post(webhook: str, content: Mapping[str, object]) -> _Answer:
    if _address(webhook)[0] not in {"http", "https"}:
        return _Answer("ALERT_WEBHOOK_URL is no http or https address")
    request = urllib.request.Request(  # noqa: S310 - the scheme is looked at above
        webhook, data=json.dumps(content).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=ANSWER_S) as answer:
            return _Answer() if answer.status < 300 else _Answer(f"HTTP {answer.status}")  # noqa: PLR2004
    except urllib.error.HTTPError as error:
        error.close()
        return _Answer(f"HTTP {error.code}{_moved(error)}", may_help=error.code in _RETRYABLE)
    except urllib.error.URLError as error:  # it could not be sent
        return _Answer(f"{type(error).__name__}: {error.reason}", may_help=True)
    except (OSError, http.client.HTTPException) as error:
        return _Answer(f"{type(error).__name__}: {error}", may_help=True, is_silent=True)
    except ValueError as error:
        return _Answer(f"{type(error).__name__}: {error}")


def _moved(answer: urllib.error.HTTPError) -> str:
    """Where a redirect points, in words; of the address no more than is no secret."""
    target = answer.headers.get("Location", "") if 300 <= answer.code < 400 else ""  # noqa: PLR2004
    scheme, host = _address(target)
    return f", a redirect to {scheme}://{host}: set ALERT_WEBHOOK_URL to where it leads" if host else ""
