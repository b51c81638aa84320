"""Database connections of tasks.

A plain function uses the connections of the thread that runs it: before and after each task, those past `CONN_MAX_AGE`
or broken are closed, as around a request. When a timeout ended it, its connections are thrown away, because nobody
knows in the middle of which exchange they were.

Each coroutine has a thread of its own for its ORM calls (asgiref's `ThreadSensitiveContext`), so that coroutines do not
queue up for one connection. Its connections are closed at its end: a worker needs as many as its concurrency. A query
that hangs does not hold up the end of a worker, which gives its task back: the thread ends with the process.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections, reset_queries

from taskq_core.blocking import DaemonThreads
from taskq_core.context import TaskContext
from taskq_core.errors import TaskInterrupted, TaskPaused
from taskq_core.functions import is_coroutine_function
from taskq_core.middleware import Middleware

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class DatabaseMiddleware(Middleware):
    """Gives every task fresh or healthy database connections and leaves none behind that are not.

    A task that runs inside the code which enqueued it has that code's connections, and they are not its to close.
    """

    only_in_workers = True

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Run a plain function on its thread's own connections."""
        try:
            try:
                reset_queries()
                close_old_connections()
                return call()
            finally:
                close_old_connections()
        except BaseException as error:
            if was_interrupted(error) and not isinstance(error, TaskPaused):  # it pauses between two exchanges
                discard_connections()
            raise

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Run a coroutine with a thread, and so with connections, of its own."""
        async with ThreadSensitiveContext() as own:
            thread = _OwnThread()
            SyncToAsync.context_to_thread_executor[own] = thread
            try:
                return await call()
            finally:
                if thread.is_used:
                    await _finish(sync_to_async(connections.close_all, thread_sensitive=True)())
                SyncToAsync.context_to_thread_executor.pop(own, None)  # asgiref would wait for its end
                thread.shutdown(wait=False)


class _OwnThread(Executor):
    """The thread of one coroutine's blocking calls, started at the first of them."""

    def __init__(self) -> None:
        self._threads: DaemonThreads | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything was called."""
        return self._threads is not None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function after those before it."""
        if self._threads is None:
            self._threads = DaemonThreads(1)
        return self._threads.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. The thread ends behind the last."""
        if self._threads is not None:
            self._threads.shutdown(wait, cancel_futures=cancel_futures)


_NO_TASK = TaskContext(id="local", name="", queue="", max_retry=0, local=True)


def on_healthy_connections(function: F) -> F:
    """Return a function that is no task, whose database connections are looked after as those of a task are."""
    middleware = DatabaseMiddleware()
    if is_coroutine_function(function):

        @functools.wraps(function)
        async def acall(*args: Any) -> object:
            return await middleware.aaround(_NO_TASK, lambda: function(*args))

        return cast("F", acall)

    @functools.wraps(function)
    def call(*args: Any) -> object:
        return middleware.around(_NO_TASK, lambda: function(*args))

    return cast("F", call)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether a function was made to end, also if it turned the interruption into another exception."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, TaskInterrupted) or not isinstance(error, Exception):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def discard_connections() -> None:
    """Drop this thread's connections without another word to the database; the next use opens new ones."""
    for connection in connections.all(initialized_only=True):
        with contextlib.suppress(Exception):
            connection.close()
        with contextlib.suppress(Exception):
            if connection.connection is not None:  # inside atomic, close() may only take note
                connection.connection.close()
        with contextlib.suppress(AttributeError):
            del connections[connection.alias]


async def _finish(closing: Awaitable[None]) -> None:
    """Wait for the end of closing, cancelled or not: whoever waits for the task may count on free connections."""
    task = asyncio.ensure_future(closing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
