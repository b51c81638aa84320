"""Send signals to a task, and read the values that it emits while it runs."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskq_core.broker.operations import steps as operations
from taskq_core.broker.operations.operation import Confirmation
from taskq_core.broker.operations.steps import PAGE, EmittedValue, StreamPage
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.codec import check_step_name, decode_result, decode_signal, encode_value
from taskq_core.errors import BrokerUnavailableError, StepError, TaskNotFoundError, TaskStateError
from taskq_core.handles import subscription
from taskq_core.handles.events import timeout_error
from taskq_core.handles.patience import Patience
from taskq_core.handles.source import HandleSource
from taskq_core.settings import Duration, seconds, unknown
from taskq_core.telemetry import current_traceparent
from taskq_core.wire import QueueKeys

if TYPE_CHECKING:
    from taskq_core.handles.sent_later import SentLater

_SIGNAL_ID = re.compile(r"[^\ud800-\udfff]{1,64}")
POSITION = re.compile(r"[0-9]{1,18}-[0-9]{1,18}")
"""Matches the id of an emitted value."""


@dataclass(frozen=True, slots=True)
class StreamItem:
    """A value that a task emitted.

    If a later attempt repeats a step, ignore the items of this step that have a smaller `attempt`.

    Attributes:
        id: Position of the value in the output. `TaskHandle.stream(after=)` continues after this position.
        value: The value.
        attempt: Number of the attempt that emitted it, from 1. This number also counts interrupted runs.
        step: Name of the step that emitted it, "" outside of steps.
        gap: Number of values that were deleted between the previous item and this one. The option `max_emitted` says
            how many values are kept.
    """

    id: str
    value: Any
    attempt: int
    step: str
    gap: int = 0


def signal(
    queue: QueueKeys,
    task_id: str,
    name: str,
    value: object,
    *,
    declared: Mapping[str, Any],
    signal_id: str | None = None,
    number: int = 0,
    generation: RequestPlan[str],
    confirm: Confirmation | None = None,
) -> RequestPlan[None]:
    """Send a value to a task. See `TaskHandle.signal`, and for `number` and `generation` `Inspector.signal_task`."""
    check_step_name("name of a signal", name)
    data = encode_value(f"the value of signal {name!r}", value)
    if declared:
        if name not in declared:
            raise StepError(str(unknown("signal", name, declared)))
        decode_signal(name, data, declared[name], way_out="nothing was sent")
    if signal_id is not None and not (isinstance(signal_id, str) and _SIGNAL_ID.fullmatch(signal_id)):
        raise StepError(f"signal_id must be 1 to 64 characters of text, got {signal_id!r:.100}")
    request = operations.signal(
        queue,
        task_id,
        name,
        data,
        signal_id=signal_id,
        number=number,
        generation=(yield from generation),
        traceparent=current_traceparent(),
        confirm=confirm,
    )
    answer = yield from ask(request)
    if answer == "answered":
        raise TaskStateError(queue.name, task_id, answer, f"the task no longer waits for this value of signal {name!r}")
    if answer == "asks":
        cure = f"the task asks the question {name!r}, which a signal does not answer; use handle.answer(number, value)"
        raise TaskStateError(queue.name, task_id, answer, cure)
    check_sent(queue, task_id, answer)


def check_sent(queue: QueueKeys, task_id: str, outcome: str) -> None:
    """Raise the error for the outcome of a signal or an answer, unless it is "ok"."""
    if outcome == "missing":
        raise TaskNotFoundError(queue.name, task_id)
    if outcome == "full":
        limits = f"{operations.SIGNALS_MAX:,} signals and {operations.SIGNALS_BYTES:,} bytes"
        raise StepError(f"task {task_id!r} in queue {queue.name!r} has received the maximum of {limits}")
    if outcome == "lost":
        raise StepError(operations.LOST)
    if outcome != "ok":
        raise TaskStateError(queue.name, task_id, outcome, "the task has ended and receives no signals")


class TaskStream:
    """The values that a task emits, for `for` and for `async for`. Returned by `TaskHandle.stream`."""

    def __init__(
        self, source: HandleSource, handle: "SentLater", *, after: str, type_: Any, timeout: Duration | None
    ) -> None:
        if after and not POSITION.fullmatch(after):
            raise StepError(f"after must be the id of an item of the stream, got {after!r:.100}")
        self._source = source
        self._handle = handle
        self._after = after
        self._type = type_
        if timeout is not None:
            seconds("timeout", timeout)  # refuse an invalid timeout at once
        self._timeout = timeout

    def _item(self, each: EmittedValue) -> StreamItem:
        return StreamItem(each.id, decode_result(each.data, self._type), each.attempt, each.step, each.gap)

    def __iter__(self) -> Iterator[StreamItem]:
        position, patience = StreamPosition(self._after, self._handle), self._source.patience(self._timeout)
        with closing(self._source.follower(self._handle.queue, self._handle.id)) as follower:
            while not position.is_last:
                try:
                    page = follower.read_stream(position.after, patience.read_s())
                except BrokerUnavailableError as error:
                    patience.record_unavailable(error)
                    position.pause_s = subscription.FIRST_PAUSE_S
                else:
                    patience.record_answer(has_changed=bool(page.values))
                    position.move(page)
                    yield from map(self._item, page.values)
                if pause_s := self._pause_s(position, patience):
                    follower.wait(pause_s)

    async def __aiter__(self) -> AsyncIterator[StreamItem]:
        position, patience = StreamPosition(self._after, self._handle), self._source.patience(self._timeout)
        async with self._source.afollower(self._handle.queue, self._handle.id) as follower:
            while not position.is_last:
                try:
                    page = await follower.read_stream(position.after, patience.read_s())
                except BrokerUnavailableError as error:
                    patience.record_unavailable(error)
                    position.pause_s = subscription.FIRST_PAUSE_S
                else:
                    patience.record_answer(has_changed=bool(page.values))
                    position.move(page)
                    for each in page.values:
                        yield self._item(each)
                if pause_s := self._pause_s(position, patience):
                    await follower.wait(pause_s)

    def _pause_s(self, position: "StreamPosition", patience: Patience) -> float:
        """Return the seconds until the next read, 0 to read at once or after the last value."""
        if position.is_last:
            return 0.0
        pause_s = patience.pause_s()
        if pause_s is None:
            raise timeout_error(self._handle.queue, self._handle.id, patience.timeout_s)
        return pause_s if position.pause_s else 0.0


class StreamPosition:
    """The position of a loop that reads the values of a task, and the pause before its next read.

    Args:
        after: Id of the last value that the reader has received, "" if it has none.
        handle: The task, if it may still wait in an outbox.

    Attributes:
        after: Id of the last value that was read.
        pause_s: Seconds until the next read. 0: read at once.
        is_last: Whether the task has ended, and all its values were read.
    """

    def __init__(self, after: str, handle: "SentLater | None" = None) -> None:
        self.after = self._first = after
        self.pause_s = 0.0
        self.is_last = False
        self._handle = handle

    def move(self, page: StreamPage) -> None:
        """Continue after the values of a page, and set the pause before the next read."""
        if page.values:
            self.after, self.pause_s = page.values[-1].id, 0.0
        if len(page.values) < PAGE:
            self.pause_s = min(max(2 * self.pause_s, subscription.FIRST_PAUSE_S), subscription.LONGEST_PAUSE_S)
            is_unsent = (
                not page.state and self.after == self._first and self._handle is not None and self._handle.is_late
            )
            self.is_last = page.state in ("", "completed", "archived") and not is_unsent
