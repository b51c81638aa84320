"""Ask a provider which periodic tasks there are, and apply what has changed."""

import asyncio
import logging
from typing import Any

from taskq_core.errors import ConfigurationError
from taskq_core.scheduler.entries import EntryBook
from taskq_core.service.calls import Caller
from taskq_core.service.loop import Service
from taskq_core.tasks.periodic import PeriodicTask, Provider

logger = logging.getLogger("taskq.scheduler")

AFTER_FAILURE_S = 30.0
"""Most seconds until a provider that failed is asked again."""
SLOW_S = 30.0
"""Seconds after which a call that has not ended is reported."""


class Poller(Service):
    """Asks one provider again and again. While it fails, what it returned last stays.

    Args:
        provider: Whom to ask, and how often.
        book: Takes the entries.
        source: Number of the provider in the book.
    """

    name = "provider"

    def __init__(self, provider: Provider, book: EntryBook, *, source: int) -> None:
        self._provider = provider
        self._book = book
        self._source = source
        self._call = Caller(1, name="a provider")
        self.was_asked = False
        """True once the provider has answered or failed."""

    async def work(self) -> float:
        """Ask once; return the seconds until the next time."""
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._report_slow)
        try:
            self._book.replace(self._source, _checked(await self._call(self._provider.function)))
        except Exception:
            logger.exception("a provider of periodic tasks failed; the entries it returned before stay")
            return min(self._provider.every_s, AFTER_FAILURE_S)
        finally:
            slow.cancel()
            self.was_asked = True
        return self._provider.every_s

    def _report_slow(self) -> None:
        logger.warning(
            "a provider of periodic tasks has not answered for %g s; the entries it returned before stay", SLOW_S
        )

    def close(self) -> None:
        """Let its thread end."""
        self._call.close()


def _checked(provided: Any) -> list[PeriodicTask]:
    tasks = list(provided)
    for task in tasks:
        if not isinstance(task, PeriodicTask):
            raise ConfigurationError(f"a provider must return PeriodicTask objects, got {task!r}")
    return tasks
