"""Mark in Redis that runs start which may be the last of their task, before they start.

A task whose last run was lost is archived only if the run is marked as started; otherwise it runs again without using
an attempt. So a task with `max_retry=0` runs at least once, and a task that ends its worker still stops after
`max_retry + 1` runs. All other runs start at once and cost no request.
"""

import asyncio
from collections.abc import Awaitable, Callable

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import BATCH_MAX
from taskq_core.broker.operations.runs import mark_starts
from taskq_core.clock import Clock
from taskq_core.wire import QueueKeys
from taskq_core.worker.run import Run


class Starts:
    """Starts runs, marked first where that is needed. Used on the event loop only.

    Args:
        runner: Sends operations.
        clock: Source of monotonic time.
        owner: Token of the worker.
        start: Starts a run at a monotonic second.
        give_back: Gives back a run that has not started, given the monotonic second and the reason.
        background: Runs a coroutine in the background and logs its broker errors.
        is_stopping: Returns whether the worker stops.
    """

    def __init__(
        self,
        runner: AsyncRunner,
        clock: Clock,
        *,
        owner: str,
        start: Callable[[Run, float], None],
        give_back: Callable[[Run, float, str], None],
        background: Callable[[Awaitable[None]], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._owner = owner
        self._start = start
        self._give_back = give_back
        self._background = background
        self._is_stopping = is_stopping
        self._batch: list[Run] = []
        self.waiting: set[tuple[str, str]] = set()
        """Queue and id of the runs that are being marked."""

    def start(self, run: Run, now: float) -> None:
        """Start a run at a monotonic second, or once it is marked."""
        message = run.message
        if message.retried < message.retry:
            self._start(run, now)
            return
        if not self._batch:  # the runs of one dequeue come one after the other, in one turn of the loop
            asyncio.get_running_loop().call_soon(self._send)
        self._batch.append(run)
        self.waiting.add(run.key)

    def _send(self) -> None:
        by_queue: dict[QueueKeys, list[Run]] = {}
        for run in self._batch:
            by_queue.setdefault(run.queue, []).append(run)
        self._batch = []
        for queue, runs in by_queue.items():
            for first in range(0, len(runs), BATCH_MAX):
                self._background(self._mark(queue, runs[first : first + BATCH_MAX]))

    async def _mark(self, queue: QueueKeys, runs: list[Run]) -> None:
        """Start runs once they are marked. Give back those whose lease has ended.

        Raises:
            BrokerError: Redis did not answer before a lease ended. The runs are given back.
        """
        marked = [False] * len(runs)
        try:
            left_s = min(run.lease_until for run in runs) - self._clock.monotonic()
            step = mark_starts(queue, [(run.task_id, run.number) for run in runs], owner=self._owner)
            marked = await self._runner.run(step, patience_s=max(0.0, left_s))
        finally:
            now = self._clock.monotonic()
            for run, is_marked in zip(runs, marked, strict=True):
                self.waiting.discard(run.key)
                if not is_marked or now >= run.lease_until:
                    self._give_back(run, now, "was not started before its lease ended")
                elif self._is_stopping():
                    self._give_back(run, now, "was not started before the worker stopped")
                else:
                    self._start(run, now)
