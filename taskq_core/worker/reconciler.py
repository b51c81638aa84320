"""Look for damage, slowly and all the time, and repair it.

One worker per queue goes over it every few minutes, by a lease that stands until the next pass is due: whoever finds it
free goes next, and a worker that was just started does not begin anew. `taskq_core.repair.reconcile` has the rules.
A pass rests four times as long as it works, and a worker makes one at a time, since each goes through all keys of the
server: it takes no more than a fifth of one connection's time, however many queues there are. What it counts should
stay at zero; if it does not, something other than taskq changes the keys, or Redis has lost some of them.

It also carries on moves to other queues that were cut off, as when the process of an inspector died in between.
"""

import asyncio
import logging
from collections import Counter
from typing import Any

from taskq_core.broker.operations.actions import MOVE_S
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import lead
from taskq_core.broker.plans import arun_plan
from taskq_core.errors import BrokerError
from taskq_core.handles.moving import finish
from taskq_core.repair.reconcile import LOOK_AGAIN_S, Finding, FindingKind, ReconcileReport, arun, reconcile
from taskq_core.service.loop import Service, jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext

logger = logging.getLogger("taskq.worker")

FIRST_S = 10.0
"""Seconds after its start at which a worker looks whether a pass is due."""
REST = 4.0
"""How long a pass rests after each call, as a multiple of the time the call took."""
AGAIN_S = 1.0
"""Seconds until a pass that could not tell all it found is followed by the next."""
TOLD_MAX = 20
"""Most findings of one pass that are logged one by one."""


class Reconciler(Service):
    """Repairs one queue.

    Args:
        context: The worker.
        queue: Key names of the queue.
        turn: Held during a pass. All reconcilers of a worker share it.
    """

    name = "reconciler"

    def __init__(self, context: WorkerContext, queue: QueueKeys, turn: asyncio.Lock) -> None:
        self._context = context
        self._runner = context.runner
        self._queue = queue
        self._every_s = context.config.span("reconcile_every")
        self._turn = turn
        self._is_new = True
        self._led_at = 0.0
        self.repairs: Counter[FindingKind] = Counter()
        """Repairs so far, by kind."""
        self.passes = 0
        """Passes so far."""

    async def work(self) -> float:
        """Make a pass if one is due; return the seconds until the next look."""
        if self._is_new:
            self._is_new = False
            return jittered(min(FIRST_S, self._every_s))
        async with self._turn:
            if not await self._lead():
                return jittered(self._every_s / 2)
            plan = reconcile(self._queue, repair=True, look_again_s=min(LOOK_AGAIN_S, self._every_s))
            report = await arun(plan, self._send, rest=REST)
            self.passes += 1
            self._tell(report)
            await self._finish_moves()
        return AGAIN_S if report.repaired and not report.is_complete else jittered(self._every_s)

    async def _lead(self) -> bool:
        self._led_at = self._context.clock.monotonic()
        leader_ms = max(1, int(self._every_s * 1000))
        leader_key = self._queue.leader("reconciler")
        return await self._runner.run(lead(leader_key, owner=self._context.token, leader_ms=leader_ms))

    async def _send(self, operation: Operation[Any]) -> Any:
        if self._context.clock.monotonic() - self._led_at > self._every_s / 3:
            await self._lead()  # a large queue takes longer than the lease; a second pass beside this one does no harm
        return await self._runner.run(operation)

    async def _finish_moves(self) -> None:
        """Carry on moves that were cut off. What fails waits for the next pass, and is no reason to make it sooner."""
        name = self._queue.name
        try:
            moved = await arun_plan(finish(self._context.keys, self._queue, idle_s=MOVE_S), self._send)
        except BrokerError as error:
            logger.error("moves out of queue %s cannot be carried on: %s", name, error, extra={"queue": name})
            return
        if moved:
            logger.warning(
                "%d tasks that were cut off on their way out of queue %s have arrived",
                moved,
                name,
                extra={"queue": name},
            )

    def _tell(self, report: ReconcileReport) -> None:
        counts = Counter(finding.kind for finding in report.findings if finding.repaired)
        for kind, count in counts.items():
            self.repairs[kind] += count
            self._context.metrics.repaired(self._queue.name, kind, count)
        for finding in report.findings[:TOLD_MAX]:
            self._log(finding)
        if len(report.findings) > TOLD_MAX:
            logger.error(
                "%d more findings in queue %s",
                len(report.findings) - TOLD_MAX,
                report.queue,
                extra={"queue": report.queue},
            )

    def _log(self, finding: Finding) -> None:
        logger.error(
            "queue %s was damaged (%s; %s): %s",
            self._queue.name,
            finding.kind.value,
            "repaired" if finding.repaired else "not repaired",
            finding.detail,
            extra={"queue": self._queue.name, "task_id": finding.task_id},
        )
