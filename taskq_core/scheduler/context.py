"""Objects that the parts of one scheduler share."""

from msgspec import Struct

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.clock import Clock, RedisClock
from taskq_core.scheduler.config import SchedulerConfig
from taskq_core.scheduler.entries import EntryBook
from taskq_core.service.outage import Outage
from taskq_core.wire import Keys


class SchedulerContext(Struct, frozen=True):
    """The application, schedule entries, connections and clocks that the parts of one scheduler share."""

    app: TaskQ
    config: SchedulerConfig
    book: EntryBook
    """The schedule entries of all sources: code, providers, tables and run time."""
    runner: AsyncRunner
    """Sends operations to Redis."""
    clock: Clock
    redis_clock: RedisClock
    """Estimates the current time of Redis's clock."""
    outage: Outage
    """Logs when Redis is unavailable, and when it answers again."""

    @property
    def keys(self) -> Keys:
        """Key names of the installation."""
        return self.app.runtime.keys
