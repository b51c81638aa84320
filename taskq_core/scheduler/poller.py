"""Call the application's providers of periodic tasks, and read the schedules that are added or paused at run time."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from taskq_core.broker.operations import presence
from taskq_core.errors import ConfigurationError
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.scheduler.entries import EntryBook
from taskq_core.scheduler.runtime_schedules import RuntimeSchedules
from taskq_core.service.calls import Caller
from taskq_core.service.loop import Service
from taskq_core.tasks.periodic import PeriodicTask, Provider

logger = logging.getLogger("taskq.scheduler")

AFTER_FAILURE_S = 30.0
"""Maximum seconds until a provider function that failed is called again."""
RUNTIME_EVERY_S = 2.0
"""Seconds between two reads of the schedules that change at run time."""
SLOW_S = 30.0
"""Seconds after which a running call of a provider is logged as slow."""


class Poller(Service):
    """Calls one provider function periodically for schedule entries. While it fails, its last entries stay in force.

    Args:
        provider: The provider, with its interval.
        book: Receives the entries.
        source: Number of the provider as a source of the entry book.
    """

    name = "provider"

    def __init__(self, provider: Provider, book: EntryBook, *, source: int) -> None:
        self._provider = provider
        self._book = book
        self._source = source
        self._call = Caller(1, name="a provider")
        self.was_read = False
        """True after the first call of the provider, even if the call failed."""

    async def work(self) -> float:
        """Call the provider once. Return the seconds until the next call."""
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._report_slow)
        try:
            self._book.replace(self._source, _checked(await self._call(self._provider.function)))
        except Exception:
            logger.exception("a provider of periodic tasks failed; the entries that it returned before stay in force")
            return min(self._provider.every_s, AFTER_FAILURE_S)
        finally:
            slow.cancel()
            self.was_read = True
        return self._provider.every_s

    def _report_slow(self) -> None:
        logger.warning(
            "a provider of periodic tasks has not answered for %g s; the entries that it returned before stay in force",
            SLOW_S,
        )

    def close(self) -> None:
        """Let the thread that calls the provider end."""
        self._call.close()


def _checked(provided: Any) -> list[PeriodicTask]:
    tasks = list(provided)
    for task in tasks:
        if not isinstance(task, PeriodicTask):
            raise ConfigurationError(f"a provider must return PeriodicTask objects, got {task!r}")
    return tasks


class RuntimeFollower(Service):
    """Reads the schedules that tools add, pause and remove at run time. While Redis is down, the last state applies.

    Args:
        context: The scheduler.
        source: Number of the run-time schedules as a source of the entry book.
    """

    name = "runtime schedules"

    def __init__(self, context: SchedulerContext, source: int) -> None:
        self._context = context
        self._source = source
        self._last_read: Mapping[str, bytes] = {}
        self.was_read = False
        """True after the first read of the run-time schedules, even if the read failed."""

    async def work(self) -> float:
        """Read the schedules once. Return the seconds until the next call."""
        context = self._context
        try:
            found = await context.runner.run(presence.read_schedules(context.keys.schedules))
            context.outage.answered()
            if found != self._last_read:
                schedules = RuntimeSchedules.of(found)
                context.book.hold(schedules.paused)
                context.book.replace(self._source, schedules.entries(context.app))
                self._last_read = found
        finally:
            self.was_read = True
        return RUNTIME_EVERY_S
