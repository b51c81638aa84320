"""The context of a running task: its data, its progress, and iteration that another run can continue."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar, Unpack, overload

from taskq_core.codec.oversized import within_limit
from taskq_core.codec.progress import encode_progress
from taskq_core.errors import NoCurrentTaskError
from taskq_core.execution.iteration import Iteration, LoopOptions, Loops, ProgressBuffer
from taskq_core.execution.sources import source_of
from taskq_core.execution.step_failures import StepPolicy, StepPolicyDict
from taskq_core.execution.step_record import Steps
from taskq_core.execution.steps import StepContext, StepsWithPolicy

T = TypeVar("T")
FromCursor = Callable[[Any], Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T]]]
"""A function that takes a cursor, None at first, and returns the items after it."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_NO_STATE: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True, weakref_slot=True, kw_only=True, eq=False)
class TaskContext(StepContext):
    """Data and methods of the running task.

    Annotate the first parameter of a task with `TaskContext` to receive it, or call `current_task()` anywhere in the
    task's code.

    Attributes:
        id: Id of the task.
        name: Name of the task (its type on the wire).
        queue: Name of the queue that the worker took the task from.
        retried: Number of retries so far. Snoozes, uncounted failures and failures of steps are not included.
        max_retry: Maximum number of retries.
        deadline: Time at which the worker cancels the run, in UTC with time zone. None if no worker runs the task.
        headers: Headers that were stored with the task, as text.
        local: True when the function was called directly, not by a worker.
        worker: Token of the worker that runs the task, the first 16 digits of the worker's id. "" when called directly.
        outcome: How the run ended, for error handlers: "retried", "snoozed" (retried without using an attempt),
            "archived", or "lost" (the worker lost the lease). None during the run.
        state: Values that the worker's lifespans yielded, by name; see `TaskQ.worker_lifespan`. Empty outside a worker.
    """

    id: str
    name: str
    queue: str
    retried: int = 0
    max_retry: int = 0
    deadline: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    local: bool = False
    worker: str = ""
    outcome: str | None = None
    state: Mapping[str, Any] = field(default_factory=lambda: _NO_STATE, repr=False)
    grown: int = field(default=0, repr=False)
    """Number of members that this run has added to its workflow group."""
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _open_buffer: Callable[[], ProgressBuffer] | None = field(default=None, repr=False)
    _loops: Loops | None = field(default=None, repr=False)
    _fill: "Callable[[TaskContext], None] | None" = field(default=None, repr=False)

    @classmethod
    def filled_by(cls, fill: "Callable[[TaskContext], None]", *, has_headers: bool = True) -> "TaskContext":
        """Return a context whose attributes are empty until one is read.

        Then `fill` sets them all. Most tasks read none.

        If `has_headers` is False, reading `headers` does not call `fill`, because middleware reads the headers of each
        task.
        """
        context = cls.__new__(cls)
        context._fill = fill
        if not has_headers:
            context.headers = _NO_HEADERS
        return context

    def __getattr__(self, name: str) -> Any:
        # Python calls `__getattr__` only for attributes that are not set yet.
        fill = None if name == "_fill" else self._fill
        if fill is None:
            raise AttributeError(name)
        fill(self)
        self._fill = None  # cleared last: another thread may need it until all attributes are set
        return object.__getattribute__(self, name)

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1: one more than `retried`."""
        return self.retried + 1

    def write_result(self, data: bytes) -> None:
        """Store bytes as the task's result while it runs. The value that the function returns replaces them.

        The worker writes them in the background. If the function was called directly, this method does nothing.

        Bytes over the limit `max_result_bytes` are not stored, but an earlier result is deleted. Reading the result
        then raises `ResultTooLargeError`. The run continues.

        Raises:
            TypeError: `data` is not bytes.
        """
        if self._open_buffer is None:
            return
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"write_result takes bytes, got {type(data).__name__}")
        buffer = self._open_buffer()
        buffer.write_result(within_limit(data, buffer.max_result_bytes))

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the worker, None outside a worker. For adapters, from the thread of a plain function."""
        return self._loop

    # --- progress -----------------------------------------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report the progress of the task. Never waits, and never fails the task if Redis does not answer.

        The progress is stored at most once a second, and the last value always. After the first call, `iterate` reports
        no progress in this run.

        Args:
            done: Completed amount, in any unit. At least 0.
            total: Total amount in the same unit, None if unknown.
            message: Current activity, cut to 500 characters. All users who may view the task can read it.

        Raises:
            ProgressError: A value is not a number, is negative or infinite, or the message is not text.
        """
        data = encode_progress(done, total, message)
        if self._open_buffer is not None:
            self._open_buffer().store_progress(data)

    # --- continuation in another run ----------------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """True once the worker stops. `checkpoint` and `iterate` then end the run at the next possible position."""
        return self._open_buffer is not None and self._open_buffer().is_stopping

    @overload
    def iterate(
        self, items: FromCursor[T], *, cursor: Callable[[T], object], **options: Unpack[LoopOptions]
    ) -> Iteration[T]: ...
    @overload
    def iterate(
        self, items: FromCursor[T], *, cursor: Callable[[T], object], batch_size: int, **options: Unpack[LoopOptions]
    ) -> Iteration[list[T]]: ...
    @overload
    def iterate(self, items: Iterable[T], **options: Unpack[LoopOptions]) -> Iteration[T]: ...
    @overload
    def iterate(self, items: Iterable[T], *, batch_size: int, **options: Unpack[LoopOptions]) -> Iteration[list[T]]: ...
    def iterate(
        self,
        items: Any,
        *,
        cursor: Callable[[Any], object] | None = None,
        batch_size: int | None = None,
        **options: Unpack[LoopOptions],
    ) -> Iteration[Any]:
        """Iterate over items so that another run continues where this one stopped.

        When the worker stops, the run ends between two items, without using an attempt, and the next run begins with
        the next item. After a failure, or a stop in the middle of an item, the next run begins with that item. Code
        outside the loop runs again each time.

        Args:
            items: A sequence, an open file, `csv_rows(...)`, or in Django a queryset. With `cursor`, a function that
                takes a cursor, None at first, and returns the items after it.
            cursor: Returns the cursor of an item, a value with a JSON form.
            batch_size: Yield lists of this many items instead of single items.
            name: Name of this loop among the loops of the task. Loops without a name are identified by their order.
            every: Store the cursor after this many items, and wait until it is stored. If the worker is killed, at most
                this many items are repeated. None: it is stored in the background, about once a second.
            for_at_most: Time after which the run ends between two items. Other tasks then get the slot, and the task
                continues after them. Each run processes at least one item.
            total: Number of items, for the progress that `iterate` reports. Not needed for sequences.

        Raises:
            IterationError: Another run could not continue these items.
            StepError: A cursor has no JSON form or is too large, or the stored position is not valid.
            ConfigurationError: A number or the name is not valid.
        """
        source = source_of(items, cursor, batch_size=batch_size)
        return Iteration(self._all_loops, source, batch_size=batch_size, **options)

    def checkpoint(self, cursor: object) -> None:
        """Store a cursor for the next run, and end this run here if the worker stops.

        The cursor is stored about once a second, and when the run ends without success.

        Args:
            cursor: A value with a JSON form; `cursor()` returns it in the next run.

        Raises:
            StepError: The cursor has no JSON form, or is too large; or the caller is a coroutine that has not awaited
                `acursor()` before.
            TaskPaused: The worker stops. Do not catch it.
        """
        self._all_loops.set_checkpoint(cursor)

    def cursor(self) -> Any:
        """Return the last cursor passed to `checkpoint` in this or an earlier run, None if there is none.

        The first call waits for Redis.

        Raises:
            StepError: The stored cursor is not valid, or the caller is a coroutine, which must await `acursor()`.
        """
        loops = self._all_loops
        loops.load()
        return loops.checkpoint

    async def acursor(self) -> Any:
        """Return the last cursor passed to `checkpoint`. Like `cursor`, for coroutines."""
        loops = self._all_loops
        await loops.aload()
        return loops.checkpoint

    # --- steps --------------------------------------------------------------------------------------------------------

    def using(self, **options: Unpack[StepPolicyDict]) -> StepsWithPolicy:
        """Return an object whose methods `step` and `astep` repeat a step that fails.

        ::

            context.using(max_retry=3, retry_delay=exponential(1)).step("charge", charge, order)

        The code of the task gets an exception only after the last attempt. If this exception ends the run, the task is
        archived. A delay of at most 5 seconds is waited within the run; a longer one ends the run like `sleep`.

        Args:
            max_retry: Maximum number of retries of the step. Interruptions and deaths of workers do not count.
            retry_delay: Time until the next attempt, as in the options of tasks. None: Asynq's default delay.
            timeout: Maximum time of one attempt, only for coroutines. An attempt that takes longer fails with
                `TimeoutError`.
            no_retry_on: Exceptions after which the step is not repeated.

        Raises:
            ConfigurationError: An option is not valid.
        """
        return StepsWithPolicy(self, StepPolicy(self, **options))

    def _open_steps(self) -> Steps | None:
        return None if self._open_buffer is None else self._open_buffer().steps

    @property
    def _all_loops(self) -> Loops:
        loops = self._loops
        if loops is None:
            loops = self._loops = Loops(None if self._open_buffer is None else self._open_buffer())
        return loops


current: ContextVar[TaskContext | None] = ContextVar("taskq_current_task", default=None)
"""Context of the task that runs this code. The worker sets it."""


def current_task() -> TaskContext:
    """Return the context of the task that runs this code.

    Raises:
        NoCurrentTaskError: This code does not run inside a task.
    """
    context = current.get()
    if context is None:
        raise NoCurrentTaskError
    return context
