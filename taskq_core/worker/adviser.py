"""Warn, once for each thing, of what around a worker makes tasks wait or get lost though nothing has failed.

`taskq doctor` finds more, when somebody asks; this is what nobody may overlook.
"""

import logging
from collections.abc import Iterable
from typing import Any

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import server_info
from taskq_core.clock import SKEW_VISIBLE_S, Clock, RedisClock
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError
from taskq_core.task import Task
from taskq_core.worker.sampler import Fleet

logger = logging.getLogger("taskq.worker")

SETTLED_S = 60.0
"""Seconds after which workers that were started together are all there."""
AGAIN_S = 3600.0
"""Seconds between two looks."""


class Adviser:
    """Looks at Redis and at the other workers.

    Args:
        runner: Sends operations.
        clock: This machine's time.
        redis_clock: Redis's time, as the worker knows it.
        fleet: The workers there are.
        served: Queues of this worker.
        tasks: Tasks this worker knows.
    """

    def __init__(
        self,
        runner: AsyncRunner,
        clock: Clock,
        redis_clock: RedisClock,
        fleet: Fleet,
        *,
        served: Iterable[str],
        tasks: Iterable[Task[Any, Any]],
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._redis_clock = redis_clock
        self._fleet = fleet
        self._served = frozenset(served)
        self._tasks = list(tasks)
        self._told: set[str] = set()
        self._has_looked = False

    async def work(self) -> float:
        """Look once; after the first time also whether each task's queue is served."""
        await self._check_eviction()
        self._check_clock()
        if not self._has_looked:
            self._has_looked = True
            return SETTLED_S
        await self._check_queues()
        return AGAIN_S

    async def _check_eviction(self) -> None:
        try:
            info = await self._runner.run(server_info())
        except (BrokerAuthenticationError, BrokerReplyError):
            return  # a user who may not ask: the doctor tells of that
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            self._tell(
                "eviction",
                "",
                f"Redis drops keys, and with them tasks, when its memory is full: its maxmemory-policy is {policy}, "
                "and should be noeviction",
            )

    def _check_clock(self) -> None:
        ahead_s = self._clock.time() - self._redis_clock.time()
        if abs(ahead_s) >= SKEW_VISIBLE_S:
            direction = "ahead of" if ahead_s > 0 else "behind"
            self._tell("clock-skew", "", f"this machine's clock is {abs(ahead_s):.1f} s {direction} that of Redis")

    async def _check_queues(self) -> None:
        elsewhere: dict[str, list[str]] = {}
        for task in self._tasks:
            if task.options.queue not in self._served:
                elsewhere.setdefault(task.options.queue, []).append(task.name)
        for queue, names in elsewhere.items():
            _busy, slots = await self._fleet.of(queue)
            if slots == 0:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                self._tell(
                    "queue-unserved", queue, f"no worker serves queue {queue!r}, to which task {names[0]!r}{more} goes"
                )

    def _tell(self, code: str, subject: str, text: str) -> None:
        if f"{code} {subject}" not in self._told:
            self._told.add(f"{code} {subject}")
            logger.warning("%s [%s]", text, code)
