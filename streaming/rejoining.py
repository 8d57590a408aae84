"""When a consumer joins its group again after trouble, and when it gives up.

Here: the signal that ends a session, the pauses between sessions, the limit of an outage. Not here: what a session does
(consumer.py), retries within one (writer.py).
"""

from __future__ import annotations

from streaming.errors import BrokerUnavailableError, LakeUnavailableError, RegistryUnavailableError

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
CALM_S = 60.0  # so long assigned, the next rejoin is tried as soon as a first one


class RejoinError(Exception):
    """Leave the group and join again: the claims hold no longer, or could not be made.

    Its `__cause__` is the outage behind it, if there is one. It never leaves the process, so it is no StreamingError.
    """


class Rejoins:
    """The pauses between sessions, growing while trouble lasts, and how long an outage has lasted by now."""

    def __init__(self, outage_limit_s: float) -> None:
        self.outage_limit_s = outage_limit_s
        self._delay_s = FIRST_DELAY_S
        self._trouble_since: float | None = None
        self._transactions = 0

    def next_delay_s(self, error: RejoinError, *, assigned_at: float | None, transactions: int, now: float) -> float:
        """How long to wait before the next session.

        Args:
            error: what ended the session.
            assigned_at: when it was last assigned topic partitions; None if it never came so far.
            transactions: how many were written since the process started.
            now: of the same clock as `assigned_at`, seconds.

        Raises:
            StreamingError: the error's cause, once an outage has lasted longer than the limit.
        """
        if assigned_at is not None:  # lake and broker have answered since
            # A registry shows only by what it lets be written whether it is back.
            is_calm = now - assigned_at > CALM_S or transactions > self._transactions
            if is_calm or not isinstance(error.__cause__, RegistryUnavailableError):
                self._trouble_since = None  # this trouble is a new one
            if now - assigned_at > CALM_S:
                self._delay_s = FIRST_DELAY_S
        self._trouble_since = self._begun(error.__cause__, now)
        self._transactions = transactions
        delay_s = self._delay_s
        self._delay_s = min(delay_s * 2, LONGEST_DELAY_S)
        return delay_s

    def _begun(self, cause: BaseException | None, now: float) -> float:
        """When the trouble began; raises once it has lasted too long."""
        if not isinstance(cause, LakeUnavailableError | BrokerUnavailableError | RegistryUnavailableError):
            return now
        begun = now if self._trouble_since is None else self._trouble_since
        if now - begun > self.outage_limit_s:
            raise cause
        return begun
