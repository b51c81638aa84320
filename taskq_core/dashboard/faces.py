"""`Dashboard` for blocking code and `AsyncDashboard` for coroutines: each look is written once, as steps."""

from collections.abc import Sequence
from functools import partial

from taskq_core.dashboard.history import DayRow, read_history
from taskq_core.dashboard.queues import QueueDetail, QueuesOverview, read_queue, read_queues
from taskq_core.dashboard.workers import WorkersOverview, read_workers
from taskq_core.inspector import AsyncInspector, Inspector


class Dashboard:
    """What an operator looks at, for blocking code.

    Every method raises a `BrokerError` when the store refuses or does not answer in time. How much it asks of Redis
    goes by the number of queues and workers, never by that of tasks.

    Args:
        inspector: Reads the store.
    """

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    def queues(self) -> QueuesOverview:
        """Return how every queue stands, with its memory, and the sums. A damaged one says so and hides no other."""
        return self._inspector.follow(read_queues)

    def queue(self, name: str, *, days: int = 30) -> QueueDetail:
        """Return one queue in full: how it stands, its past, and which types of tasks are in it.

        Args:
            name: Name of the queue.
            days: Days of its past, 1 to 90.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The number of days is out of bounds.
        """
        return self._inspector.follow(partial(read_queue, name=name, days=days))

    def history(self, names: Sequence[str], *, days: int = 30) -> Sequence[DayRow]:
        """Return what queues did together day by day, the oldest first and today last. Days are UTC.

        Args:
            names: Names of the queues; one that is gone adds nothing.
            days: How many days, 1 to 90.

        Raises:
            ConfigurationError: The number of days is out of bounds.
        """
        return self._inspector.follow(partial(read_history, names=names, days=days))

    def workers(self) -> WorkersOverview:
        """Return the worker processes that live, Go's too, and what they run, as of their last heartbeats."""
        return self._inspector.follow(read_workers)


class AsyncDashboard:
    """What an operator looks at, for coroutines. As `Dashboard`.

    Args:
        inspector: Reads the store.
    """

    def __init__(self, inspector: AsyncInspector) -> None:
        self._inspector = inspector

    async def queues(self) -> QueuesOverview:
        """Return how every queue stands, and the sums. As `Dashboard.queues`."""
        return await self._inspector.follow(read_queues)

    async def queue(self, name: str, *, days: int = 30) -> QueueDetail:
        """Return one queue in full. As `Dashboard.queue`."""
        return await self._inspector.follow(partial(read_queue, name=name, days=days))

    async def history(self, names: Sequence[str], *, days: int = 30) -> Sequence[DayRow]:
        """Return what queues did together day by day. As `Dashboard.history`."""
        return await self._inspector.follow(partial(read_history, names=names, days=days))

    async def workers(self) -> WorkersOverview:
        """Return the worker processes that live, and what they run. As `Dashboard.workers`."""
        return await self._inspector.follow(read_workers)
