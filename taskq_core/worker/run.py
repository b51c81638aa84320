"""One run of one task, from its dequeue to its settlement."""

import asyncio
import contextvars
import logging
import math
import sys
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from taskq_core.broker.operations.runs import Settlement
from taskq_core.broker.operations.services import CancelWish
from taskq_core.execution.context import TaskContext, current
from taskq_core.tasks.handlers import Handler
from taskq_core.tasks.options import DEFAULT_TIMEOUT_S
from taskq_core.tasks.task import Task
from taskq_core.telemetry import ConsumerSpan, Outcome
from taskq_core.wire import QueueKeys, TaskMessage

logger = logging.getLogger("taskq.worker")


class Ending(Enum):
    """Why a run was told to end before its function did."""

    TIMEOUT = "context deadline exceeded"
    CANCELLED = "context canceled"
    LEASE_LOST = "asynq: task lease expired"
    SHUTDOWN = "the worker stops"


def ends_at(message: TaskMessage, started: float, *, clock_ahead_s: float) -> float:
    """Return when a run is told to end: after its timeout, and at its deadline; infinity for never.

    Args:
        message: Its message.
        started: When it began, by any clock; the answer is by the same one.
        clock_ahead_s: Seconds by which Unix time by Redis's clock is ahead of that clock.
    """
    if message.timeout > 0:
        ends = started + message.timeout
    elif message.deadline > 0:
        ends = math.inf
    else:
        ends = started + DEFAULT_TIMEOUT_S  # a peer wrote neither; an unlimited run would never be noticed
    return min(ends, message.deadline - clock_ahead_s) if message.deadline > 0 else ends


class Run:
    """State of one run. Changed on the event loop only, but for `thread` and `is_interrupted`.

    Attributes:
        queue: Key names of its queue.
        task_id: Id as listed in Redis.
        number: Number of the run in its worker: the call of the dequeue that started it.
        key: Queue and id: ids are unique within a queue.
        message: Its decoded message.
        name: Name of its task, the message's type.
        lease_until: Monotonic second until which the lease holds by this process's reckoning.
        task: The task or handler that runs it.
        kwargs: Decoded arguments.
        context: What the function can know about itself.
        span: Consumer span, if tracing is on.
        started: Monotonic second at which the function started.
        ends_by: Monotonic second at which it is told to end.
        ending: Why it was told to end, None while it was not.
        coroutine: The asyncio task that runs a coroutine.
        thread: The thread that runs a plain function.
        is_interrupted: True once an exception was raised into the thread.
        settlement: How it ended; set once the function has really ended.
        repeated: True if the settlement was sent before and its answer is unknown.
        was_sent: True if the settlement was sent before, whatever the answer.
        duration_s: Seconds from its start to its end; set with the settlement.
        error: What the function raised.
        failure: What error handlers are told, None if it did not fail. Set together with the settlement.
        is_reported: True while error handlers are being told.
        is_abandoned: True once it was settled while its function goes on.
        is_stuck: True once it was noticed that the function goes on though it was told to end.
        is_cancelling: True while Redis is asked what becomes of the task that is being cancelled.
        is_over: True once it is settled, or lost for good, while error handlers are being told.
        notes: What the function notes, such as its cursor; None while it does not. Kept by who runs it.
        wish: What is to become of its task if it is cancelled.
        may_expire: False if its message surely names no time by which it must start.
    """

    __slots__ = (
        "context",
        "coroutine",
        "duration_s",
        "ending",
        "ends_by",
        "error",
        "failure",
        "is_abandoned",
        "is_cancelling",
        "is_interrupted",
        "is_over",
        "is_reported",
        "is_stuck",
        "key",
        "kwargs",
        "lease_until",
        "may_expire",
        "message",
        "name",
        "notes",
        "number",
        "outcome",
        "queue",
        "repeated",
        "result",
        "settlement",
        "span",
        "started",
        "task",
        "task_id",
        "thread",
        "was_sent",
        "wish",
    )

    def __init__(
        self,
        queue: QueueKeys,
        task_id: str,
        message: TaskMessage,
        lease_until: float,
        *,
        number: int = 0,
        may_expire: bool = True,
    ) -> None:
        self.queue = queue
        self.task_id = task_id
        self.number = number
        self.key = (queue.name, task_id)
        self.message = message
        self.name: str = message.type
        self.lease_until = lease_until
        self.may_expire = may_expire
        self.task: Task[Any, Any] | Handler | None = None
        self.kwargs: dict[str, object] = {}
        self.context: TaskContext | None = None
        self.span: ConsumerSpan | None = None
        self.started = 0.0
        self.ends_by = 0.0
        self.duration_s = 0.0
        self.ending: Ending | None = None
        self.coroutine: RunTask | None = None
        self.thread: Any = None
        self.is_interrupted = False
        self.settlement: Settlement | None = None
        self.outcome: Outcome | None = None
        self.repeated = self.was_sent = False
        self.result: object = None
        self.error: BaseException | None = None
        self.failure: BaseException | None = None
        self.is_reported = False
        self.is_over = False
        self.is_stuck = self.is_abandoned = self.is_cancelling = False
        self.notes: Any = None
        self.wish = CancelWish.ARCHIVE

    @property
    def facts(self) -> dict[str, str]:
        """Queue and id, as fields of a log record."""
        return {"queue": self.queue.name, "task_id": self.task_id}

    @property
    def kind(self) -> str:
        """Name of what runs it. A handler runs any number of types, so nothing is kept by their names."""
        return self.name if self.task is None else self.task.name


class RunTask(asyncio.Task[None]):
    """The asyncio task of a coroutine. Only the worker and the coroutine's own code can cancel it.

    Code of another run may cancel all of `asyncio.all_tasks()`.
    """

    if sys.version_info < (3, 12):  # where an asyncio task does not return its context

        def __init__(self, work: Coroutine[Any, Any, None], *, loop: asyncio.AbstractEventLoop) -> None:
            self._own = contextvars.copy_context()
            super().__init__(work, loop=loop, context=self._own)

        def get_context(self) -> contextvars.Context:
            """Return the context in which the coroutine runs."""
            return self._own

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, unless code of another run asks for it."""
        caller, own = current.get(None), self.get_context().get(current)
        if caller is None or caller is own:
            return super().cancel(msg)
        if not self.done():
            logger.warning("task %s cannot cancel a run of another task", caller.name)
        return False

    def end(self) -> None:
        """Cancel it for the worker, which may do so in the context of any run."""
        super().cancel()
