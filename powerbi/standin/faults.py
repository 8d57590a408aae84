"""Faults on demand: what a test or a drill asks the stand-in to do wrong, and how often.

Kinds: throttle (429 with retry_after), status (any HTTP status), expire_tokens, fail_refresh (code, message),
slow_refresh (seconds), drop (act, then close before the answer is whole), fail_operation (code, message),
slow_operation (seconds). In memory only: a restart is healthy.
"""

from __future__ import annotations

import threading
from typing import Any

KINDS = frozenset(
    {
        "throttle", "status", "expire_tokens", "fail_refresh", "slow_refresh", "drop", "fail_operation",
        "slow_operation",
    }
)  # fmt: skip


class Faults:
    """Faults waiting to happen, first come, first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []

    def add(self, fault: dict[str, Any]) -> None:
        """Let a fault happen `count` times (1 unless told), for paths that contain `path` (any unless told)."""
        with self._lock:
            self._waiting.append({"count": 1, **fault})

    def take(self, kind: str, path: str = "") -> dict[str, Any] | None:
        """A fault of this kind if one waits for this path; it is used up by one."""
        with self._lock:
            for fault in self._waiting:
                if fault["kind"] == kind and fault["count"] > 0 and fault.get("path", "") in path:
                    fault["count"] -= 1
                    return fault
        return None

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._waiting.clear()
