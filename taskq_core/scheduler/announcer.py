"""Write the schedule entries to Redis, where tools read them, as Asynq's schedulers do.

Only the leading scheduler writes them.

Tools therefore show each entry once, with any number of schedulers.
"""

import math

from taskq_core.broker.operations import schedules, services
from taskq_core.broker.operations.schedules import ENTRIES_SHOWN
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.scheduler.leader import Leader
from taskq_core.service.loop import Service

LOOK_S = 1.0
"""Seconds between two checks whether this scheduler leads, and whether its schedule entries have changed."""


class Announcer(Service):
    """Writes the schedule entries to Redis while this scheduler leads, and deletes them when another takes over.

    Args:
        context: The scheduler.
        key: Redis key of the published entries.
        leader: Reports whether this scheduler leads now.
    """

    name = "announcer"

    def __init__(self, context: SchedulerContext, key: str, leader: Leader) -> None:
        self._keys = context.keys
        self._key = key
        self._book = context.book
        self._runner = context.runner
        self._clock = context.clock
        self._redis_clock = context.redis_clock
        self._every_s = context.config.span("heartbeat")
        self._leader = leader
        self._shown = ""  # digest of the published entries, or "" if none are published
        self._written_at = -math.inf

    async def work(self) -> float:
        """Write or delete the published entries if needed. Return the seconds until the next call."""
        if not self._leader.leads:
            await self.withdraw()
        elif self._shown != self._book.digest or self._clock.monotonic() - self._written_at >= self._every_s:
            await self._write()
        return min(LOOK_S, self._every_s)

    async def _write(self) -> None:
        now_s = int(self._redis_clock.time())
        ttl_s = math.ceil(2 * self._every_s)
        digest = self._book.digest
        shown = [each for each in self._book.entries.values() if not each.task.is_paused][:ENTRIES_SHOWN]
        entries = [each.describe(now_s).encode() for each in shown]
        # Set `_shown` before the write. If the answer is lost, `withdraw` must still delete the published entries.
        self._shown = digest
        await self._runner.run(services.index_presence(self._keys.schedulers, self._key, expiry_s=now_s + ttl_s))
        await self._runner.run(schedules.announce(self._key, entries, ttl_s=ttl_s))
        self._written_at = self._clock.monotonic()

    async def withdraw(self) -> None:
        """Delete the published entries from Redis, if this scheduler wrote any."""
        if self._shown:
            await self._runner.run(services.unindex_presence(self._keys.schedulers, self._key))
            await self._runner.run(schedules.withdraw_entries(self._key))
            self._shown = ""
