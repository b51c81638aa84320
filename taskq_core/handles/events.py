"""What happens to one task, as those who follow it are told: what stands in Redis, whenever it has changed.

An event is the task as it was read, so what a follower knows is never older than its last event, and states that a task
passes through between two looks may be left out. Whoever changes a task says so on a channel of its queue, if somebody
follows it; a follower looks again then, and after a while in any case, because Go's workers say nothing and a message
may be missed.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from taskq_core.broker.operations.views import StoredTask
from taskq_core.errors import BrokerError, BrokerUnavailableError, ResultTimeoutError
from taskq_core.execution.progress import Progress
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.settings import Duration, seconds
from taskq_core.wire import TaskState

FIRST_LOOK_S = 0.05
"""Seconds until a follower looks again after a change of state; doubled each time."""
LAST_LOOK_S = 1.0
"""Longest time between two looks, in seconds."""
LAST_CHANCE_S = 2.0
"""Seconds that a look may take at least, also beyond the time of its follower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """How a task stands after something about it has changed.

    Attributes:
        id: Stands for what the event says: a follower that comes back with it hears only of what is new.
        task: The task as it was read, None once it is gone.
    """

    id: str
    task: TaskInfo | None

    @property
    def state(self) -> TaskState | None:
        """Where the task stands; None once it is gone: it has ended without being kept, or was deleted."""
        return None if self.task is None else self.task.state

    @property
    def progress(self) -> Progress | None:
        """How far it is, as it told last; None if it told nothing, or is gone."""
        return None if self.task is None else self.task.progress

    @property
    def is_final(self) -> bool:
        """Whether it has ended: nothing changes any more by itself."""
        return self.task is None or self.task.is_final


def event_of(stored: StoredTask | None) -> TaskEvent:
    """Return the event that a task, or the lack of one, makes.

    Raises:
        WireFormatError: The task cannot be read.
    """
    if stored is None:
        return TaskEvent(id="gone", task=None)
    info = task_info(stored)
    digest = hashlib.blake2b(digest_size=9)
    score = None if info.state is TaskState.ACTIVE else stored.score  # that of an active one moves with each heartbeat
    for part in (info.state.value, score, stored.started_ms):
        digest.update(f"{part}\n".encode())
    for data in (stored.message, stored.result or stored.oversized, stored.progress):
        digest.update(b"%d:%b" % (len(data), data))
    return TaskEvent(id=digest.hexdigest(), task=info)


class Follower(Protocol):
    """Looks at one task again and again, blocking."""

    def read(self, patience_s: float) -> StoredTask | None:
        """Read the task."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Wait until it is time to look again."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class AsyncFollower(Protocol):
    """As `Follower`, for coroutines."""

    async def read(self, patience_s: float) -> StoredTask | None:
        """Read the task."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Wait until it is time to look again."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class TaskEvents:
    """The events of one task, for `for` and for `async for`; made by `TaskHandle.events`.

    Each loop follows anew. Leaving a loop ends it, with its connection.
    """

    def __init__(
        self,
        queue: str,
        task_id: str,
        *,
        follow: Callable[[], Follower],
        afollow: Callable[[], AsyncFollower],
        is_late: Callable[[], bool],
        after: str | None,
        timeout: Duration | None,
        patience_s: float,
    ) -> None:
        self._queue = queue
        self._task_id = task_id
        self._follow = follow
        self._afollow = afollow
        self._is_late = is_late
        self._after = after
        self._timeout_s = None if timeout is None else seconds("timeout", timeout)
        self._patience_s = patience_s

    def __iter__(self) -> Iterator[TaskEvent]:
        walk = self._walk()
        follower = self._follow()
        try:
            while True:
                event = None
                try:
                    event = walk.event(follower.read(walk.patience_s()))
                except BrokerUnavailableError as error:
                    walk.note_away(error)
                if event is not None:
                    yield event
                    if event.is_final:
                        return
                if walk.has_ended:
                    return
                follower.wait(walk.pause_s())
        finally:
            follower.close()

    async def __aiter__(self) -> AsyncIterator[TaskEvent]:
        walk = self._walk()
        follower = self._afollow()
        try:
            while True:
                event = None
                try:
                    event = walk.event(await follower.read(walk.patience_s()))
                except BrokerUnavailableError as error:
                    walk.note_away(error)
                if event is not None:
                    yield event
                    if event.is_final:
                        return
                if walk.has_ended:
                    return
                await follower.wait(walk.pause_s())
        finally:
            await follower.close()

    def _walk(self) -> "_Walk":
        return _Walk(self._queue, self._task_id, self._after, self._timeout_s, self._patience_s, self._is_late)


class _Walk:
    """One loop over the events of a task: what it has seen, and how long it may yet take."""

    def __init__(
        self,
        queue: str,
        task_id: str,
        seen: str | None,
        timeout_s: float | None,
        patience_s: float,
        is_late: Callable[[], bool],
    ) -> None:
        self._queue = queue
        self._task_id = task_id
        self._seen = seen
        self._timeout_s = timeout_s
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._patience_s = patience_s
        self._is_late = is_late
        self._state: TaskState | None = None
        self._away: BrokerError | None = None
        self._pause_s = FIRST_LOOK_S
        self.has_ended = False
        """True once the task has ended, and the follower knew it."""

    def patience_s(self) -> float:
        """Return how long a look may take. One just before the end is no reason to say that Redis is away."""
        return self._patience_s if self._ends_at is None else min(self._patience_s, max(LAST_CHANCE_S, self._left_s()))

    def _left_s(self) -> float:
        assert self._ends_at is not None
        return self._ends_at - time.monotonic()

    def event(self, stored: StoredTask | None) -> TaskEvent | None:
        """Return the event that a look has brought, None if there is nothing new."""
        self._away = None
        if stored is None and self._seen is None and self._is_late():
            return None  # it waits in an outbox
        event = event_of(stored)
        if event.id == self._seen:
            self.has_ended = event.is_final
            return None
        if event.state is not self._state:
            self._pause_s = FIRST_LOOK_S
        self._seen, self._state = event.id, event.state
        return event

    def note_away(self, error: BrokerError) -> None:
        """Note that Redis does not answer: it is asked again while there is time."""
        self._away = error

    def pause_s(self) -> float:
        """Return how long to wait for the next look.

        Raises:
            BrokerUnavailableError: The time is over, and Redis does not answer.
            ResultTimeoutError: The time is over, and the task has not ended.
        """
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, LAST_LOOK_S)
        if self._ends_at is None:
            return pause_s
        left_s = self._left_s()
        if left_s > 0:
            return min(pause_s, left_s)
        if self._away is not None:
            raise self._away
        raise ResultTimeoutError(self._queue, self._task_id, f"it has not ended within {self._timeout_s:g} s")
