"""Get the values of dependencies, call the function, and clean up in reverse order.

An exception of the function is raised in the generators at their `yield`, and they may raise another one. If a
generator swallows it, the run has still failed.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from anyio import CapacityLimiter, to_thread

from taskq_core import TaskContext
from taskq_fastapi.needs import Kind, Need, Plan

T = TypeVar("T")

NAP_S = 0.05
"""Longest wait of a thread for the event loop in which it does not hear that it is to end, in seconds."""
_SWALLOWED = "a dependency caught this behind its yield and did not raise it again; the run has failed all the same"


class Dependencies(Protocol):
    """Where dependencies are found."""

    def find(self, call: Callable[..., Any]) -> tuple[Callable[..., Any], Plan]:
        """Return a dependency, or what takes its place, and how to call it."""
        ...


class Resolver:
    """Gets the values of the dependencies of one run.

    Attributes:
        plan: The needed dependencies.
        context: The run.
        is_inline: Whether plain dependencies run in this thread, and not in other threads.
    """

    def __init__(self, dependencies: Dependencies, plan: Plan, context: TaskContext) -> None:
        self.plan = plan
        self.context = context
        self.is_inline = False
        self._dependencies = dependencies
        self._cache: dict[Callable[..., Any], Any] = {}

    async def values(self, plan: Plan, stack: AsyncExitStack) -> dict[str, Any]:
        """Return the values for a plan. The stack receives the cleanups."""
        values = {need.name: await self._value(need, stack) for need in plan.needs}
        if plan.context is not None:
            values[plan.context] = self.context
        return values

    async def _value(self, need: Need, stack: AsyncExitStack) -> Any:
        call, plan = self._dependencies.find(need.call)
        if need.use_cache and call in self._cache:
            return self._cache[call]
        given = await self.values(plan, stack)
        value: Any
        if plan.kind is Kind.COROUTINE:
            value = await call(**given)
        elif plan.kind is Kind.ASYNC_GENERATOR:
            value = await stack.enter_async_context(asynccontextmanager(call)(**given))
        elif plan.kind is Kind.GENERATOR:
            manager = contextmanager(call)(**given)
            inline = self.is_inline
            value = stack.enter_context(manager) if inline else await stack.enter_async_context(_InThread(manager))
        else:
            value = call(**given) if self.is_inline else await _threaded(partial(call, **given))
        return self._cache.setdefault(call, value) if need.use_cache else value


def in_thread(resolver: Resolver, call: Callable[..., Any]) -> object:
    """Call a plain function with plain dependencies, all in this thread."""
    resolver.is_inline = True

    async def body(values: dict[str, Any]) -> object:
        return call(**values)

    try:
        on_loop(resolver, body).send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("without asynchronous dependencies nothing waits, so the first step is the last one")


async def on_loop(resolver: Resolver, call: Callable[[dict[str, Any]], Awaitable[object]]) -> object:
    """Call a coroutine function with its dependencies, on this event loop."""
    error: BaseException | None = None
    async with AsyncExitStack() as stack:
        try:
            return await call(await resolver.values(resolver.plan, stack))
        except BaseException as raised:
            error = raised
            raise
    raise _noted(error)


def hosted(resolver: Resolver, call: Callable[..., Any]) -> object:
    """Call a plain function in this thread, with dependencies on an event loop: the worker's, or else one for them."""
    loop = resolver.context.loop
    with contextlib.nullcontext(loop) if loop is not None and _is_elsewhere(loop) else _loop_in_thread() as host:
        return _Hosted(resolver, host).call(call)


def _is_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.is_running() and asyncio._get_running_loop() is not loop


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()

    def live() -> None:
        try:
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    thread = threading.Thread(target=live, name="taskq dependencies", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class _Hosted:
    """Dependencies that live in one asyncio task while a function runs in another thread."""

    def __init__(self, resolver: Resolver, loop: asyncio.AbstractEventLoop) -> None:
        self._resolver = resolver
        self._loop = loop
        self._opened: Future[dict[str, Any]] = Future()
        self._closed: Future[BaseException | None] = Future()
        self._ended = asyncio.Event()
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    def call(self, call: Callable[..., Any]) -> object:
        """Call the function, in this thread."""
        result: object = None
        try:
            self._loop.call_soon_threadsafe(self._start)
            result = call(**self._waited_for(self._opened))
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._loop.call_soon_threadsafe(self._end)
            failure = self._waited_for(self._closed)
            is_ours = failure is self._error or (self._error and isinstance(failure, asyncio.CancelledError))
            if failure is not None and not is_ours:
                raise failure
        return result

    def _waited_for(self, future: "Future[T]") -> T:
        """Return the result of a future. Short waits let the thread be stopped in between."""
        while True:
            try:
                return future.result(timeout=NAP_S)
            except TimeoutError:
                if future.done():
                    return future.result()
                if self._loop.is_closed():
                    raise RuntimeError("the worker's event loop has ended") from None

    def _start(self) -> None:
        self._task = self._loop.create_task(self._live(), name="taskq dependencies")

    def _end(self) -> None:
        self._ended.set()
        if not self._opened.done() and self._task is not None:
            self._task.cancel()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _live(self) -> None:
        failure: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                values = await self._resolver.values(self._resolver.plan, stack)
                self._opened.set_result(values)
                await self._ended.wait()
                self._raise_error()
            if self._error is not None:
                _noted(self._error)
        except BaseException as error:  # for the thread: nothing of it may end the event loop
            failure = error
            if not self._opened.done():
                self._opened.set_exception(error)
        finally:
            self._closed.set_result(failure)


def _noted(error: BaseException | None) -> BaseException:
    assert error is not None
    error.add_note(_SWALLOWED)
    return error


class _InThread:
    """A plain context manager, entered and left in threads.

    Leaving never waits for the threads that entering takes: these may all wait for what is given back here.
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
        except BaseException as error:  # handed over as a value: raised there, SystemExit would end the event loop
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
