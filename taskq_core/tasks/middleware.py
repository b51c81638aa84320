"""Middleware: wraps the runs of tasks, and may change calls before they are enqueued. For adapters and users.

Middleware belongs to an application, to a queue or to a task. The order is application, queue, task, and within each of
them the order of registration. The first middleware is the outermost: it receives a call before the others, and its
`around` contains theirs.

::

    enqueue:  application -> queue -> task -> arguments are bound, the message is encoded and sent
    run:      application( queue( task( the function ) ) )
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from taskq_core.errors import ConfigurationError
from taskq_core.execution.context import TaskContext
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import validate_queue_name, validate_task_type

R = TypeVar("R")
Blocking = Callable[[Callable[[Signature[Any]], Signature[Any]], Signature[Any]], Awaitable[Any]]
"""Runs a blocking function with a signature outside the event loop, for example in a thread."""
_KINDS = ("everywhere", "queue", "task")
_EVERYWHERE = ("everywhere", "")


class Middleware:
    """Base class of middleware. Its methods change nothing: override those that you need.

    `around` wraps plain functions, in the thread that runs them. `aaround` wraps coroutines, in their asyncio task.
    Both also wrap handlers, including the handler of unknown types. Their errors count as errors of the task.

    An error from `enqueue` or `aenqueue` is raised to the caller of the enqueue, and nothing is sent.

    Attributes:
        only_in_workers: True to skip this middleware when `taskq_core.testing` runs a task inside the call that
            enqueues it.
    """

    only_in_workers = False

    def enqueue(self, call: Signature[Any]) -> Signature[Any]:
        """Inspect or replace a call that blocking code is about to enqueue.

        Args:
            call: Task and arguments. Do not change it in place: `using`, `with_arguments` and `with_headers` return
                changed copies.

        Returns:
            The call to enqueue: `call` itself or a changed copy.
        """
        return call

    async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
        """Inspect or replace a call that a coroutine is about to enqueue. Calls `enqueue` unless overridden."""
        return self.enqueue(call)

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Wrap the run of a plain function. Call `call()` and return its result."""
        return call()

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Wrap the run of a coroutine. Await `call()` and return its result."""
        return await call()


def _sees_calls(middleware: Middleware) -> bool:
    kind = type(middleware)
    return kind.enqueue is not Middleware.enqueue or kind.aenqueue is not Middleware.aenqueue


def _wraps_runs(middleware: Middleware) -> bool:
    kind = type(middleware)
    return kind.around is not Middleware.around or kind.aaround is not Middleware.aaround


class MiddlewareStack:
    """The middleware of a queue application. New middleware applies from the next enqueue and the next run.

    Attributes:
        sees_calls: False while no middleware overrides `enqueue` or `aenqueue`.
        wraps_runs: False while no middleware overrides `around` or `aaround`.
    """

    def __init__(self) -> None:
        self._by_scope: dict[tuple[str, str], list[Middleware]] = {}
        self._changed()

    def add(
        self,
        middleware: Middleware,
        *,
        queue: str | None = None,
        task: str | BaseTask[Any] | None = None,
        outermost: bool = False,
    ) -> None:
        """Add middleware as the innermost or outermost of its scope: application, queue or task. See `TaskQ.use`."""
        _check(middleware)
        if queue is not None and task is not None:
            raise ConfigurationError("middleware belongs to a queue or to a task; give queue= or task=, not both")
        scope = _EVERYWHERE
        if queue is not None:
            scope = ("queue", validate_queue_name(queue))
        elif task is not None:
            scope = ("task", task.name if isinstance(task, BaseTask) else validate_task_type(task))
        known = self._by_scope.setdefault(scope, [])
        known.insert(0 if outermost else len(known), middleware)
        self._changed()

    def _changed(self) -> None:
        self._for_calls, self._for_runs = self._only(_sees_calls), self._only(_wraps_runs)
        self.sees_calls, self.wraps_runs = bool(self._for_calls), bool(self._for_runs)

    def _only(self, is_included: Callable[[Middleware], bool]) -> dict[tuple[str, str], tuple[Middleware, ...]]:
        return {scope: found for scope, each in self._by_scope.items() if (found := tuple(filter(is_included, each)))}

    # --- for clients and workers --------------------------------------------------------------------------------------

    def outgoing(self, call: Signature[R]) -> Signature[R]:
        """Pass a call through the `enqueue` of all middleware and return the call to enqueue.

        Middleware of the application runs first and may change the queue of the call. Then the middleware of the new
        queue runs.
        """
        for kind in _KINDS:
            for middleware in self._for_calls.get(_scope(kind, call), ()):
                call = _checked(middleware, middleware.enqueue(call))
        return call

    async def aoutgoing(self, call: Signature[R], *, blocking: Blocking | None = None) -> Signature[R]:
        """Pass a call through the `aenqueue` of all middleware. Like `outgoing`, for coroutines.

        Args:
            call: Task and arguments.
            blocking: Runs the `enqueue` of middleware that does not override `aenqueue`, because it may block. None:
                call it on the event loop.
        """
        for kind in _KINDS:
            for middleware in self._for_calls.get(_scope(kind, call), ()):
                if blocking is not None and type(middleware).aenqueue is Middleware.aenqueue:
                    call = _checked(middleware, await blocking(middleware.enqueue, call))
                else:
                    call = _checked(middleware, await middleware.aenqueue(call))
        return call

    def of_run(self, queue: str, handler: str, name: str) -> tuple[Middleware, ...]:
        """Return the middleware that wraps a run, outermost first.

        Args:
            queue: Queue of the task.
            handler: Name of the registered task, or pattern of the handler, that runs the task.
            name: Name of the task, its type. If a handler runs the task, middleware of the handler's pattern is outside
                of middleware of the type.
        """
        scopes = [_EVERYWHERE, ("queue", queue), ("task", handler)]
        if name != handler:
            scopes.append(("task", name))
        return tuple(each for scope in scopes for each in self._for_runs.get(scope, ()))


def _scope(kind: str, call: Signature[Any]) -> tuple[str, str]:
    if kind == "queue":
        return kind, call.task.options.queue
    return kind, call.task.name if kind == "task" else ""


def _check(middleware: object) -> None:
    if not isinstance(middleware, Middleware):
        hint = "; pass an instance, with () after the class name" if isinstance(middleware, type) else ""
        raise ConfigurationError(f"middleware must be a taskq_core.Middleware, got {middleware!r}{hint}")


def _checked(middleware: Middleware, call: Any) -> Any:
    if not isinstance(call, Signature):
        name = type(middleware).__qualname__
        raise TypeError(f"{name}.enqueue must return the call to enqueue, got {type(call).__name__}")
    return call
