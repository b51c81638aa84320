"""Wait for room in a full queue: when to try again, and until when. Without input or output, shared by both clients.

How many tasks may be pending is judged by the enqueue script. Only enqueueing by clients is held up: a task that waits
for its start or its next attempt, was taken back, belongs to a group or a periodic entry, or is moved by an operator
gets its place whatever the limit.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskq_core.broker.operations import new_tasks
from taskq_core.broker.operations.new_tasks import Admitted, NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.settings import QueueLimit, WhenFull, seconds
from taskq_core.wire import QueueKeys

FIRST_PAUSE_S = 0.02
"""About how long a client waits before it tries a full queue again; twice as long each time."""
LAST_PAUSE_S = 0.5
"""Longest time between two tries, in seconds."""


class Wait:
    """The time that one call may wait for room; it counts from when the queue was first found full.

    Args:
        longest_s: Seconds in all; 0 does not wait.
        monotonic: Source of monotonic time, None for this machine's.
        jitter: Returns the share of a pause that is waited, so that those who wait do not try at once.
    """

    __slots__ = ("_deadline", "_jitter", "_longest_s", "_monotonic", "_pause_s", "is_over")

    def __init__(
        self,
        longest_s: float,
        *,
        monotonic: Callable[[], float] | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - jitter, no secret
    ) -> None:
        self._longest_s = longest_s
        self._monotonic = monotonic or time.monotonic
        self._jitter = jitter
        self._deadline: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self.is_over = False
        """True once a try has failed with no time left."""

    def pause_s(self) -> float | None:
        """Return the seconds until the next try, or None if that was the last."""
        now = self._monotonic()
        if self._deadline is None:
            self._deadline = now + self._longest_s
        left_s = self._deadline - now
        if self.is_over or left_s <= 0:
            self.is_over = True
            return None
        pause_s = min(self._jitter() * self._pause_s, left_s)
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        return pause_s

    def renew(self) -> None:
        """Let the time count anew for the next call, unless it has run out once."""
        self._deadline = None
        self._pause_s = FIRST_PAUSE_S


class Admission:
    """The limits of the queues that have one.

    Args:
        limits: By name of the queue.
        timeout_s: Seconds a client waits for room where the limit does not say.
    """

    def __init__(self, limits: Mapping[str, QueueLimit], *, timeout_s: float) -> None:
        self._limits = limits
        self._timeout_s = timeout_s

    def max_pending(self, queue: str) -> int | None:
        """Return the most tasks that may be pending in a queue; None for any number."""
        limit = self._limits.get(queue)
        return None if limit is None else limit.max_pending

    def enqueue(self, queue: QueueKeys, tasks: Sequence[NewTask], slot: ReceiptSlot) -> Operation[Any]:
        """Return the operation that stores tasks, within the limit of their queue if it has one; see `admitted`."""
        most = self.max_pending(queue.name)
        if most is None:
            return new_tasks.enqueue(queue, tasks, slot)
        return new_tasks.enqueue_limited(queue, tasks, slot, max_pending=most)

    def wait(self, queue: str, *, most_s: float | None = None) -> Wait:
        """Return the time that a call may wait for room in a queue, at most `most_s`."""
        limit = self._limits.get(queue)
        if limit is None or limit.when_full is WhenFull.REJECT:
            return Wait(0.0)
        own = limit.block_timeout
        longest_s = self._timeout_s if own is None else seconds("BLOCK_TIMEOUT", own)
        return Wait(longest_s if most_s is None else min(longest_s, most_s))


def admitted(answer: str | Admitted) -> Admitted:
    """Return the answer to what `Admission.enqueue` returned."""
    return answer if isinstance(answer, Admitted) else Admitted(answer)
