"""Objects that the parts of one scheduler share."""

from dataclasses import dataclass

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.clock import Clock, RedisClock
from taskq_core.scheduler.config import SchedulerConfig
from taskq_core.scheduler.entries import EntryBook
from taskq_core.wire import Keys


@dataclass(frozen=True, slots=True)
class SchedulerContext:
    """Application, entries, connections and clocks of one scheduler."""

    app: TaskQ
    config: SchedulerConfig
    book: EntryBook
    """The entries."""
    runner: AsyncRunner
    """Sends operations."""
    clock: Clock
    redis_clock: RedisClock
    """Redis's time."""

    @property
    def keys(self) -> Keys:
        """Key names."""
        return self.app.runtime.keys
