"""Notify an adapter of tasks that were enqueued, and of runs that have ended.

The observer is first asked whether it wants the notification, so that it costs nothing while no signal has receivers.
Errors of an observer are logged, and change nothing.
"""

import logging
from collections.abc import Sequence
from typing import Any

from taskq_core.execution.context import TaskContext
from taskq_core.handles.handle import TaskHandle

logger = logging.getLogger("taskq.observer")


class Observer:
    """Base class that wants no notification. Override the methods that you need. The two questions must be fast."""

    def wants_enqueued(self) -> bool:
        """Whether it wants notifications of tasks that are enqueued now."""
        return False

    def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Receive tasks that are stored in Redis, or whose rows in an outbox are committed. Called in blocking code."""

    async def aenqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Receive tasks that a coroutine has enqueued. As `enqueued`."""
        self.enqueued(handles)

    def wants_ended(self, outcome: str) -> bool:
        """Whether it wants notifications of runs with this outcome: one of `TaskContext.outcome`, or "completed"."""
        return False

    def ended(self, context: TaskContext, result: object, error: BaseException | None) -> None:
        """Receive a run that has ended and whose outcome is decided. Called in a thread."""

    # --- for clients --------------------------------------------------------------------------------------------------

    def notify_enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Call `enqueued` for new tasks, if there are any. Errors are logged."""
        handles = _new(handles)
        if handles:
            try:
                self.enqueued(handles)
            except Exception:
                logger.exception("an observer of enqueued tasks failed")

    async def anotify_enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Call `aenqueued`. As `notify_enqueued`, from a coroutine."""
        handles = _new(handles)
        if handles:
            try:
                await self.aenqueued(handles)
            except Exception:
                logger.exception("an observer of enqueued tasks failed")


def _new(handles: Sequence[TaskHandle[Any]]) -> Sequence[TaskHandle[Any]]:
    """Return the handles without those of tasks that existed before."""
    return [each for each in handles if not each.existing] if any(each.existing for each in handles) else handles
