"""Search a queue for damage in slow, regular passes, and repair it.

One worker per queue makes a pass every few minutes. It takes a lease that lasts until the next pass is due. The first
worker that finds the lease free makes the next pass, so a restarted worker does not repeat a pass. The rules are in
`taskq_core.repair.reconcile`. After each call, a pass rests four times as long as the call took. Each pass reads all
keys of the server, so a worker makes only one pass at a time. So it takes at most a fifth of one connection's time,
however many queues there are. The counters of repairs should stay at zero. Otherwise another program changes the keys,
or Redis has lost some of them.
"""

import logging
import random
from collections import Counter
from typing import Any

from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import lead
from taskq_core.repair.reconcile import RECHECK_S, Finding, FindingKind, ReconcileReport, arun, reconcile
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService

logger = logging.getLogger("taskq.worker")

FIRST_S = 10.0
"""Seconds after the start of a worker at which it first checks whether a pass is due."""
REST = 4.0
"""Length of the pause after each script call of a pass, as a multiple of the call's duration."""
AGAIN_S = 1.0
"""Seconds until the next pass, if a pass stopped early because it had found too much damage."""
LOGGED_MAX = 20
"""Maximum number of findings of one pass that are logged individually."""


class Reconciler(QueueService):
    """Finds and repairs damage in one queue, in regular passes."""

    name = "reconciler"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self._every_s = context.config.span("reconcile_every") * context.pace
        self._is_new = True
        self._led_at = 0.0
        self.repairs: Counter[FindingKind] = Counter()
        """Number of repairs by this worker, by the kind of damage."""
        self.passes = 0
        """Number of passes over the queue by this worker."""

    async def work(self) -> float:
        """Make a pass if one is due. Return the seconds until the next call."""
        if self._is_new:
            self._is_new = False
            if self._context.pace > 1:  # spread the first passes over the time of a whole round
                return random.uniform(min(FIRST_S, self._every_s), self._every_s)  # noqa: S311 - jitter, no secret
            return jittered(min(FIRST_S, self._every_s))
        async with self._context.reconciling:
            if not await self._lead():
                return jittered(self._every_s / 2)
            plan = reconcile(self._queue, repair=True, recheck_s=min(RECHECK_S, self._every_s))
            report = await arun(plan, self._send, rest=REST)
            self.passes += 1
            self._report(report)
        return AGAIN_S if report.repaired and not report.is_complete else jittered(self._every_s)

    async def _lead(self) -> bool:
        self._led_at = self._context.clock.monotonic()
        leader_ms = max(1, int(self._every_s * 1000))
        leader_key = self._queue.leader("reconciler")
        return await self._runner.run(lead(leader_key, owner=self._context.token, leader_ms=leader_ms))

    async def _send(self, operation: Operation[Any]) -> Any:
        if self._context.clock.monotonic() - self._led_at > self._every_s / 3:
            # Renew the lease, because checking a large queue takes long. If the lease is lost, two reconcilers do no
            # harm.
            await self._lead()
        return await self._runner.run(operation)

    def _report(self, report: ReconcileReport) -> None:
        counts = Counter(finding.kind for finding in report.findings if finding.repaired)
        for kind, count in counts.items():
            self.repairs[kind] += count
            self._context.metrics.repaired(self._queue.name, kind, count)
        for finding in report.findings[:LOGGED_MAX]:
            self._log(finding)
        if len(report.findings) > LOGGED_MAX:
            logger.error(
                "%d more findings in queue %s",
                len(report.findings) - LOGGED_MAX,
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
