"""Callbacks for front ends that run a worker."""

import logging
from collections.abc import Callable
from typing import Any

from taskq_core.execution.context import TaskContext

logger = logging.getLogger("taskq.worker")


class WorkerListener:
    """Receives a worker's events on its event loop. Override the methods that you need. The methods must not block.

    Attributes:
        per_task: Whether to call the methods for single tasks.
    """

    per_task = False

    def started(self, worker: Any) -> None:
        """Handle the start: the worker has connected and begins to fetch."""

    def task_started(self, context: TaskContext) -> None:
        """Handle the start of a task, just before it runs."""

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        """Handle the end of a task: completed, retried, archived, snoozed, discarded, requeued or lost."""


def call_guarded(method: Callable[..., None], *arguments: object) -> None:
    """Call a listener's method and log its error, so that it does not affect tasks."""
    try:
        method(*arguments)
    except BaseException:
        logger.exception("the worker's listener failed")
