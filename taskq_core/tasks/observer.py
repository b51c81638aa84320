"""Notify an adapter of tasks that were enqueued, and of runs that have ended.

Before a notification, taskq calls `wants_enqueued` or `wants_ended`. They return False while no signal of the framework
has receivers. Notifications then cost nothing. Errors of an observer are logged and have no other effect.
"""

import logging
from collections.abc import Sequence
from typing import Any

from taskq_core.execution.context import TaskContext
from taskq_core.handles.handle import TaskHandle

logger = logging.getLogger("taskq.observer")


class Observer:
    """Base class of observers. It ignores all notifications: override the methods that you need.

    `wants_enqueued` and `wants_ended` are called for every task, so they must be fast.
    """

    def wants_enqueued(self) -> bool:
        """Return whether to call `enqueued` or `aenqueued` for the tasks that are being enqueued."""
        return False

    def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Called in blocking code when tasks are stored in Redis, or when their outbox rows are committed."""

    async def aenqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Called instead of `enqueued` when a coroutine has enqueued the tasks."""
        self.enqueued(handles)

    def wants_ended(self, outcome: str) -> bool:
        """Return whether to call `ended` for runs with an outcome: a value of `TaskContext.outcome`, or "completed"."""
        return False

    def ended(self, context: TaskContext, result: object, error: BaseException | None) -> None:
        """Called in a thread when a run has ended and its outcome is decided."""

    # --- for clients --------------------------------------------------------------------------------------------------

    def notify_enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Call `enqueued` with the handles of new tasks, if there are any. Log its errors."""
        handles = _new(handles)
        if handles:
            try:
                self.enqueued(handles)
            except Exception:
                logger.exception("an observer of enqueued tasks failed")

    async def anotify_enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Call `aenqueued` with the handles of new tasks, if there are any. Log its errors."""
        handles = _new(handles)
        if handles:
            try:
                await self.aenqueued(handles)
            except Exception:
                logger.exception("an observer of enqueued tasks failed")


def _new(handles: Sequence[TaskHandle[Any]]) -> Sequence[TaskHandle[Any]]:
    """Return the handles of tasks that this enqueue created, without those of existing tasks."""
    return [each for each in handles if not each.existing] if any(each.existing for each in handles) else handles
