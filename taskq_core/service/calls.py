"""Call user functions other than tasks: hooks, providers, error handlers, aggregators.

A call ends at its timeout, even if the function continues to run. Plain functions run in separate daemon threads. So a
hanging function takes no thread from tasks or host name look-ups, and does not keep the process alive.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from taskq_core.errors import TaskInterrupted
from taskq_core.service import interruption
from taskq_core.service.blocking import DaemonThreads
from taskq_core.service.interruption import clear_in_thread, raise_in_thread
from taskq_core.service.user_code import as_exception, contained, is_coroutine_function

ENDING_S = 0.5
"""Seconds for which a call waits until an interrupted plain function has ended. After that, the call ends anyway."""


class HangError(TimeoutError):
    """A call of a user function did not end in time, and the worker no longer waits for it."""


class Caller:
    """Calls coroutine functions on the running event loop, and plain functions in threads.

    Args:
        size: Maximum number of threads, and so of plain functions that run or hang at the same time.
        name: Description of the functions for errors, such as "a hook".
        on_exhausted: Called with an error text if a call fails because hanging functions occupy all threads.
    """

    def __init__(self, size: int, *, name: str, on_exhausted: Callable[[str], object] | None = None) -> None:
        self._size = size
        self._name = name
        self._on_exhausted = on_exhausted
        self._threads = DaemonThreads(size)
        self._hanging: set[_Job] = set()

    async def __call__(self, function: Callable[..., Any], *arguments: object, timeout_s: float | None = None) -> Any:
        """Call a function and return its result. If the result is awaitable, await it.

        Args:
            function: The function.
            *arguments: Arguments of the function.
            timeout_s: Seconds after which the call ends. A coroutine is cancelled. In a plain function,
                `TaskInterrupted` is raised, but the function may catch it and continue. None: no limit.

        Raises:
            Exception: The error of the function, as `as_exception` returns it.
            HangError: The call did not end in time, or hanging functions occupy all threads.
            asyncio.CancelledError: The caller was cancelled.
        """
        try:
            async with asyncio.timeout(timeout_s) as limit:
                return await contained(partial(self._call, function, arguments))
        except TimeoutError:
            if limit.expired():
                raise HangError(f"{self._name} did not end within {timeout_s:g} s") from None
            raise

    async def _call(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
        if is_coroutine_function(function):
            found = function(*arguments)
        else:
            found = await self._in_thread(partial(function, *arguments))
        return await found if inspect.isawaitable(found) else found

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        if len(self._hanging) >= self._size:
            problem = f"{self._size} earlier calls of {self._name} hang and occupy all threads"
            if self._on_exhausted is not None:
                self._on_exhausted(problem)
            raise HangError(problem)
        interruption.load()
        job = _Job(partial(contextvars.copy_context().run, call), self._hanging)
        ending = asyncio.get_running_loop().run_in_executor(self._threads, job.run)
        # Read the error even if the caller was cancelled, because asyncio logs errors that no code has read.
        ending.add_done_callback(lambda future: future.cancelled() or future.exception())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            if job.interrupt():
                await asyncio.wait((ending,), timeout=ENDING_S)
            else:
                ending.cancel()
            raise

    def close(self) -> None:
        """Let idle threads end. A busy thread ends after its function, or with the process."""
        self._threads.shutdown(wait=False)


class _Job:
    """A call of a plain function in a thread."""

    def __init__(self, call: Callable[[], Any], hanging: "set[_Job]") -> None:
        self._call = call
        self._hanging = hanging  # interrupted calls that still run
        self._lock = threading.Lock()
        self._thread_id: int | None = None  # the thread that runs the function; None before and after the run

    def run(self) -> Any:
        result, failure = None, None
        try:
            try:
                with self._lock:
                    self._thread_id = threading.get_ident()
                result = self._call()
            except BaseException as error:
                failure = error
        except TaskInterrupted as error:  # the interruption arrived inside the `except` block above
            failure = error
        while True:
            try:
                with self._lock:
                    self._thread_id = None  # tells `interrupt` that the function has ended
                    if self in self._hanging:
                        # Cancel a late interruption, because it would hit the next call in the same thread.
                        clear_in_thread(threading.get_ident())
                break
            except TaskInterrupted:
                continue
        self._hanging.discard(self)
        if failure is not None:
            raise as_exception(failure)
        return result

    def interrupt(self) -> bool:
        """Raise `TaskInterrupted` in the function. Return False if the function is not running."""
        with self._lock:
            if self._thread_id is None:
                return False
            raise_in_thread(self._thread_id, TaskInterrupted)
            self._hanging.add(self)
            return True
