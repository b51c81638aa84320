"""Move due tasks to pending, within milliseconds of their second.

One worker per queue acts, by a lease that each call renews; the others look now and then whether it is free. Scores are
whole seconds, so the leader acts just after each second of Redis's clock.
"""

import logging
import math

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import forward
from taskq_core.clock import Clock, RedisClock
from taskq_core.service import jittered
from taskq_core.wire import QueueKeys

logger = logging.getLogger("taskq.worker")

BATCH = 100
"""Most tasks one script call moves."""
AFTER_S = 0.002
"""Seconds after each second of Redis's clock at which the leader looks: the clocks are compared over a network."""


class Forwarder:
    """Moves due tasks of one queue.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        clock: Source of monotonic time.
        redis_clock: Redis's time.
        owner: Token of the worker.
        leader_s: Seconds after which another worker takes over.
    """

    def __init__(
        self,
        queue: QueueKeys,
        runner: AsyncRunner,
        clock: Clock,
        redis_clock: RedisClock,
        *,
        owner: str,
        leader_s: float,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._clock = clock
        self._redis_clock = redis_clock
        self._owner = owner
        self._leader_s = leader_s
        self.moved = 0
        """Tasks moved so far."""

    async def work(self) -> float:
        """Move what is due; return the seconds until the next look."""
        while True:
            answer = await self._runner.run(
                forward(self._queue, owner=self._owner, leader_ms=int(self._leader_s * 1000), limit=BATCH)
            )
            self._redis_clock.learn(answer.now_ns, self._clock.monotonic())
            self.moved += answer.moved
            if answer.dropped:
                logger.error("%d due ids in queue %s had no task and were dropped", answer.dropped, self._queue.name)
            if not answer.leads:
                return jittered(self._leader_s / 3)
            if answer.moved + answer.dropped < BATCH:
                break
        now = self._redis_clock.time()
        return math.floor(now) + 1 + AFTER_S - now
