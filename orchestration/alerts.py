"""What an alert says, and how it is told: one log line, and a webhook if there is one.

An alert carries what happened, why, and what to do next; never a secret. Telling it never fails anything: a webhook
that is down costs three short tries, and the log has the alert all the same.

Belongs here: words, redaction, delivery; pure but for the delivery. Not here: when to tell (defs/alerts.py).
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("orchestration.alerts")

TRIES = 3
FIRST_PAUSE_S = 0.5  # then 2 s: a sensor's tick has 60 s, and a receiver that is down stays down longer than that
TIMEOUT_S = 5.0
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
    "AuthorizationError": "Renew the service principal's rights or secret: docs/runbooks/failed-refresh.md.",
    "LakeUnavailableError": "Is PostgreSQL up? docs/runbooks/service-down.md. The sensor runs the day again by itself.",
    "JobError": "Read BigQuery's message in the reason; the sensor tries again with growing pauses.",
    "ExportError": "Look whether several runs of the day are at work; the sensor runs it again.",
    "SettingsError": "Set what the reason names (.env.example) and start the code server again.",
}
OTHERWISE = "Open the run in Dagster: its last error says more. The sensor runs the day again, with growing pauses."
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
    return CRASHED if "process" in reason and ("gone" in reason or "before the run had ended" in reason) else OTHERWISE


def tell(alert: Alert, webhook: str, *, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Log the alert and send it. False if a webhook is set and did not take it; never an error."""
    content = alert.as_json()
    log.error(json.dumps({"event": "alert", **content}, ensure_ascii=False))
    if not webhook:
        return True
    problem = "nothing tried"
    for attempt in range(TRIES):
        problem, may_help = _post(webhook, content)
        if not problem:
            return True
        if not may_help:
            break
        if attempt + 1 < TRIES:
            sleep(FIRST_PAUSE_S * 4**attempt)
    log.error(json.dumps({"event": "alert not delivered", "host": _address(webhook)[1], "problem": redact(problem)}))
    return False


def _address(webhook: str) -> tuple[str, str]:
    """Scheme and host; the rest of a webhook's address is its secret."""
    try:
        parts = urlsplit(webhook)
    except ValueError:
        return "", "unreadable"
    return parts.scheme, parts.hostname or ""


def _post(webhook: str, content: Mapping[str, object]) -> tuple[str, bool]:
    """Why it was not taken, empty if it was; and whether another try can help."""
    if _address(webhook)[0] not in {"http", "https"}:
        return "ALERT_WEBHOOK_URL is no http or https address", False
    request = urllib.request.Request(  # noqa: S310 - the scheme is looked at above
        webhook, data=json.dumps(content).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return ("", False) if answer.status < 300 else (f"HTTP {answer.status}", False)  # noqa: PLR2004
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}", error.code in _RETRYABLE
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {getattr(error, 'reason', error)}", True
