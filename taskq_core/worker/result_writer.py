"""Store what running tasks write as their result, in order, and before their end is settled.

`write` is called by the function, in whatever thread. Of several writes that wait, the last counts. The end of a run
that wrote is held back until its last write was answered, so that a settlement never overtakes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import write_result
from taskq_core.errors import BrokerError
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

PATIENCE_S = 5.0
"""Seconds a write is repeated while Redis does not answer."""


class Writes:
    """What one run has written and is not stored yet."""

    __slots__ = ("has_ended", "is_busy", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque(maxlen=1)
        self.is_busy = False
        self.has_ended = False


class ResultWriter:
    """Writes results of running tasks.

    Args:
        runner: Sends operations.
        owner: Token of the worker.
        ended: Called with a run whose end was held back and may be settled now.
    """

    def __init__(self, runner: AsyncRunner, *, owner: str, ended: Callable[[Run], None]) -> None:
        self._runner = runner
        self._owner = owner
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, run: Run, data: bytes) -> None:
        """Store bytes soon. From any thread.

        Raises:
            TypeError: It is no bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"write_result takes bytes, got {type(data).__name__}")
        writes: Writes | None = run.writes
        if writes is None:
            writes = run.writes = Writes()
        writes.waiting.append(bytes(data))
        self._loop.call_soon_threadsafe(self._start, run, writes)

    def holds_back(self, run: Run) -> bool:
        """True if a run that has ended waits for its last write. `ended` is called when that was answered."""
        writes: Writes | None = run.writes
        if writes is None or not (writes.waiting or writes.is_busy):
            return False
        writes.has_ended = True
        return True

    def _start(self, run: Run, writes: Writes) -> None:
        if writes.is_busy or not writes.waiting:
            return
        writes.is_busy = True
        task = self._loop.create_task(self._write(run, writes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, run: Run, writes: Writes) -> None:
        try:
            while writes.waiting:
                data = writes.waiting.popleft()
                await self._runner.run(
                    write_result(run.queue, run.task_id, data, owner=self._owner), patience_s=PATIENCE_S
                )
        except BrokerError as error:
            writes.waiting.clear()
            logger.error(
                "what task %s wrote as its result was not stored: %s",
                run.name,
                error,
                extra={"queue": run.queue.name, "task_id": run.task_id},
            )
        finally:
            writes.is_busy = False
            if writes.has_ended:
                self._ended(run)

    async def close(self, timeout_s: float) -> None:
        """Wait for writes on their way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
