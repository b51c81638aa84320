"""Give each task working database connections, and close them when they are broken, expired or idle.

A plain function uses the connections of the thread that runs it. Before and after each task, as around a
request, Django closes connections past `CONN_MAX_AGE` and connections that broke. After a timeout, all connections of
the thread are closed, because a query may be half done.

Each coroutine has a separate thread for its ORM calls (asgiref's `ThreadSensitiveContext`), so that coroutines do not
wait for each other's queries. A thread whose connections `CONN_MAX_AGE` keeps open serves later coroutines. Any other
thread ends with its coroutine. A worker needs at most as many connections as its concurrency.

When a worker ends it closes what tasks have left open. A query that hangs does not delay that: its thread ends with the
process.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import Error, close_old_connections, connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper

from taskq_core.errors import TaskInterrupted, TaskPaused
from taskq_core.execution.context import TaskContext
from taskq_core.service.blocking import DaemonThreads
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.tasks.middleware import Middleware

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class DatabaseMiddleware(Middleware):
    """Closes broken and expired database connections before and after each task in a worker.

    A task that runs inside the code which enqueued it uses that code's connections and must not close them.
    """

    only_in_workers = True

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Run a plain task function, which uses the database connections of its thread."""
        try:
            try:
                _enter_thread()
                return call()
            finally:
                _leave_thread()
        except BaseException as error:
            if was_interrupted(error) and not isinstance(error, TaskPaused):  # pausing a task never interrupts a query
                discard_connections()
            raise

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Run a coroutine. Its blocking calls run in a separate thread, and so with separate connections."""
        async with ThreadSensitiveContext() as own:
            thread = _OwnThread()
            SyncToAsync.context_to_thread_executor[own] = thread
            try:
                return await call()
            except BaseException as error:
                thread.is_kept = isinstance(error, TaskPaused) or not was_interrupted(error)
                raise
            finally:
                if thread.is_used:
                    await _finish(sync_to_async(thread.leave, thread_sensitive=True)())
                SyncToAsync.context_to_thread_executor.pop(own, None)  # so that asgiref does not wait for the thread
                thread.shutdown(wait=False)


_lock = threading.Lock()
_idle_connections: set[BaseDatabaseWrapper] = set()
"""Open connections of threads that run no task."""
_idle_threads: list[DaemonThreads] = []
"""Threads of coroutines that have ended, with open connections."""


def _enter_thread() -> None:
    """Prepare the connections of this thread for a task."""
    with _lock:
        _idle_connections.difference_update(connections.all(initialized_only=True))
    reset_queries()
    close_old_connections()


def _leave_thread() -> bool:
    """Close connections that must not stay open. Return whether a connection of this thread stays open."""
    close_old_connections()
    left = [each for each in connections.all(initialized_only=True) if each.connection is not None]
    with _lock:
        _idle_connections.update(left)
    return bool(left)


def close_idle_connections() -> None:
    """Close the connections that tasks have left open in threads of workers, except those in use."""
    with _lock:  # a task that starts at the same time waits here, and then opens its connection again
        for connection in _idle_connections:
            connection.inc_thread_sharing()
            with contextlib.suppress(Error):  # the connection was already broken
                connection.close()
            connection.dec_thread_sharing()
        _idle_connections.clear()
        while _idle_threads:
            _idle_threads.pop().shutdown()


class _OwnThread(Executor):
    """Executor with one thread for the blocking calls of one coroutine. The first call takes an idle or a new thread.

    Attributes:
        is_kept: Whether its connections may serve another coroutine.
    """

    def __init__(self) -> None:
        self._threads: DaemonThreads | None = None
        self.is_kept = True

    @property
    def is_used(self) -> bool:
        """Whether the coroutine has made a blocking call."""
        return self._threads is not None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in the thread, after all functions that were submitted before it."""
        if self._threads is None:
            with _lock:
                self._threads = _idle_threads.pop() if _idle_threads else DaemonThreads(1)
            self._threads.submit(_enter_thread)
        return self._threads.submit(fn, *args, **kwargs)

    def leave(self) -> None:
        """Close connections that must not stay open. Must be the last call in the thread for this coroutine."""
        is_kept, self.is_kept = self.is_kept, False
        if not is_kept or any(each.in_atomic_block for each in connections.all(initialized_only=True)):
            connections.close_all()
        self.is_kept = _leave_thread()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Keep the thread for another coroutine, or end it."""
        threads, self._threads = self._threads, None
        if threads is None:
            return
        if self.is_kept:
            with _lock:
                _idle_threads.append(threads)
        else:
            threads.shutdown(wait, cancel_futures=cancel_futures)


_NO_TASK = TaskContext(id="local", name="", queue="", max_retry=0, local=True)


def on_healthy_connections(function: F) -> F:
    """Wrap a function that is not a task, so that its connections are checked and closed as around a task."""
    middleware = DatabaseMiddleware()
    if is_coroutine_function(function):

        @functools.wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> object:
            return await middleware.aaround(_NO_TASK, lambda: function(*args, **kwargs))

        return cast("F", acall)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> object:
        return middleware.around(_NO_TASK, lambda: function(*args, **kwargs))

    return cast("F", call)


def was_interrupted(error: BaseException | None) -> bool:
    """Return whether a function was interrupted, even if the interruption made it raise another exception."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, TaskInterrupted) or not isinstance(error, Exception):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def discard_connections() -> None:
    """Drop this thread's connections without sending anything to the database. The next use opens new ones."""
    with _lock:
        _idle_connections.difference_update(connections.all(initialized_only=True))
    for connection in connections.all(initialized_only=True):
        with contextlib.suppress(Exception):
            connection.close()
        with contextlib.suppress(Exception):
            if connection.connection is not None:  # inside `atomic`, Django's close() may postpone the closing
                connection.connection.close()
        with contextlib.suppress(AttributeError):
            del connections[connection.alias]


async def _finish(closing: Awaitable[None]) -> None:
    """Wait until the connections are closed, even if cancelled, so that none is in use after the end of the task."""
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
