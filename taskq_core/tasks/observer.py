"""What an adapter may be told of: tasks that were enqueued, and runs that have ended.

It is asked first whether it wants to be told, so that telling costs nothing while nobody listens. What it raises is
logged and changes nothing.
"""

import logging
from collections.abc import Sequence
from typing import Any

from taskq_core.execution.context import TaskContext
from taskq_core.handles.handle import TaskHandle

logger = logging.getLogger("taskq.observer")


class Observer:
    """Base that wants to be told of nothing. Override what you need; the two questions must be quick."""

    def wants_enqueued(self) -> bool:
        """Whether it wants to be told of tasks that are enqueued now."""
        return False

    def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Tasks are stored in Redis, or their rows in a committed outbox. Called in blocking code."""

    async def aenqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """As `enqueued`, from a coroutine that enqueued them."""
        self.enqueued(handles)

    def wants_ended(self, outcome: str) -> bool:
        """Whether it wants to be told of runs that end so: an outcome as in `TaskContext.outcome`, or "completed"."""
        return False

    def ended(self, context: TaskContext, result: object, error: BaseException | None) -> None:
        """A run has ended, and its outcome is decided. Called in a thread."""

    # --- for those who tell -------------------------------------------------------------------------------------------

    def tell_enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Tell of tasks that were enqueued, if it wants to know and there are any."""
        handles = _new(handles)
        if handles:
            try:
                self.enqueued(handles)
            except Exception:
                logger.exception("what was to be told of enqueued tasks failed")

    async def atell_enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """As `tell_enqueued`, from a coroutine."""
        handles = _new(handles)
        if handles:
            try:
                await self.aenqueued(handles)
            except Exception:
                logger.exception("what was to be told of enqueued tasks failed")


def _new(handles: Sequence[TaskHandle[Any]]) -> Sequence[TaskHandle[Any]]:
    """Leave out tasks that were there before, of which nothing was enqueued."""
    return [each for each in handles if not each.existing] if any(each.existing for each in handles) else handles
