"""Send signals to a task, and read the values that it emits while it runs."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskq_core.broker.operations import steps as operations
from taskq_core.broker.operations.steps import EmittedValue
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.codec import check_step_name, decode_result, decode_signal, encode_value
from taskq_core.errors import StepError, TaskNotFoundError, TaskStateError
from taskq_core.handles import subscription
from taskq_core.handles.source import HandleSource
from taskq_core.settings import unknown
from taskq_core.wire import QueueKeys

if TYPE_CHECKING:
    from taskq_core.handles.handle import SentLater

PAGE = 200
"""Maximum number of emitted values that one request reads."""
ENDED = ("", "completed", "archived")
"""States of a task that emits nothing more. "": it does not exist."""


@dataclass(frozen=True, slots=True)
class StreamItem:
    """A value that a task emitted.

    An item replaces all items of the same step with a smaller attempt, because a later attempt repeats the step.

    Attributes:
        id: Its position. `TaskHandle.stream(after=)` continues after it.
        value: The value.
        attempt: Number of the attempt that emitted it, from 1. A run that was interrupted counts here as an attempt.
        step: Name of the step that emitted it, "" outside of steps.
    """

    id: str
    value: Any
    attempt: int
    step: str


def signal(
    queue: QueueKeys, task_id: str, name: str, value: object, *, declared: Mapping[str, Any], number: int = 0
) -> RequestPlan[None]:
    """Send a value to a task. See `TaskHandle.signal`, and for `number` `Inspector.signal_task`."""
    check_step_name("name of a signal", name)
    data = encode_value(f"the value of signal {name!r}", value)
    if declared:
        if name not in declared:
            raise StepError(str(unknown("signal", name, declared)))
        decode_signal(name, data, declared[name], way_out="nothing was sent")
    answer = yield from ask(operations.signal(queue, task_id, name, data, number=number))
    if answer == "missing":
        raise TaskNotFoundError(queue.name, task_id)
    if answer == "full":
        limits = f"{operations.SIGNALS_MAX:,} signals and {operations.SIGNALS_BYTES:,} bytes"
        raise StepError(f"task {task_id!r} in queue {queue.name!r} has received the maximum of {limits}")
    if answer == "lost":
        raise StepError(operations.LOST)
    if answer == "moving":
        raise TaskStateError(queue.name, task_id, answer, "the task is being moved to another queue; try again")
    if answer == "answered":
        raise TaskStateError(queue.name, task_id, answer, f"the task no longer waits for this value of signal {name!r}")
    if answer != "ok":
        raise TaskStateError(queue.name, task_id, answer, "the task has ended and receives no signals")


class TaskStream:
    """The values that a task emits, for `for` and for `async for`. Returned by `TaskHandle.stream`."""

    def __init__(self, source: HandleSource, handle: "SentLater", *, after: str, type_: Any) -> None:
        self._source = source
        self._handle = handle
        self._after = after
        self._type = type_

    def _item(self, each: EmittedValue) -> StreamItem:
        return StreamItem(each.id, decode_result(each.data, self._type), each.attempt, each.step)

    def _has_ended(self, state: str, after: str) -> bool:
        return state in ENDED and not (self._handle.is_late and not state and after == self._after)

    def __iter__(self) -> Iterator[StreamItem]:
        after, pause_s = self._after, subscription.FIRST_LOOK_S
        with closing(self._source.follower(self._handle.queue, self._handle.id)) as follower:
            while True:
                page = follower.read_stream(after, PAGE, self._source.timeout_s)
                for each in page.values:
                    yield self._item(each)
                    after, pause_s = each.id, subscription.FIRST_LOOK_S
                if len(page.values) < PAGE:
                    if self._has_ended(page.state, after):
                        return
                    follower.wait(pause_s)
                    pause_s = min(2 * pause_s, subscription.LAST_LOOK_S)

    async def __aiter__(self) -> AsyncIterator[StreamItem]:
        after, pause_s = self._after, subscription.FIRST_LOOK_S
        async with self._source.afollower(self._handle.queue, self._handle.id) as follower:
            while True:
                page = await follower.read_stream(after, PAGE)
                for each in page.values:
                    yield self._item(each)
                    after, pause_s = each.id, subscription.FIRST_LOOK_S
                if len(page.values) < PAGE:
                    if self._has_ended(page.state, after):
                        return
                    await follower.wait(pause_s)
                    pause_s = min(2 * pause_s, subscription.LAST_LOOK_S)
