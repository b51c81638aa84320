"""What a running task can know about itself and do for itself."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from taskq_core.codec import encode_result
from taskq_core.errors import NoCurrentTaskError

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_NO_STATE: Mapping[str, Any] = MappingProxyType({})


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
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _write_result: Callable[[bytes], None] | None = field(default=None, repr=False)
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
        """
        if self._write_result is not None:
            self._write_result(data)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the worker, None where there is none. For adapters, from the thread of a plain function."""
        return self._loop

    def progress(self, value: object) -> None:
        """Tell how far the task is: store a value with a JSON form as its result so far. As `write_result`.

        Raises:
            ResultValueError: The value has no JSON form.
        """
        self.write_result(encode_result(value))


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
