"""End the runs of a stopping worker: wait for them, then interrupt them, and requeue tasks that still run."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.service.calls import Caller
from taskq_core.service.user_code import unlisted
from taskq_core.worker.aggregator import Aggregator
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.executor import Executor
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.outcome import requeued
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.run_log import runs_text
from taskq_core.worker.services import Services
from taskq_core.worker.settler import Settler

logger = logging.getLogger("taskq.worker")

CALLED_OFF_S = 0.5
"""Seconds that a stopping worker first waits until Redis has called off the dequeues that `waker` sent ahead of
tasks."""
WAITING_LOG_S = 5.0
"""Seconds between two log lines about the tasks that a stopping worker waits for."""
ENDING_S = 2.0
"""Maximum seconds for each step of the shutdown after the running tasks have ended."""


@dataclass(eq=False, repr=False)
class Drain:
    """Ends the runs of a worker that stops.

    Attributes:
        context: The worker.
        fetcher: The fetcher, which no longer takes tasks.
        executor: Interrupts runs.
        settler: Settles runs.
        services: The background services.
        aborting: Set when the worker must no longer wait for running tasks.
    """

    context: WorkerContext
    fetcher: Fetcher
    executor: Executor
    settler: Settler
    services: Services
    aborting: asyncio.Event

    @property
    def _runs(self) -> list[Run]:
        return list(self.context.running.values())

    async def run(self) -> None:
        """Wait for running tasks, then interrupt them, and requeue tasks that still run."""
        config = self.context.config
        await self.fetcher.wait_until_answered(CALLED_OFF_S)
        aggregators = list(self.services.of(Aggregator))
        for aggregator in aggregators:
            aggregator.is_stopping = True
        await self._wait_for_tasks(config.span("shutdown_grace"))
        for run in self._runs:
            self.executor.end(run, Ending.SHUTDOWN)
        interrupt_grace_s = config.span("interrupt_grace")
        await asyncio.gather(*(aggregator.drain(interrupt_grace_s) for aggregator in aggregators))
        await self._wait_for_end(interrupt_grace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                buffers = [run.buffer for run in self._runs if run.settlement is None and run.buffer is not None]
                await asyncio.gather(*(each.steps.store_position() for each in buffers), return_exceptions=True)
        for run in self._runs:
            # If the function runs in a thread, it ends when the worker process exits.
            if run.settlement is not None:
                continue
            if run.is_stuck and run.ending in (Ending.TIMEOUT, Ending.CANCELLED):
                self.settler.add(run)  # settle the run as timed out or cancelled: a requeued task would hang again
                continue
            logger.warning("task %s did not end when interrupted; it returns to its queue", run.name, extra=run.facts)
            run.settlement = requeued(run)
            self.settler.requeue(run)
        await self._wait_for_end(ENDING_S)

    async def _wait_for_tasks(self, seconds: float) -> None:
        """Wait for running tasks until the timeout or an abort, and log the names of the tasks."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.aborting.is_set() and not self._is_quiet and (left_s := until - loop.time()) > 0:
            if runs := self._runs:
                text = runs_text(runs, self.context.clock.monotonic())
                logger.info("stopping: waiting up to %.0fs for %d running tasks: %s", left_s, len(runs), text)
            await self._wait_for_end(min(left_s, WAITING_LOG_S), self.aborting)
        if runs := self._runs:
            text = runs_text(runs, self.context.clock.monotonic())
            logger.warning("stopping: %d tasks still run and go back to their queue: %s", len(runs), text)

    async def _wait_for_end(self, seconds: float, event: asyncio.Event | None = None) -> None:
        """Wait until no task runs or waits to be settled, the timeout is over, or the event is set."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (  # noqa: ASYNC110 - it waits for several things at once, and only while the worker stops
            not self._is_quiet and loop.time() < until and not (event is not None and event.is_set())
        ):
            await asyncio.sleep(min(0.02, max(0.0, until - loop.time())))

    @property
    def _is_quiet(self) -> bool:
        """True if no task runs or waits to be settled, and the fetcher will bring no further tasks."""
        if self.context.running or any(aggregator.is_busy for aggregator in self.services.of(Aggregator)):
            return False
        return self.fetcher.is_empty or self.fetcher.is_failing

    def has_finished(self) -> bool:
        """Return whether a worker in burst mode has finished: no task runs, and no service can bring tasks."""
        is_idle = all(each.is_idle for each in self.services.all)
        return is_idle and self._is_quiet and self.fetcher.is_empty and not self.settler.count


async def to_the_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await a coroutine that must complete. If this call is cancelled, raise the cancellation after the completion."""
    task = unlisted(asyncio.create_task(ending, name="taskq ending"))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        logger.error("closing a cancelled worker failed", exc_info=failure)
    raise cancelled


async def close_idle(app: TaskQ) -> None:
    """Close resources that runs left open, such as database connections.

    Use a new thread, because the existing threads may hang.
    """
    call = Caller(1, name="the bridge")
    with contextlib.suppress(TimeoutError):
        await call(app.bridge.close_idle, timeout_s=ENDING_S)
    call.close()
