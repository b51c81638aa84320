"""Callbacks for front ends that run a scheduler."""

from typing import Any

from taskq_core.tasks.periodic import Firing, FiringOutcome


class SchedulerListener:
    """Receives a scheduler's events on its event loop.

    Override the methods that you need. The methods must not block.
    """

    def started(self, scheduler: Any) -> None:
        """Handle the start: the scheduler has connected and begins to look for due firings."""

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        """Handle the outcome of a firing."""
