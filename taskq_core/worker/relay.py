"""Send what waits in an outbox: what its own process did not send at the commit, because it died or Redis was away.

One worker acts for a table, by a lease; another takes over within seconds. The lease only spares the database: two
relays at once neither lose nor duplicate a task, see `taskq_core.client.outbox`.
"""

import math
from collections.abc import Callable

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.outbox import lead_outbox, resign_outbox
from taskq_core.client.outbox import Delivered, Delivery, OutboxFigures, OutboxTable
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.scheduler.calls import Caller
from taskq_core.service.loop import jittered
from taskq_core.wire import Keys

COUNT_EVERY_S = 30.0
"""Seconds between two times that rows are counted for metrics; counting costs the database a look at all of them."""


class Relay:
    """Sends the rows of one table.

    Args:
        table: The table.
        delivery: Moves rows, in a thread of the relay's own.
        keys: Key names.
        runner: Asks for the lease.
        owner: Token of the worker.
        every_s: Seconds between two looks while nothing waits.
        leader_s: Seconds after which another worker takes over.
        clock: Source of monotonic time.
        is_watched: Whether somebody wants to know how much waits.
    """

    def __init__(
        self,
        table: OutboxTable,
        delivery: Delivery,
        keys: Keys,
        runner: AsyncRunner,
        *,
        owner: str,
        every_s: float,
        leader_s: float,
        clock: Clock = SYSTEM_CLOCK,
        is_watched: Callable[[], bool] = lambda: False,
    ) -> None:
        self._table = table
        self._delivery = delivery
        self._leader_key = keys.outbox_leader(table.name)
        self._runner = runner
        self._owner = owner
        self._every_s = every_s
        self._leader_s = leader_s
        self._clock = clock
        self._is_watched = is_watched
        self._figures: OutboxFigures | None = None
        self._figures_at = -math.inf
        self._call = Caller(1, name=f"the outbox of {table.name}")
        self.sent = 0
        """Tasks sent so far."""
        self.has_looked = False
        """True once it has sent what waited, found another worker acting, or failed."""

    @property
    def table_name(self) -> str:
        """Name of the database."""
        return self._table.name

    @property
    def figures(self) -> OutboxFigures | None:
        """How much waits; None unless this relay leads and somebody wants to know. From any thread."""
        return self._figures if self._clock.monotonic() - self._figures_at <= 3 * COUNT_EVERY_S else None

    async def work(self) -> float:
        """Send what waits; return the seconds until the next look."""
        try:
            return await self._send_all()
        finally:
            self.has_looked = True

    async def _send_all(self) -> float:
        lead = lead_outbox(self._leader_key, owner=self._owner, leader_ms=int(self._leader_s * 1000))
        while await self._runner.run(lead):
            delivered: Delivered = await self._call(self._delivery.deliver, self._table)
            self.sent += len(delivered.stored)
            if delivered.failure is not None:
                raise delivered.failure
            await self._count()
            if not delivered.stored and not delivered.refused:
                return self._every_s  # nothing waits, or there is no room for what does
        return jittered(self._leader_s / 3)

    async def _count(self) -> None:
        now = self._clock.monotonic()
        if now - self._figures_at >= COUNT_EVERY_S and self._is_watched():
            self._figures = await self._call(self._table.figures)
            self._figures_at = now

    async def resign(self) -> None:
        """Let another worker take over at once."""
        await self._runner.run(resign_outbox(self._leader_key, owner=self._owner))

    def close(self) -> None:
        """Let the thread end."""
        self._call.close()
