"""Send tasks that still wait in an outbox table after their commit, because the process died or Redis was down.

For each table, one worker does this, under a lease. If the worker dies, another worker takes over within seconds. The
lease only saves database work: two concurrent relays neither lose nor duplicate a task, see `taskq_core.client.outbox`.
"""

import math

from taskq_core.broker.operations.services import lead
from taskq_core.client.outbox import Delivered, OutboxFigures, OutboxTable
from taskq_core.service.loop import jittered
from taskq_core.telemetry import gauges
from taskq_core.worker.context import WorkerContext, WorkerService

COUNT_EVERY_S = 30.0
"""Seconds between two counts of an outbox's rows for metrics. A count reads the whole table."""


class Relay(WorkerService):
    """Sends the waiting rows of one outbox table.

    Args:
        context: The worker.
        table: The table.
    """

    name = "relay"

    def __init__(self, context: WorkerContext, table: OutboxTable) -> None:
        super().__init__(context)
        self._table = table
        self.leader_keys = (context.keys.outbox_leader(table.name),)
        self._figures: OutboxFigures | None = None
        self._figures_at = -math.inf
        self._call = context.new_caller(1, name=f"the outbox of {table.name}")
        self._has_checked = False

    @property
    def is_idle(self) -> bool:
        """Whether this relay has no work now: no row waits, another worker's relay acts, or the last attempt failed."""
        return self._has_checked

    @property
    def table_name(self) -> str:
        """Name of the outbox table, which is the name of its database."""
        return self._table.name

    @property
    def figures(self) -> OutboxFigures | None:
        """Number and age of waiting outbox rows. None unless this relay leads and exports metrics. Thread-safe."""
        return self._figures if self._context.clock.monotonic() - self._figures_at <= 3 * COUNT_EVERY_S else None

    async def work(self) -> float:
        """Send waiting outbox rows to Redis. Return the seconds until the next call."""
        try:
            return await self._send_all()
        finally:
            self._has_checked = True

    async def _send_all(self) -> float:
        context = self._context
        leads = lead(self.leader_keys[0], owner=context.token, leader_ms=context.leader_ms)
        while await context.runner.run(leads):
            delivered: Delivered = await self._call(context.app.runtime.delivery.deliver, self._table)
            if delivered.failure is not None:
                raise delivered.failure
            await self._count()
            if not delivered.stored and not delivered.refused:
                return context.config.span("relay_every")  # the outbox has no row to send, or Redis has no memory
        return jittered(context.leader_s / 3)

    async def _count(self) -> None:
        now = self._context.clock.monotonic()
        if now - self._figures_at >= COUNT_EVERY_S and gauges.is_active:
            self._figures = await self._call(self._table.figures)
            self._figures_at = now
