"""Call what users give a scheduler: hooks and providers. Whatever one of them does must not end a service or a process.

Plain functions run in daemon threads that nobody else uses: one that hangs takes a thread from its like only, not from
tasks and look-ups of host names, and the process ends without it.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

from taskq_core.service.user_code import as_exception, contained
from taskq_core.tasks.functions import is_coroutine_function


class HangError(TimeoutError):
    """A call has not ended in time, and is waited for no longer."""


class Caller:
    """Calls coroutine functions here, and plain functions in threads.

    Args:
        size: Most threads, and so most plain functions at the same time. They start as they are needed.
        name: What is called, for the names of the threads and for errors: "a hook".
    """

    def __init__(self, size: int, *, name: str) -> None:
        self._size = size
        self._name = name
        self._free = asyncio.Semaphore(size)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = self._busy = self._abandoned = 0

    async def __call__(self, function: Callable[..., Any], *arguments: object, timeout_s: float | None = None) -> Any:
        """Call a function and return what it returns, awaited if need be.

        Args:
            function: The function.
            *arguments: What it is called with.
            timeout_s: Seconds it is waited for; a plain function goes on then. None: for ever.

        Raises:
            Exception: As the function did.
            RuntimeError: It raised what is no `Exception`, or what asyncio cannot hand over (`StopIteration`).
            HangError: It has not returned in time, or none of the threads is free because of such functions.
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
            found = await self._in_thread(function, arguments)
        return await found if inspect.isawaitable(found) else found

    async def _in_thread(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
        if self._abandoned >= self._size:
            raise HangError(f"{self._abandoned} earlier calls of {self._name} hang, which is all there is room for")
        await self._free.acquire()
        job = _Job(self, function, arguments)
        if self._busy == self._started:
            try:
                threading.Thread(target=_work, args=(self._jobs,), name=f"taskq {self._name}", daemon=True).start()
            except RuntimeError:  # this machine has no further thread
                self._free.release()
                raise
            self._started += 1
        self._busy += 1
        self._jobs.put(job)
        try:
            return await job.answer
        except asyncio.CancelledError:
            if not job.has_ended:
                job.is_abandoned = True
                self._abandoned += 1
            raise

    def ended(self, job: "_Job", result: object, error: BaseException | None) -> None:
        """Take what became of a function. On the event loop."""
        job.has_ended = True
        self._busy -= 1
        self._abandoned -= job.is_abandoned
        self._free.release()
        if job.answer.done():
            return
        if error is None:
            job.answer.set_result(result)
        else:
            job.answer.set_exception(error)

    def close(self) -> None:
        """Let idle threads end. Busy ones end with their function, or with the process."""
        for _ in range(self._started):
            self._jobs.put(None)


class _Job:
    """A call of a plain function."""

    __slots__ = ("_arguments", "_caller", "_context", "_function", "_loop", "answer", "has_ended", "is_abandoned")

    def __init__(self, caller: Caller, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        self._caller = caller
        self._function = function
        self._arguments = arguments
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._loop.create_future()
        self.has_ended = False
        self.is_abandoned = False

    def run(self) -> None:
        """Call the function. In a thread."""
        result: object = None
        failure: BaseException | None = None
        try:
            result = self._context.run(self._function, *self._arguments)
        except BaseException as error:
            failure = as_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._caller.ended, self, result, failure)


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # a thread that waits keeps nothing of its last call alive
