"""Read the running worker processes and their tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from taskq_core.broker.operations import diagnosis
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.inspector import WorkerProcess
from taskq_core.inspector.presence import servers
from taskq_core.wire import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersOverview:
    """All running worker processes, by host and process id.

    Attributes:
        workers: The processes.
        as_of: Time of the reading, by Redis's clock.
    """

    workers: Sequence[WorkerProcess]
    as_of: datetime

    @property
    def running(self) -> int:
        """Number of running tasks."""
        return sum(len(each.running) for each in self.workers)

    @property
    def concurrency(self) -> int:
        """Maximum number of tasks that all workers together run at the same time."""
        return sum(each.concurrency for each in self.workers)


def read_workers(keys: Keys) -> RequestPlan[WorkersOverview]:
    """Return the running worker processes, including Go's, and their tasks, as of their last heartbeats."""
    now = utc_datetime((yield from ask(diagnosis.read_time())))
    return WorkersOverview(workers=(yield from servers(keys)), as_of=now)
