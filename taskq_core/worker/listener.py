"""What a front end can be told while a worker runs."""

import logging
from collections.abc import Callable
from typing import Any

from taskq_core.execution.context import TaskContext

logger = logging.getLogger("taskq.worker")


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


class GuardedListener(WorkerListener):
    """Passes on to another listener, whose errors are logged and harm no task."""

    def __init__(self, listener: WorkerListener) -> None:
        self._listener = listener
        self.per_task = listener.per_task

    def started(self, worker: Any) -> None:
        """Pass on."""
        self._tell(self._listener.started, worker)

    def task_started(self, context: TaskContext) -> None:
        """Pass on."""
        self._tell(self._listener.task_started, context)

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        """Pass on."""
        self._tell(self._listener.task_ended, context, outcome, duration_s, error)

    def _tell(self, method: Callable[..., None], *told: object) -> None:
        try:
            method(*told)
        except BaseException:
            logger.exception("the worker's listener failed")
