"""The end of a worker in burst mode: it stops once nothing is left to do and nobody brings more."""

from collections.abc import Awaitable, Callable

from taskq_core.broker.operations import limits, views
from taskq_core.service.loop import Service
from taskq_core.wire import TaskState
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.fetcher import Fetcher

FIRST_PAUSE_S = 0.001
"""Seconds between two looks after something has happened; doubled while nothing does."""
LONGEST_PAUSE_S = 0.05
"""Most seconds between two looks."""


class Burst(Service):
    """Ends a burst worker that has finished.

    Args:
        context: The worker.
        fetcher: Knows whether the queues were found empty.
        is_quiet: Returns whether nothing runs, waits to be settled, or may still be brought by a service.
        when_idle: Called once nothing is left to do; returns whether there may be work now. None: there is none.
    """

    name = "burst"

    def __init__(
        self,
        context: WorkerContext,
        fetcher: Fetcher,
        *,
        is_quiet: Callable[[], bool],
        when_idle: Callable[[], Awaitable[bool]] | None,
    ) -> None:
        self._context = context
        self._fetcher = fetcher
        self._is_quiet = is_quiet
        self._when_idle = when_idle
        self._turns = 0
        self._pause_s = FIRST_PAUSE_S

    async def work(self) -> float:
        """Stop the worker if it has finished; return the seconds until the next look."""
        await self._fetcher.wait_until_idle()
        turns = self._fetcher.turns
        self._pause_s = FIRST_PAUSE_S if turns != self._turns else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._turns = turns
        if await self._has_finished():
            if self._when_idle is not None and await self._when_idle():
                self._pause_s = FIRST_PAUSE_S
            elif self._when_idle is None or await self._has_finished():  # nothing came while it was asked
                self._context.stopping.set()
        return self._pause_s

    async def _has_finished(self) -> bool:
        turns = self._fetcher.turns
        if not self._is_out_of_work or await self._is_work_left():
            return False
        # What was taken and has ended meanwhile may have let in others, which were looked for before that.
        return self._is_out_of_work and self._fetcher.turns == turns

    @property
    def _is_out_of_work(self) -> bool:
        return self._fetcher.is_idle and self._is_quiet()

    async def _is_work_left(self) -> bool:
        """True if a queue that is not paused has a task that is pending, due but not forwarded, or limited by a rate.

        One that waits for a place is let in by who frees it, and is pending then.
        """
        run = self._context.runner.run
        for queue in self._context.queues:
            for state in (TaskState.SCHEDULED, TaskState.RETRY):  # first: what is forwarded meanwhile is pending then
                page = await run(views.list_tasks(queue, state, skip=0, count=1))
                if any(
                    task.score is not None and task.score <= self._context.redis_clock.time() for task in page.tasks
                ):
                    return True
            is_moving = await run(limits.limits_move(queue))
            counts = await run(views.count_tasks(queue))
            if (is_moving or counts.sizes[TaskState.PENDING]) and not counts.is_paused:
                return True
        return False
