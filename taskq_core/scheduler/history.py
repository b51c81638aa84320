"""Write the history of periodic entries for Asynq's tools. Failures are only logged."""

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

from taskq_core.broker.operations import schedules
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerError, BrokerUnavailableError
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.tasks.periodic import Firing
from taskq_core.wire import SchedulerEnqueueEvent
from taskq_core.wire.durations import NS_PER_S

logger = logging.getLogger("taskq.scheduler")

KEPT_S = 7 * 86_400
"""Seconds that Redis keeps a history after the last scheduler that had the entry."""
REFRESH_S = 3600.0
"""Seconds between two extensions of the histories' expiry."""
AT_ONCE = 16
"""Maximum number of concurrent operations."""


class History:
    """Writes, extends and deletes the histories of entries.

    Args:
        context: The scheduler.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self._keys = context.keys
        self._book = context.book
        self._runner = context.runner
        self._clock = context.clock
        self._kept_at = -math.inf

    async def record(self, enqueued: Iterable[Firing], now_ns: int) -> None:
        """Add enqueued firings to the histories of their entries, with Redis's time."""
        sent = [
            schedules.record_firing(
                self._keys.scheduler_history(firing.entry.id),
                SchedulerEnqueueEvent(task_id=firing.task_id, enqueue_time_ns=now_ns).encode(),
                at_s=now_ns // NS_PER_S,
                kept_s=KEPT_S,
            )
            for firing in enqueued
        ]
        await self._send(sent, "writing histories")

    async def keep(self) -> None:
        """Extend the expiry of all histories, unless this was done within `REFRESH_S`."""
        now = self._clock.monotonic()
        if now - self._kept_at >= REFRESH_S:
            self._kept_at = now
            sent = [
                schedules.keep_history(self._keys.scheduler_history(entry_id), kept_s=KEPT_S)
                for entry_id in self._book.entries
            ]
            await self._send(sent, "keeping histories")

    async def forget_removed(self) -> None:
        """Delete the histories of entries that were removed since the last call."""
        removed = [self._keys.scheduler_history(task.id) for task in self._book.take_removed()]
        await self._send([schedules.delete_history(key) for key in removed], "deleting histories")

    async def _send(self, sent: Sequence[Operation[Any]], what: str) -> None:
        for start in range(0, len(sent), AT_ONCE):
            answers = await asyncio.gather(
                *(self._runner.run(each) for each in sent[start : start + AT_ONCE]), return_exceptions=True
            )
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            for failure in failures:
                if not isinstance(failure, BrokerError):
                    raise failure
            if failures:
                logger.warning("%s of periodic tasks failed: %s", what, failures[0])
            if any(isinstance(failure, BrokerUnavailableError) for failure in failures):
                return  # further operations would wait for the same unreachable server
