"""State of one run of one task, from its dequeue to its settlement."""

import asyncio
import contextvars
import logging
import math
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from taskq_core.broker.operations.runs import Settlement
from taskq_core.broker.operations.services import CancelOutcome
from taskq_core.execution.context import TaskContext, current
from taskq_core.execution.step_failures import StepFailure
from taskq_core.tasks.handlers import Handler
from taskq_core.tasks.middleware import MiddlewareStack
from taskq_core.tasks.options import DEFAULT_TIMEOUT_S
from taskq_core.tasks.task import Task
from taskq_core.telemetry import ConsumerSpan, RunOutcome, Tracing
from taskq_core.wire import QueueKeys, TaskMessage

logger = logging.getLogger("taskq.worker")


class Ending(Enum):
    """The reason why a run has to end before its function returns."""

    TIMEOUT = "context deadline exceeded"
    CANCELLED = "context canceled"
    LEASE_LOST = "asynq: task lease expired"
    SHUTDOWN = "the worker stops"


def ends_at(message: TaskMessage, started: float, *, clock_ahead_s: float) -> float:
    """Return when a run has to end: the earlier of timeout and deadline, or infinity.

    Args:
        message: Message of the task.
        started: Start of the run, by any clock. The returned time is by the same clock.
        clock_ahead_s: Redis's Unix time minus the time of that clock.
    """
    if message.timeout > 0:
        ends = started + message.timeout
    elif message.deadline > 0:
        ends = math.inf
    else:
        # Other clients may write a message without timeout and deadline. Such a run might hang unnoticed, so it gets
        # the default timeout.
        ends = started + DEFAULT_TIMEOUT_S
    return min(ends, message.deadline - clock_ahead_s) if message.deadline > 0 else ends


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """State of one run. Changed on the event loop only, except `thread` and `is_interrupted`.

    Attributes:
        queue: Key names of its queue.
        task_id: Id as listed in Redis.
        number: Number of the run in its worker: the number of the dequeue that started it.
        key: Queue and id: ids are unique within a queue.
        message: Decoded message of the task.
        name: Name of its task, the message's type.
        lease_until: Monotonic time of the lease's end, by this process's estimate.
        task: The task or handler that runs it.
        kwargs: Decoded arguments.
        context: The context object that the function can read.
        span: Consumer span, if tracing is on.
        started: Monotonic time at which the function started.
        ends_by: Monotonic time at which it is interrupted.
        ending: Why it has to end early, or None.
        coroutine: The asyncio task that runs a coroutine.
        thread: The thread that runs a plain function.
        is_interrupted: True once an exception was raised in the thread.
        settlement: End of the run for Redis. Set when the function has ended, or the run is abandoned or requeued.
        repeated: True if the settlement was sent before and Redis's reply is unknown.
        was_sent: True if the settlement was sent before, whether Redis answered or not.
        duration_s: Seconds from its start to its end; set with the settlement.
        error: Exception of the function.
        failed_step: The step whose failure has ended the function, or None.
        failure: Exception for the error handlers, or None if the run did not fail. Set with the settlement.
        is_reported: True while error handlers and observers run.
        is_abandoned: True once it was settled while its function still runs.
        is_stuck: True once the function was found to run on after an interruption.
        is_cancelling: True while the worker reads from Redis how to cancel the task.
        is_over: True once it is settled or lost, while error handlers and observers run.
        buffer: Buffer for the progress, result and position of the function. None before the first of them.
        cancel_outcome: What happens to the task if it is cancelled.
        may_expire: False if its message certainly has no start deadline.
    """

    queue: QueueKeys
    task_id: str
    message: TaskMessage
    lease_until: float
    number: int = 0
    may_expire: bool = True
    key: tuple[str, str] = field(init=False)
    name: str = field(init=False)
    task: Task[Any, Any] | Handler | None = None
    kwargs: dict[str, object] = field(default_factory=dict)
    context: TaskContext | None = None
    span: ConsumerSpan | None = None
    started: float = 0.0
    ends_by: float = 0.0
    duration_s: float = 0.0
    ending: Ending | None = None
    coroutine: "RunTask | None" = None
    thread: Any = None
    is_interrupted: bool = False
    settlement: Settlement | None = None
    outcome: RunOutcome | None = None
    repeated: bool = False
    was_sent: bool = False
    result: object = None
    error: BaseException | None = None
    failed_step: StepFailure | None = None
    failure: BaseException | None = None
    is_reported: bool = False
    is_over: bool = False
    is_stuck: bool = False
    is_abandoned: bool = False
    is_cancelling: bool = False
    buffer: Any = None
    cancel_outcome: CancelOutcome = CancelOutcome.ARCHIVE

    def __post_init__(self) -> None:
        self.key = (self.queue.name, self.task_id)
        self.name = self.message.type

    @property
    def facts(self) -> dict[str, str]:
        """Queue and id of the task, as fields of a log record."""
        return {"queue": self.queue.name, "task_id": self.task_id}

    def start_span(self, tracing: Tracing) -> ConsumerSpan:
        """Start the OpenTelemetry span of this run, and return it."""
        assert self.task is not None
        message = self.message
        self.span = tracing.start_consumer(
            self.queue.name,
            self.name,
            self.task_id,
            retried=message.retried,
            max_retry=message.retry,
            headers=message.headers,
            relation=self.task.options.relation,
            body_size=len(message.payload),
        )
        return self.span

    def decode(self) -> int:
        """Decode the task's arguments from the payload. Return the number of payload fields without a parameter."""
        task, message = self.task, self.message
        assert task is not None
        ignored = 0
        if isinstance(task, Handler):
            self.kwargs = task.arguments(message, message.payload, self.queue.name)
        else:
            self.kwargs, ignored = task.codec.decode_counting(message.payload)
        return ignored

    def bound(self, middleware: MiddlewareStack, *, in_worker: bool = True) -> Callable[[], Any]:
        """Return a function without arguments that runs the task's function inside its middleware."""
        task, context = self.task, self.context
        assert task is not None
        assert context is not None
        given = (context,) if task.takes_context else ()
        call: Callable[[], Any] = partial(task.body, *given, **self.kwargs)
        for each in reversed(middleware.of_run(self.queue.name, task.name, self.name)):
            if in_worker or not each.only_in_workers:
                call = partial(each.aaround if task.is_coroutine else each.around, context, call)
        return call

    @property
    def kind(self) -> str:
        """Name of the task or handler, for statistics.

        The type in the message is not used, because a handler may run any number of types.
        """
        return self.name if self.task is None else self.task.name


class RunTask(asyncio.Task[None]):
    """The asyncio task of a coroutine. Only the worker and the coroutine's own code can cancel it.

    This protects it from code of another run that cancels all of `asyncio.all_tasks()`.
    """

    if sys.version_info < (3, 12):  # older asyncio tasks have no `get_context`

        def __init__(self, work: Coroutine[Any, Any, None], *, loop: asyncio.AbstractEventLoop) -> None:
            self._own = contextvars.copy_context()
            super().__init__(work, loop=loop, context=self._own)

        def get_context(self) -> contextvars.Context:
            """Return the `contextvars` context in which the coroutine runs."""
            return self._own

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the coroutine, unless the caller is code of another run."""
        caller, own = current.get(None), self.get_context().get(current)
        if caller is None or caller is own:
            return super().cancel(msg)
        if not self.done():
            logger.warning("task %s cannot cancel a run of another task", caller.name)
        return False

    def end(self) -> None:
        """Cancel the coroutine on behalf of the worker, from the context of any run."""
        super().cancel()
