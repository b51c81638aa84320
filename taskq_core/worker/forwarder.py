"""Move due tasks to pending, within milliseconds of the second at which they are due.

The worker that leads the queue moves them just after the second of Redis's clock at which the first task is due: scores
are whole seconds. The script also checks a separate lease, because workers of older releases use that lease.
"""

import logging

from taskq_core.broker.operations.services import forward
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.counted_log import CountedLog
from taskq_core.worker.leadership import AFTER_S, Leadership, QueueService

logger = logging.getLogger("taskq.worker")

BATCH = 100
"""Maximum number of due tasks that one script call moves."""


class Forwarder(QueueService):
    """Moves due tasks of one queue (scheduled tasks and retries) to pending."""

    name = "forwarder"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self.leader_keys = (queue.leader("forwarder"),)
        self._log_dropped = CountedLog(
            logger, logging.ERROR, "dropped %d ids of due tasks from queue %s because they have no stored message"
        )
        self.moved = 0
        """Number of due tasks that were moved to pending."""

    async def work(self) -> float:
        """Wait until a task is due and move all due tasks. Return the seconds until the next call."""
        await self._until_due()
        due_s, moved = self._leadership.due_s, self.moved
        if not await self.move():
            return jittered(self._context.leader_s / 3)
        # If the worker's estimate of Redis's clock was ahead, no task was due. Then do not read the keys again.
        if self.moved > moved or due_s is None or due_s <= self._context.redis_clock.time():
            self._leadership.read_again()
        return 0.0

    async def _until_due(self) -> None:
        while True:
            self._changes.clear()
            due_s = self._leadership.due_s if self._leadership.leads else None
            left_s = None
            if due_s is not None:
                left_s = due_s + AFTER_S - self._context.redis_clock.time()
                if left_s <= 0:
                    return
            await self._changes.wait_for(left_s)

    async def move(self) -> bool:
        """Move all tasks that are due now. Return False if another worker holds the lease."""
        context = self._context
        while True:
            answer = await self._runner.run(
                forward(self._queue, owner=context.token, leader_ms=context.leader_ms, limit=BATCH)
            )
            context.redis_clock.learn(answer.now_ns, context.clock.monotonic())
            self.moved += answer.moved
            if answer.dropped:
                self._log_dropped.add(answer.dropped, self._queue.name)
            if not answer.leads:
                return False
            if answer.moved + answer.dropped < BATCH:
                return True
