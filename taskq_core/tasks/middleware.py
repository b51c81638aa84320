"""Wrap the runs of tasks, and look at calls before they are enqueued: the extension point for adapters and users.

A middleware counts for all of an application, for one queue or for one task. The order is always the same: those of the
application first, then those of the queue, then those of the task, each in the order of their registration. First means
outermost: it sees a call before all others, and a run begins and ends in it.

::

    enqueue:  application -> queue -> task -> arguments are bound, the message is made and sent
    run:      application( queue( task( the function ) ) )
"""

from collections.abc import Awaitable, Callable, Iterable, MutableSequence
from typing import Any, TypeVar, cast, overload

from taskq_core.errors import ConfigurationError
from taskq_core.execution.context import TaskContext
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import validate_queue_name, validate_task_type

R = TypeVar("R")
Blocking = Callable[[Callable[[Signature[Any]], Signature[Any]], Signature[Any]], Awaitable[Any]]
"""Calls a function with a call, where it may block."""


class Middleware:
    """Base that changes nothing. Override what you need.

    What `around` and `aaround` raise counts as raised by the task. They wrap handlers too, also the one for unknown
    types. Plain functions go through `around`, in the thread that runs them; coroutines through `aaround`, in their own
    asyncio task.

    What `enqueue` and `aenqueue` raise goes to the one who enqueues, and nothing is sent.

    Attributes:
        only_in_workers: True to wrap no runs that `taskq_core.testing` makes inside the code that enqueued them.
    """

    only_in_workers = False

    def enqueue(self, call: Signature[Any]) -> Signature[Any]:
        """Look at a call that is about to be enqueued from blocking code.

        Args:
            call: Task and arguments. It is never changed in place: `using`, `with_arguments` and `with_headers` return
                changed copies.

        Returns:
            The call that goes on, changed or not.
        """
        return call

    async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
        """Look at a call that is about to be enqueued from a coroutine. Does what `enqueue` does, unless overridden."""
        return self.enqueue(call)

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Run a plain function: call `call()` and return what it returns."""
        return call()

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Run a coroutine: await `call()` and return what it returns."""
        return await call()


def _sees_calls(middleware: Middleware) -> bool:
    kind = type(middleware)
    return kind.enqueue is not Middleware.enqueue or kind.aenqueue is not Middleware.aenqueue


def _wraps_runs(middleware: Middleware) -> bool:
    kind = type(middleware)
    return kind.around is not Middleware.around or kind.aaround is not Middleware.aaround


class _Scopes:
    """Middleware of one kind, by scope. Nobody changes it."""

    __slots__ = ("_by_queue", "_by_task", "_everywhere", "is_empty")

    def __init__(
        self,
        everywhere: Iterable[Middleware],
        by_queue: dict[str, list[Middleware]],
        by_task: dict[str, list[Middleware]],
        wanted: Callable[[Middleware], bool],
    ) -> None:
        self._everywhere = tuple(filter(wanted, everywhere))
        self._by_queue = {name: found for name, each in by_queue.items() if (found := tuple(filter(wanted, each)))}
        self._by_task = {name: found for name, each in by_task.items() if (found := tuple(filter(wanted, each)))}
        self.is_empty = not (self._everywhere or self._by_queue or self._by_task)

    @property
    def everywhere(self) -> tuple[Middleware, ...]:
        return self._everywhere

    def of_queue(self, name: str) -> tuple[Middleware, ...]:
        return self._by_queue.get(name, ())

    def of_task(self, name: str) -> tuple[Middleware, ...]:
        return self._by_task.get(name, ())


