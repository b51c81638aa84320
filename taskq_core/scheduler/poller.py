"""Ask a provider which periodic tasks there are, and apply what has changed."""

import logging
from typing import Any

from taskq_core.errors import ConfigurationError
from taskq_core.periodic import PeriodicTask, Provider
from taskq_core.scheduler.calls import call
from taskq_core.scheduler.entries import EntryBook

logger = logging.getLogger("taskq.scheduler")

AFTER_FAILURE_S = 30.0
"""Most seconds until a provider that failed is asked again."""


class Poller:
    """Asks one provider again and again. While it fails, what it returned last stays.

    Args:
        provider: Whom to ask, and how often.
        book: Takes the entries.
        source: Number of the provider in the book.
    """

    def __init__(self, provider: Provider, book: EntryBook, *, source: int) -> None:
        self._provider = provider
        self._book = book
        self._source = source
        self.was_asked = False
        """True once the provider has answered or failed."""

    async def work(self) -> float:
        """Ask once; return the seconds until the next time."""
        try:
            self._book.replace(self._source, _checked(await call(self._provider.function)))
        except Exception:
            logger.exception("a provider of periodic tasks failed; the entries it returned before stay")
            return min(self._provider.every_s, AFTER_FAILURE_S)
        finally:
            self.was_asked = True
        return self._provider.every_s


def _checked(provided: Any) -> list[PeriodicTask]:
    tasks = list(provided)
    for task in tasks:
        if not isinstance(task, PeriodicTask):
            raise ConfigurationError(f"a provider must return PeriodicTask objects, got {task!r}")
    return tasks
