"""What a front end can be told while a worker runs."""

from typing import Any

from taskq_core.context import TaskContext


class WorkerListener:
    """Told of a worker's life, on its event loop. Override what you need; be quick.

    Attributes:
        per_task: True to be told of each task as well.
    """

    per_task = False

    def started(self, worker: Any) -> None:
        """The worker has connected and begins to fetch."""

    def task_started(self, context: TaskContext) -> None:
        """A task is about to run."""

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        """A task has ended: completed, retried, archived, snoozed, discarded, requeued or lost."""
