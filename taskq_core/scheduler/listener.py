"""What a front end can be told while a scheduler runs."""

from typing import Any

from taskq_core.tasks.periodic import Firing, FiringOutcome


class SchedulerListener:
    """Told of a scheduler's life, on its event loop. Override what you need; be quick."""

    def started(self, scheduler: Any) -> None:
        """The scheduler has connected and begins to look for what is due."""

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        """An entry has fired."""
