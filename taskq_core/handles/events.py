"""The events of one task. Each event has the task's record after a change.

The loop over the events reads the task when a message says that the task changed. It also reads the task from time to
time, because Go workers publish no messages. States that a task passes through between two reads produce no event.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from taskq_core.broker.operations.views import StoredTask
from taskq_core.codec.progress import Progress
from taskq_core.errors import BrokerUnavailableError, ResultTimeoutError
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.handles.source import HandleSource
from taskq_core.settings import Duration, seconds
from taskq_core.wire import TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A task after a change.

    Attributes:
        id: Identifies the content of the event. `TaskHandle.events(after=)` takes it to skip events already seen.
        task: The task as it was read; None once it no longer exists.
    """

    id: str
    task: TaskInfo | None

    @property
    def state(self) -> TaskState | None:
        """State of the task; None once it no longer exists: it ended without retention, or was deleted."""
        return None if self.task is None else self.task.state

    @property
    def progress(self) -> Progress | None:
        """Progress last reported by the task; None if it reported none or no longer exists."""
        return None if self.task is None else self.task.progress

    @property
    def is_final(self) -> bool:
        """Whether the task has ended, so that no further event follows."""
        return self.task is None or self.task.is_final


def event_of(stored: StoredTask | None) -> TaskEvent:
    """Return the event for a read of the task. `stored` is None if the task does not exist.

    Raises:
        WireFormatError: The task cannot be read.
    """
    if stored is None:
        return TaskEvent(id="gone", task=None)
    info = task_info(stored)
    digest = hashlib.blake2b(digest_size=9)
    # Ignore the score of an active task, which is the end of its lease: each heartbeat changes it.
    score = None if info.state is TaskState.ACTIVE else stored.score
    for part in (info.state.value, score, stored.started_ms):
        digest.update(f"{part}\n".encode())
    for data in (stored.message, stored.result or stored.oversized, stored.progress):
        digest.update(b"%d:%b" % (len(data), data))
    return TaskEvent(id=digest.hexdigest(), task=info)


class TaskEvents:
    """The events of one task, for `for` and for `async for`. Returned by `TaskHandle.events`.

    Each loop follows the task independently. Leaving a loop closes its connection.
    """

    def __init__(
        self,
        source: HandleSource,
        queue: str,
        task_id: str,
        *,
        may_wait_in_outbox: Callable[[], bool],
        after: str | None,
        timeout: Duration | None,
    ) -> None:
        self.source = source
        self.queue = queue
        self.task_id = task_id
        self.may_wait_in_outbox = may_wait_in_outbox
        self.after = after
        if timeout is not None:
            seconds("timeout", timeout)  # refuse an invalid timeout at once
        self.timeout = timeout

    def __iter__(self) -> Iterator[TaskEvent]:
        state = _Loop(self)
        with closing(self.source.follower(self.queue, self.task_id)) as follower:
            while True:
                event = None
                try:
                    event = state.event(follower.read(state.patience.read_s()))
                except BrokerUnavailableError as error:
                    state.patience.record_unavailable(error)
                if event is not None:
                    yield event
                if state.has_ended:
                    return
                follower.wait(state.pause_s())

    async def __aiter__(self) -> AsyncIterator[TaskEvent]:
        state = _Loop(self)
        async with self.source.afollower(self.queue, self.task_id) as follower:
            while True:
                event = None
                try:
                    event = state.event(await follower.read(state.patience.read_s()))
                except BrokerUnavailableError as error:
                    state.patience.record_unavailable(error)
                if event is not None:
                    yield event
                if state.has_ended:
                    return
                await follower.wait(state.pause_s())


class _Loop:
    """The state of one `for` loop over the events of a task: the last event, and how long the loop goes on."""

    def __init__(self, events: TaskEvents) -> None:
        self._events = events
        self._last_event = events.after
        self._state: TaskState | None = None
        self.patience = events.source.patience(events.timeout)
        self.has_ended = False
        """True once the loop has read the final event of the task."""

    def event(self, stored: StoredTask | None) -> TaskEvent | None:
        """Return the event for a task as just read. Return None if the task has not changed since the last event."""
        self.patience.record_answer()
        if stored is None and self._last_event is None and self._events.may_wait_in_outbox():
            return None
        event = event_of(stored)
        self.has_ended = event.is_final
        if event.id == self._last_event:
            return None
        self.patience.record_answer(has_changed=event.state is not self._state)
        self._last_event, self._state = event.id, event.state
        return event

    def pause_s(self) -> float:
        """Return the seconds until the next read.

        Raises:
            BrokerUnavailableError: The timeout of the loop is over, and Redis does not answer.
            ResultTimeoutError: The timeout of the loop is over, and the task has not ended.
        """
        pause_s = self.patience.pause_s()
        if pause_s is None:
            raise timeout_error(self._events.queue, self._events.task_id, self.patience.timeout_s)
        return pause_s


def timeout_error(queue: str, task_id: str, timeout_s: float) -> ResultTimeoutError:
    """Return the error of a loop whose timeout is over before its task has ended."""
    return ResultTimeoutError(queue, task_id, f"the task did not end within {timeout_s:g} s")
