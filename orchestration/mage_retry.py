"""How often a Mage block is tried again, and after which pauses: Mage's `retry_config`.

Belongs here: what its values mean and which are wrong. Not here: files (mage_spec.py), running and pausing (mage.py).
Source: mage_ai/shared/retry.py and mage_ai/data_preparation/shared/retry.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """Mage's own fields and defaults; `delay` and `max_delay` are seconds, the latter the most of all pauses in sum."""

    retries: int = 0
    delay: float = 5
    max_delay: float = 60
    exponential_backoff: bool = True

    @classmethod
    def merged(cls, *levels: Mapping[str, Any] | None) -> RetryConfig:
        """What the project says, then its block, field by field; what is null says nothing."""
        said = {name: value for level in levels for name, value in (level or {}).items() if value is not None}
        return cls(**said)

    def pauses(self) -> Iterator[float]:
        """The pause before each further try."""
        waited, pause = 0.0, self.delay
        for _ in range(self.retries):
            if waited + pause >= self.max_delay:
                return
            yield pause
            waited += pause
            if self.exponential_backoff:
                pause *= 2


def retry_problem(config: Any) -> str | None:
    """What is wrong with a `retry_config`, with which Mage would fail in each run."""
    if config is None:
        return None
    if not isinstance(config, dict):
        return f"retry_config is {config!r}; expected a mapping"
    known = [field.name for field in fields(RetryConfig)]
    unknown = [str(name) for name in config if name not in known]
    if unknown:
        return f"retry_config has {', '.join(unknown)}; Mage knows {', '.join(known)}"
    for name, value in config.items():
        expected = _EXPECTED[name]
        if value is not None and not _is(expected, value):
            return f"retry_config: {name} is {value!r}; expected {expected}"
    return None


_WHOLE, _SECONDS, _TRUTH = "a whole number from 0 on", "seconds from 0 on", "true or false"
_EXPECTED = {"retries": _WHOLE, "delay": _SECONDS, "max_delay": _SECONDS, "exponential_backoff": _TRUTH}


def _is(expected: str, value: Any) -> bool:
    if expected == _TRUTH or isinstance(value, bool):
        return expected == _TRUTH and isinstance(value, bool)
    kinds = int if expected == _WHOLE else (int, float)
    return isinstance(value, kinds) and math.isfinite(value) and value >= 0
