"""Follow the schedules that are added, paused and removed at run time."""

from collections.abc import Mapping

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import presence
from taskq_core.scheduler.entries import EntryBook
from taskq_core.scheduler.runtime_schedules import RuntimeSchedules
from taskq_core.service.loop import Service

EVERY_S = 2.0
"""Seconds between two reads."""


class RuntimeFollower(Service):
    """Reads the hash of runtime schedules and applies changes. While Redis is down, the last state applies.

    Args:
        app: The queue application.
        book: Takes the entries.
        runner: Sends operations.
        source: Number of this source in the book.
    """

    name = "runtime schedules"

    def __init__(self, app: TaskQ, book: EntryBook, runner: AsyncRunner, *, source: int) -> None:
        self._app = app
        self._book = book
        self._runner = runner
        self._source = source
        self._seen: Mapping[str, bytes] = {}
        self.was_asked = False
        """True after the first read of the hash, even if it failed."""

    async def work(self) -> float:
        """Read once; return the seconds until the next time."""
        try:
            found = await self._runner.run(presence.read_schedules(self._app.runtime.keys.schedules))
            if found != self._seen:
                schedules = RuntimeSchedules.of(found)
                self._book.hold(schedules.paused)
                self._book.replace(self._source, schedules.entries(self._app))
                self._seen = found
        finally:
            self.was_asked = True
        return EVERY_S
