"""Get the values of dependencies, call the function of a task, and clean up in reverse order.

An exception of the function is raised in the generators at their `yield`, and they may raise another one. If a
generator swallows it, the run has still failed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from anyio import CapacityLimiter, to_thread

from taskq_core import TaskContext
from taskq_fastapi.needs import Kind, Need, Plan

T = TypeVar("T")

_SWALLOWED = "a dependency caught this behind its yield and did not raise it again; the run has failed all the same"


class Dependencies(Protocol):
    """Finds dependencies and their overrides."""

    def find(self, call: Callable[..., Any]) -> tuple[Callable[..., Any], Plan]:
        """Return a dependency or its override, and how to call it."""
        ...


class Resolver:
    """Gets the values of the dependencies of one run.

    Args:
        dependencies: Finds dependencies.
        plan: The dependencies of the task that its caller did not pass.
        context: The run.
    """

    def __init__(self, dependencies: Dependencies, plan: Plan, context: TaskContext) -> None:
        self._dependencies = dependencies
        self._plan = plan
        self._context = context
        self._cache: dict[Callable[..., Any], Any] = {}

    def call(self, function: Callable[..., Any]) -> object:
        """Call a plain function with its dependencies, all in this thread."""
        error: BaseException | None = None
        with ExitStack() as stack:
            try:
                return function(**self._values(self._plan, stack))
            except BaseException as raised:
                error = raised
                raise
        raise _noted(error)

    async def acall(self, function: Callable[..., Awaitable[object]]) -> object:
        """Call a coroutine function with its dependencies, on this event loop. Plain dependencies run in threads."""
        error: BaseException | None = None
        async with AsyncExitStack() as stack:
            try:
                return await function(**await self._avalues(self._plan, stack))
            except BaseException as raised:
                error = raised
                raise
        raise _noted(error)

    def _values(self, plan: Plan, stack: ExitStack) -> dict[str, Any]:
        """Return the values for a plan. The stack receives the cleanups."""
        return {need.name: self._value(need, stack) for need in plan.needs} | self._context_of(plan)

    def _value(self, need: Need, stack: ExitStack) -> Any:
        call, plan = self._dependencies.find(need.call)
        if need.use_cache and call in self._cache:
            return self._cache[call]
        given = self._values(plan, stack)
        is_generator = plan.kind is Kind.GENERATOR
        value = stack.enter_context(contextmanager(call)(**given)) if is_generator else call(**given)
        return self._cache.setdefault(call, value) if need.use_cache else value

    async def _avalues(self, plan: Plan, stack: AsyncExitStack) -> dict[str, Any]:
        return {need.name: await self._avalue(need, stack) for need in plan.needs} | self._context_of(plan)

    async def _avalue(self, need: Need, stack: AsyncExitStack) -> Any:
        call, plan = self._dependencies.find(need.call)
        if need.use_cache and call in self._cache:
            return self._cache[call]
        given = await self._avalues(plan, stack)
        value: Any
        match plan.kind:
            case Kind.COROUTINE:
                value = await call(**given)
            case Kind.ASYNC_GENERATOR:
                value = await stack.enter_async_context(asynccontextmanager(call)(**given))
            case Kind.GENERATOR:
                value = await stack.enter_async_context(_InThread(contextmanager(call)(**given)))
            case Kind.CALL:
                value = await _threaded(partial(call, **given))
        return self._cache.setdefault(call, value) if need.use_cache else value

    def _context_of(self, plan: Plan) -> dict[str, Any]:
        return {} if plan.context is None else {plan.context: self._context}


def _noted(error: BaseException | None) -> BaseException:
    assert error is not None
    error.add_note(_SWALLOWED)
    return error


class _InThread:
    """A plain context manager that is entered and left in threads.

    Leaving does not wait for a free thread of the pool: all of them may wait for what this context manager releases.
    """

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self._manager = manager
        self._has_entered = False

    def _enter(self) -> Any:
        value = self._manager.__enter__()
        self._has_entered = True
        return value

    async def __aenter__(self) -> Any:
        try:
            return await _threaded(self._enter)
        except asyncio.CancelledError as cancelled:
            if self._has_entered:
                await self.__aexit__(type(cancelled), cancelled, None)
            raise

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await _threaded(partial(self._manager.__exit__, *exc), limiter=CapacityLimiter(1))


async def _threaded(call: Callable[[], T], *, limiter: CapacityLimiter | None = None) -> T:
    """Call a plain function in a thread. Wait for its end even if cancelled, because a thread cannot be stopped."""

    def guarded() -> tuple[list[T], BaseException | None]:
        try:
            return [call()], None
        except BaseException as error:  # returned as a value: if raised here, SystemExit would end the event loop
            return [], error

    working = asyncio.ensure_future(to_thread.run_sync(guarded, limiter=limiter))
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            await asyncio.wait((working,))
            break
        except asyncio.CancelledError as error:
            cancelled = error
    value, failure = working.result()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
    return value[0]
