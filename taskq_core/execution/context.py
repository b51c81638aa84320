"""What a running task can know about itself and do for itself."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, overload

from taskq_core.codec.oversized import OversizedResult, within_limit
from taskq_core.errors import IterationError, NoCurrentTaskError
from taskq_core.execution.iteration import NOBODY, Iteration, Keeper, Loops
from taskq_core.execution.progress import encode_progress
from taskq_core.execution.sources import CsvRows, source_of
from taskq_core.settings import Duration

T = TypeVar("T")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_NO_STATE: Mapping[str, Any] = MappingProxyType({})


class Notes(Keeper, Protocol):
    """Takes what a running task tells and keeps. Brought by who runs it; none of it waits for Redis."""

    @property
    def max_result_bytes(self) -> int:
        """Most bytes of a result that the task may store."""
        ...

    def write_result(self, data: bytes | OversizedResult) -> None:
        """Store bytes as the result so far, soon; or why they are not stored."""
        ...

    def tell_progress(self, progress: bytes) -> None:
        """Store how far the task is, at most once in a while; the last value always."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class TaskContext:
    """The run of one task.

    A parameter annotated `TaskContext` receives it, if it is the task's first; `current_task()` returns it anywhere
    below.

    Attributes:
        id: Id of the task.
        name: Name of the task (its type on the wire).
        queue: Queue it came from.
        retried: Failures counted so far.
        max_retry: Most retries.
        deadline: When it is cancelled, aware UTC, or None.
        headers: Text that travelled with it.
        local: True when the function was called directly, not by a worker.
        worker: Token of the worker that runs it, the first 16 digits of its id; "" when called directly.
        outcome: How the run ended, for error handlers: "retried", "snoozed" (retried without using an attempt),
            "archived" or "lost". None while it runs.
        state: What the worker's lifespans yielded, by name; see `TaskQ.worker_lifespan`. Empty outside a worker.
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
    """Members it has added to its group, for workflows."""
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _open_notes: Callable[[], Notes] | None = field(default=None, repr=False)
    _loops: Loops | None = field(default=None, repr=False)
    _fill: "Callable[[TaskContext], None] | None" = field(default=None, repr=False)

    @classmethod
    def filled_by(cls, fill: "Callable[[TaskContext], None]", *, has_headers: bool = True) -> "TaskContext":
        """Return a context whose attributes `fill` sets when the first of them is read: most tasks read none.

        Middleware looks at the headers of each; where there are none, that alone sets nothing else.
        """
        context = cls.__new__(cls)
        context._fill = fill
        if not has_headers:
            context.headers = _NO_HEADERS
        return context

    def __getattr__(self, name: str) -> Any:
        # Only called while a slot is not set.
        fill = None if name == "_fill" else self._fill
        if fill is None:
            raise AttributeError(name)
        fill(self)
        self._fill = None  # afterwards: another thread that reads meanwhile fills the same values
        return object.__getattribute__(self, name)

    @property
    def attempt(self) -> int:
        """Number of this run, from 1."""
        return self.retried + 1

    def write_result(self, data: bytes) -> None:
        """Store bytes as the task's result while it runs; what it returns replaces them.

        They are written in the background. A run called directly has nowhere to store them and drops them.

        Bytes over the limit `max_result_bytes` are not stored. They replace an earlier result all the same, so that
        asking for the result raises `ResultTooLargeError`. The run goes on.

        Raises:
            TypeError: `data` is not bytes.
        """
        if self._open_notes is None:
            return
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"write_result takes bytes, got {type(data).__name__}")
        notes = self._open_notes()
        notes.write_result(within_limit(data, notes.max_result_bytes))

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the worker, None where there is none. For adapters, from the thread of a plain function."""
        return self._loop

    # --- progress -----------------------------------------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the task is. Never waits, and never fails the task when Redis is away.

        It is stored at most once a second, and the last value always. Once a run has called it, its `iterate` tells
        nothing by itself.

        Args:
            done: How much is done, in whatever unit. At least 0.
            total: How much there is to do, None if that is not known.
            message: What it does just now; cut to 500 characters. Shown to whoever may see the task.

        Raises:
            ProgressError: A number is none, is negative or infinite, or the message is no text.
        """
        data = encode_progress(done, total, message)
        if self._open_notes is not None:
            self._open_notes().tell_progress(data)

    # --- going on in another run --------------------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """True once the worker stops: `checkpoint` and `iterate` end the run at the next place where it can go on."""
        return self._open_notes is not None and self._open_notes().is_stopping

    @overload
    def iterate(
        self,
        items: Callable[[Any], Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T]]],
        *,
        cursor: Callable[[T], object],
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[T]: ...

    @overload
    def iterate(
        self,
        items: Callable[[Any], Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T]]],
        *,
        cursor: Callable[[T], object],
        batch_size: int,
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[list[T]]: ...

    @overload
    def iterate(
        self,
        items: CsvRows,
        *,
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[Any]: ...

    @overload
    def iterate(
        self,
        items: Iterable[T],
        *,
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[T]: ...

    @overload
    def iterate(
        self,
        items: Iterable[T],
        *,
        batch_size: int,
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[list[T]]: ...

    @overload
    def iterate(
        self,
        items: CsvRows,
        *,
        batch_size: int,
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[list[Any]]: ...

    def iterate(
        self,
        items: Any,
        *,
        cursor: Callable[[Any], object] | None = None,
        batch_size: int | None = None,
        name: str | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> Iteration[Any]:
        """Go through items so that another run goes on where this one stopped.

        When the worker stops, the run ends between two items, without using an attempt, and its next run begins with
        the next item. After a failure, or a stop in the middle of an item, it begins with that item. What stands
        outside the loop runs again each time.

        Args:
            items: A sequence, an open file, `csv_rows(...)`, in Django a queryset; with `cursor` a function that is
                given a cursor, None at first, and returns the items after it.
            cursor: Returns the cursor of an item, a value with a JSON form.
            batch_size: Give lists of so many items instead of single ones.
            name: Of this loop among the loops of the task; without one they are told apart by their order.
            every: Store the cursor after each so many items, and wait for it: that is how much a killed worker repeats.
                None: it is stored in the background, about once a second.
            for_at_most: Time after which the run ends between two items, gives its slot to other tasks and goes on
                behind them. It gets through at least one item.
            total: How many items there are, for the progress that is told by itself. Known of sequences.

        Raises:
            IterationError: The items cannot be gone on with, or a cursor has no JSON form or is too large.
            ConfigurationError: A number or the name is not usable.
        """
        return Iteration(
            self._all_loops,
            source_of(items, cursor, batch_size=batch_size),
            name=name,
            batch_size=batch_size,
            every=every,
            for_at_most=for_at_most,
            total=total,
        )

    def checkpoint(self, cursor: object) -> None:
        """Keep a cursor for the next run, and end this run here if the worker stops.

        It is kept in any case when the run ends other than by success, and stored about once a second until then.

        Args:
            cursor: A value with a JSON form; `cursor()` returns it in the next run.

        Raises:
            IterationError: It has no JSON form, or is too large.
            TaskPaused: The worker stops. Let it pass.
        """
        self._all_loops.set_checkpoint(cursor)

    def cursor(self) -> Any:
        """Return what `checkpoint` has kept last, in this run or an earlier one; None for nothing. Waits for Redis.

        Raises:
            IterationError: It cannot be read, or this is a coroutine, which awaits `acursor()`.
        """
        loops = self._all_loops
        if loops.keeper.is_beside_loop:
            raise IterationError("a coroutine asks with `await context.acursor()`")
        loops.load()
        return loops.checkpoint

    async def acursor(self) -> Any:
        """As `cursor`, for coroutines."""
        loops = self._all_loops
        await loops.aload()
        return loops.checkpoint

    @property
    def _all_loops(self) -> Loops:
        loops = self._loops
        if loops is None:
            loops = self._loops = Loops(NOBODY if self._open_notes is None else self._open_notes())
        return loops


current: ContextVar[TaskContext | None] = ContextVar("taskq_current_task", default=None)
"""The run this code belongs to. Set by the worker."""


def current_task() -> TaskContext:
    """Return the run this code belongs to.

    Raises:
        NoCurrentTaskError: The code does not run inside a task.
    """
    context = current.get()
    if context is None:
        raise NoCurrentTaskError
    return context
