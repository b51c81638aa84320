"""Stop a worker in burst mode once no task is left and no service can bring further tasks."""

from collections.abc import Awaitable, Callable

from taskq_core.broker.operations import limits, views
from taskq_core.wire import TaskState
from taskq_core.worker.context import WorkerContext, WorkerService
from taskq_core.worker.fetcher import Fetcher

FIRST_PAUSE_S = 0.001
"""Seconds until the next check whether work is left, after activity. Doubled after each check without activity."""
LONGEST_PAUSE_S = 0.05
"""Maximum seconds between two checks whether work is left."""


class Burst(WorkerService):
    """Stops a burst worker as soon as it has no work left.

    Args:
        context: The worker.
        fetcher: Reports whether the queues were found empty.
        is_quiet: Returns True if no task runs or waits to be settled, and no service can bring tasks.
        when_idle: Called once no work is left. Returns whether there may be new work. None: stop without a call.
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
        super().__init__(context)
        self._fetcher = fetcher
        self._is_quiet = is_quiet
        self._when_idle = when_idle
        self._turns = 0
        self._pause_s = FIRST_PAUSE_S

    async def work(self) -> float:
        """Stop the worker if it has finished. Return the seconds until the next check."""
        await self._fetcher.wait_until_idle()
        turns = self._fetcher.turns
        self._pause_s = FIRST_PAUSE_S if turns != self._turns else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._turns = turns
        if await self._has_finished():
            if self._when_idle is not None and await self._when_idle():
                self._pause_s = FIRST_PAUSE_S
            # Work may have arrived while `when_idle` ran, so check again before the worker stops.
            elif self._when_idle is None or await self._has_finished():
                self._context.stopping.set()
        return self._pause_s

    async def _has_finished(self) -> bool:
        turns = self._fetcher.turns
        if not self._is_out_of_work or await self._is_work_left():
            return False
        # A fetch cycle during the checks may settle a task. The end of that task may make other tasks pending.
        return self._is_out_of_work and self._fetcher.turns == turns

    @property
    def _is_out_of_work(self) -> bool:
        return self._fetcher.is_idle and self._is_quiet()

    async def _is_work_left(self) -> bool:
        """Return whether an unpaused queue has a task that is pending, due but not forwarded, or held by a rate limit.

        A task that waits for a concurrency limit does not count: it becomes pending when a running task ends.
        """
        run = self._runner.run
        for queue in self._context.queues:
            # Check scheduled and retried tasks before pending ones, so that a task that becomes pending meanwhile is
            # not missed.
            for state in (TaskState.SCHEDULED, TaskState.RETRY):
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
