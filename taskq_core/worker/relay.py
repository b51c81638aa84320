"""Send what waits in an outbox: what its own process did not send at the commit, because it died or Redis was away.

One worker acts for a table, by a lease; another takes over within seconds. The lease only spares the database: two
relays at once neither lose a task nor send it twice, see `taskq_core.outbox`.
"""

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import lead_outbox, resign_outbox
from taskq_core.outbox import Delivered, Delivery, OutboxTable
from taskq_core.scheduler.calls import Caller
from taskq_core.service import jittered
from taskq_core.wire import Keys


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
    ) -> None:
        self._table = table
        self._delivery = delivery
        self._leader_key = keys.outbox_leader(table.name)
        self._runner = runner
        self._owner = owner
        self._every_s = every_s
        self._leader_s = leader_s
        self._call = Caller(1, name=f"the outbox of {table.name}")
        self.sent = 0
        """Tasks sent so far."""
        self.has_looked = False
        """True once it has sent what waited, found another worker acting, or failed."""

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
            if not delivered.stored and not delivered.refused:
                return self._every_s  # nothing waits, or there is no room for what does
        return jittered(self._leader_s / 3)

    async def resign(self) -> None:
        """Let another worker take over at once."""
        await self._runner.run(resign_outbox(self._leader_key, owner=self._owner))

    def close(self) -> None:
        """Let the thread end."""
        self._call.close()