class MiddlewareStack(MutableSequence[Middleware]):
    """The middleware of a queue application.

    As a sequence it holds those of the whole application, outermost first, and changes like a list. `add` takes those
    of one queue or task as well. Changes count from the next call and the next run.

    Attributes:
        sees_calls: False while no middleware looks at calls, so that enqueueing need not ask.
        wraps_runs: False while no middleware wraps runs.
    """

    __slots__ = ("_by_queue", "_by_task", "_calls", "_everywhere", "_runs", "sees_calls", "wraps_runs")

    def __init__(self) -> None:
        self._everywhere: list[Middleware] = []
        self._by_queue: dict[str, list[Middleware]] = {}
        self._by_task: dict[str, list[Middleware]] = {}
        self._changed()

    def add(self, middleware: Middleware, *, queue: str | None = None, task: str | BaseTask[Any] | None = None) -> None:
        """Add middleware, as the innermost of its scope. See `TaskQ.use`."""
        _check(middleware)
        if queue is not None and task is not None:
            raise ConfigurationError("middleware is of one queue or of one task; give queue= or task=, not both")
        if queue is not None:
            self._by_queue.setdefault(validate_queue_name(queue), []).append(middleware)
        elif task is not None:
            name = task.name if isinstance(task, BaseTask) else validate_task_type(task)
            self._by_task.setdefault(name, []).append(middleware)
        else:
            self._everywhere.append(middleware)
        self._changed()

    def _changed(self) -> None:
        scopes = (self._everywhere, self._by_queue, self._by_task)
        self._calls = _Scopes(*scopes, wanted=_sees_calls)
        self._runs = _Scopes(*scopes, wanted=_wraps_runs)
        self.sees_calls = not self._calls.is_empty
        self.wraps_runs = not self._runs.is_empty

    # --- as a sequence ------------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int) -> Middleware: ...
    @overload
    def __getitem__(self, index: slice) -> list[Middleware]: ...
    def __getitem__(self, index: int | slice) -> Middleware | list[Middleware]:
        return self._everywhere[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        values = list(value) if isinstance(index, slice) else [value]
        for each in values:
            _check(each)
        self._everywhere[index] = values if isinstance(index, slice) else value
        self._changed()

    def __delitem__(self, index: int | slice) -> None:
        del self._everywhere[index]
        self._changed()

    def __len__(self) -> int:
        return len(self._everywhere)

    def insert(self, index: int, value: Middleware) -> None:
        """Insert middleware of the whole application; 0 makes it the outermost."""
        _check(value)
        self._everywhere.insert(index, value)
        self._changed()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MiddlewareStack):
            return self is other
        return self._everywhere == other

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(self._everywhere)

    # --- for clients and workers --------------------------------------------------------------------------------------

    def outgoing(self, call: Signature[R]) -> Signature[R]:
        """Show a call to all middleware that looks at calls, and return what they made of it.

        The queue is that of the call as the application's middleware leaves it.
        """
        scopes = self._calls
        for middleware in scopes.everywhere:
            call = _checked(middleware, middleware.enqueue(call))
        for middleware in scopes.of_queue(call.task.options.queue):
            call = _checked(middleware, middleware.enqueue(call))
        for middleware in scopes.of_task(call.task.name):
            call = _checked(middleware, middleware.enqueue(call))
        return call

    async def aoutgoing(self, call: Signature[R], *, blocking: Blocking | None = None) -> Signature[R]:
        """Show a call to all middleware, from a coroutine. As `outgoing`.

        Args:
            call: Task and arguments.
            blocking: Runs the `enqueue` of middleware without an `aenqueue` of its own, as it may block. None: it runs
                here; whoever enqueues from a coroutine has chosen so.
        """
        scopes = self._calls
        for middleware in scopes.everywhere:
            call = await _asked(middleware, call, blocking)
        for middleware in scopes.of_queue(call.task.options.queue):
            call = await _asked(middleware, call, blocking)
        for middleware in scopes.of_task(call.task.name):
            call = await _asked(middleware, call, blocking)
        return call

    def of_run(self, queue: str, handler: str, name: str) -> tuple[Middleware, ...]:
        """Return what wraps a run, outermost first.

        Args:
            queue: Queue of the task.
            handler: Name of the registered task, or pattern of the handler, that runs it.
            name: Name of the task, its type. A handler's middleware stands around that of the single type.
        """
        scopes = self._runs
        of_type = scopes.of_task(name) if name != handler else ()
        return (*scopes.everywhere, *scopes.of_queue(queue), *scopes.of_task(handler), *of_type)


def _check(middleware: object) -> None:
    if not isinstance(middleware, Middleware):
        hint = "; write the brackets behind its name" if isinstance(middleware, type) else ""
        raise ConfigurationError(f"middleware must be a taskq_core.Middleware, got {middleware!r}{hint}")


async def _asked(middleware: Middleware, call: Signature[R], blocking: Blocking | None) -> Signature[R]:
    if blocking is not None and type(middleware).aenqueue is Middleware.aenqueue:
        return cast("Signature[R]", _checked(middleware, await blocking(middleware.enqueue, call)))
    return cast("Signature[R]", _checked(middleware, await middleware.aenqueue(call)))


def _checked(middleware: Middleware, call: Any) -> Any:
    if not isinstance(call, Signature):
        name = type(middleware).__qualname__
        raise TypeError(f"{name}.enqueue must return the call that goes on, got {type(call).__name__}")
    return call
