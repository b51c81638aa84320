"""Count the outcomes of runs by task type, and add the counts to Redis every few seconds.

Each run costs only a few additions in memory. Every `HAND_IN_S` seconds, the worker adds its counts to the hourly
counts in Redis, with one call per queue in which runs ended. A killed worker loses the counts since its last call.
"""

import logging
from bisect import bisect_left
from collections.abc import Sequence

from taskq_core.broker.operations.samples import count_runs
from taskq_core.service.loop import jittered
from taskq_core.telemetry import NOT_PROCESSED, RunOutcome
from taskq_core.wire import QueueKeys
from taskq_core.wire.tallies import BOUNDS_S, HOUR_S, OTHER_TYPES, TYPES_MOST, TypeCounters
from taskq_core.worker.context import WorkerContext, WorkerService
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

_NO_RUNS = NOT_PROCESSED | {RunOutcome.EXPIRED}
"""Outcomes of tasks that did not run, or of runs that used no attempt."""
HAND_IN_S = 10.0
"""Approximate seconds between two calls that add the counts to Redis."""


class RunCounters(WorkerService):
    """Counts the outcomes of the runs of one worker by queue and task type. Only used on the worker's event loop.

    Args:
        context: The worker.
    """

    name = "run counters"

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        self._counted: dict[QueueKeys, dict[str, TypeCounters]] = {}
        self._sent: dict[QueueKeys, tuple[int, int, dict[str, TypeCounters]]] = {}
        self._calls = 0
        self.processed = 0
        """Number of runs since the worker started."""
        self.failed = 0
        """Number of failed runs since the worker started."""

    def add(self, queue: QueueKeys, runs: Sequence[Run]) -> None:
        """Add settled runs of a queue to the counts in memory."""
        types = self._counted.get(queue)
        if types is None:
            types = self._counted[queue] = {}
        for run in runs:
            outcome = run.outcome
            if outcome in _NO_RUNS:
                continue
            counted = types.get(run.name) or self._new(types, run.name)
            if outcome is not RunOutcome.COMPLETED:
                is_archived = outcome is RunOutcome.ARCHIVED
                # The scripts that settle tasks count `failed` of a queue in the same way.
                is_failure = is_archived or outcome is RunOutcome.RETRIED
                counted.failed += is_failure
                self.failed += is_failure
                counted.archived += is_archived
            duration_s = run.duration_s
            counted.processed += 1
            self.processed += 1
            counted.buckets[bisect_left(BOUNDS_S, duration_s)] += 1
            counted.total_ms += duration_s * 1000

    def _new(self, types: dict[str, TypeCounters], name: str) -> TypeCounters:
        if len(types) >= TYPES_MOST:
            name = OTHER_TYPES
        return types.setdefault(name, TypeCounters.empty())

    async def work(self) -> float:
        """Add the new counts to Redis. Return the seconds until the next call."""
        await self.hand_in()
        return jittered(HAND_IN_S)

    async def hand_in(self) -> None:
        """Add the new counts to Redis. If an earlier call got no reply, send its counts again."""
        hour = int(self._context.redis_clock.time()) // HOUR_S
        for queue in list(self._counted):
            if queue not in self._sent and (types := self._counted.pop(queue)):
                self._calls += 1
                self._sent[queue] = (hour, self._calls, types)
        for queue, (at, call, types) in list(self._sent.items()):
            operation = count_runs(queue, at, types, owner=self._context.token, call=call)
            code = await self._runner.run(operation)
            del self._sent[queue]
            if code < 0:
                logger.error(
                    "the key of the counters of queue %s has a wrong type; 'taskq doctor --fix' moves it aside",
                    queue.name,
                    extra={"queue": queue.name},
                )
