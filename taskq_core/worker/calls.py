"""Call functions of the application that are no tasks, for so long and no longer: aggregators and error handlers.

What such a function raises reaches its caller as an `Exception`, also what would end a worker, such as `SystemExit`.
One that is told to end and goes on keeps its caller waiting, so there are never more of them than the caller has slots.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskq_core.clock import Clock
from taskq_core.errors import TaskInterrupted
from taskq_core.service.user_code import as_exception, contained
from taskq_core.wire import QueueKeys, TaskMessage
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.threads import TaskThreads

logger = logging.getLogger("taskq.worker")

T = TypeVar("T")

STUCK_S = 10.0
"""Seconds after which a plain function that was told to end and goes on is reported, and told again."""


class FunctionRun(Run):
    """One call of a plain function, as the threads know it."""

    __slots__ = ("call", "ended")

    def __init__(self, queue: QueueKeys, ident: str, name: str, call: Callable[[], object], now: float) -> None:
        super().__init__(queue, ident, TaskMessage(type=name), now)
        self.started = now
        self.call = call
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FunctionThreads:
    """Daemon threads for plain functions.

    Args:
        size: Most threads. They start as they are needed.
        clock: Source of monotonic time.
    """

    def __init__(self, size: int, clock: Clock) -> None:
        self._clock = clock
        self._threads = TaskThreads(size, call=_call, ended=_note_end)

    async def run(
        self, call: Callable[[], object], *, queue: QueueKeys, ident: str, name: str, timeout_s: float
    ) -> object:
        """Call a function in a thread and return what it returns, once it has really ended.

        Args:
            call: The function.
            queue: Queue it is called for.
            ident: What it is called for: the id of a set or of a task.
            name: Its name, for logs.
            timeout_s: Seconds after which it is told to end.

        Raises:
            TimeoutError: It was told to end, and did.
            RuntimeError: It raised what is no `Exception`.
        """
        run = FunctionRun(queue, ident, name, call, self._clock.monotonic())
        self._threads.submit(run)
        try:
            await asyncio.wait((run.ended,), timeout=timeout_s)
            while not run.ended.done():
                run.ending = Ending.TIMEOUT
                self._threads.interrupt(run, again=True)
                await asyncio.wait((run.ended,), timeout=STUCK_S)
                if not run.ended.done():
                    logger.warning(
                        "%s was told to end after %g s and still runs; its thread stays taken",
                        name,
                        timeout_s,
                        extra={"queue": queue.name},
                    )
        except asyncio.CancelledError:
            run.ending = Ending.SHUTDOWN
            self._threads.interrupt(run)
            raise
        error = run.error
        if error is None:
            return run.result
        if isinstance(error, TaskInterrupted):
            raise TimeoutError(f"it did not end within {timeout_s:g} s") from error
        raise as_exception(error)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


async def call_coroutine(call: Callable[[], Awaitable[T]], timeout_s: float | None) -> T:
    """Await a coroutine function's call in this asyncio task and return what it returns.

    Raises:
        TimeoutError: It was told to end, and did.
        RuntimeError: It raised what is no `Exception`.
        asyncio.CancelledError: The caller was cancelled.
    """
    async with asyncio.timeout(timeout_s):
        return await contained(call)


def _call(run: Run) -> object:
    assert isinstance(run, FunctionRun)
    return run.call()


def _note_end(run: Run) -> None:
    assert isinstance(run, FunctionRun)
    run.ended.set_result(None)
