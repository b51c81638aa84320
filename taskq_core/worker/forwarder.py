"""Move due tasks to pending, within milliseconds of their second.

The worker that leads the queue acts, just after the second of Redis's clock at which the first task is due: scores are
whole seconds. The script has a separate lease, which older releases also use.
"""

import asyncio
import contextlib
import logging

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.services import forward
from taskq_core.clock import Clock, RedisClock
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.counted_log import CountedLog
from taskq_core.worker.leadership import AFTER_S, Leadership

logger = logging.getLogger("taskq.worker")

BATCH = 100
"""Most tasks one script call moves."""


class Forwarder:
    """Moves due tasks of one queue.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        clock: Source of monotonic time.
        redis_clock: Redis's time.
        leadership: Says when the first task is due.
        owner: Token of the worker.
        leader_s: Seconds after which another worker takes over.
    """

    def __init__(
        self,
        queue: QueueKeys,
        runner: AsyncRunner,
        clock: Clock,
        redis_clock: RedisClock,
        leadership: Leadership,
        *,
        owner: str,
        leader_s: float,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._clock = clock
        self._redis_clock = redis_clock
        self._leadership = leadership
        self._changes = asyncio.Event()
        leadership.wakes(self._changes)
        self._owner = owner
        self._leader_s = leader_s
        self._log_dropped = CountedLog(logger, logging.ERROR, "%d due ids in queue %s had no task and were dropped")
        self.moved = 0
        """Tasks moved so far."""

    async def work(self) -> float:
        """Wait until a task is due and move what is; return the seconds until the next time."""
        await self._until_due()
        due_s, moved = self._leadership.due_s, self.moved
        if not await self.move():
            return jittered(self._leader_s / 3)
        if self.moved > moved or due_s is None or due_s <= self._redis_clock.time():  # else the clock was ahead
            self._leadership.look_again()
        return 0.0

    async def _until_due(self) -> None:
        while True:
            self._changes.clear()
            due_s = self._leadership.due_s if self._leadership.leads else None
            left_s = None
            if due_s is not None:
                left_s = due_s + AFTER_S - self._redis_clock.time()
                if left_s <= 0:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changes.wait()

    async def move(self) -> bool:
        """Move what is due now. False where another worker does."""
        while True:
            answer = await self._runner.run(
                forward(self._queue, owner=self._owner, leader_ms=int(self._leader_s * 1000), limit=BATCH)
            )
            self._redis_clock.learn(answer.now_ns, self._clock.monotonic())
            self.moved += answer.moved
            if answer.dropped:
                self._log_dropped.add(answer.dropped, self._queue.name)
            if not answer.leads:
                return False
            if answer.moved + answer.dropped < BATCH:
                return True
