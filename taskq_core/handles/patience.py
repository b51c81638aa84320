"""The rule by which all readers wait: `result`, `events` and `stream` of tasks, and `result` of workflows.

While Redis does not answer, a reader waits and goes on where it was, until its timeout is over. Then it raises the
error of the last read if Redis did not answer it, and an error about the timeout otherwise. Without a timeout, it waits
without limit.
"""

import math
import time

from taskq_core.broker.failures import ClosedClientError
from taskq_core.errors import BrokerUnavailableError
from taskq_core.handles import subscription
from taskq_core.settings import Duration, seconds

LAST_CHANCE_S = 2.0
"""Minimum timeout in seconds of each read, even if the timeout of the reader ends earlier."""


class Patience:
    """How long one reader goes on, and the pauses between its reads.

    Args:
        timeout: Maximum time of the reader; None for no limit.
        read_s: Maximum seconds of one read.
    """

    def __init__(self, timeout: Duration | None, *, read_s: float) -> None:
        self.timeout_s = math.inf if timeout is None else seconds("timeout", timeout)
        self._ends_at = time.monotonic() + self.timeout_s
        self._most_read_s = read_s
        self._pause_s = subscription.FIRST_PAUSE_S
        self._unavailable: BrokerUnavailableError | None = None

    def read_s(self) -> float:
        """Return the timeout in seconds of the next read: the time left, but at least `LAST_CHANCE_S`."""
        return min(self._most_read_s, max(LAST_CHANCE_S, self._ends_at - time.monotonic()))

    def record_answer(self, *, has_changed: bool = False) -> None:
        """Record that Redis answered. If the task has changed, the next pause is short again."""
        self._unavailable = None
        if has_changed:
            self._pause_s = subscription.FIRST_PAUSE_S

    def record_unavailable(self, error: BrokerUnavailableError) -> None:
        """Record that Redis did not answer. Raise the error if waiting cannot help, because the client is closed."""
        if isinstance(error, ClosedClientError):
            raise error
        self._unavailable = error

    def pause_s(self) -> float | None:
        """Return the seconds until the next read, None if the time is over.

        Raises:
            BrokerUnavailableError: The time is over, and Redis does not answer.
        """
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, subscription.LONGEST_PAUSE_S)
        left_s = self._ends_at - time.monotonic()
        if left_s > 0:
            return min(pause_s, left_s)
        if self._unavailable is not None:
            raise self._unavailable
        return None
