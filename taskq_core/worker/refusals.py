"""Log the task types that a worker does not know: each type once a minute, not each task."""

import logging

from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

EVERY_S = 60.0
"""Least seconds between two warnings of one type."""
TYPES_MAX = 100
"""Most types that are counted separately: a type may contain an id."""
OTHERS = "(others)"
"""Name of all further types."""


class RefusalLog:
    """Warns of task types that this worker has no handler for.

    Args:
        timeout_s: Seconds after which such a task is archived.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._next: dict[str, float] = {}  # monotonic second of the next warning, by type
        self._silent: dict[str, int] = {}  # tasks since the last warning, by type

    def note(self, run: Run, now: float) -> None:
        """Note a task that went back for other workers, at a monotonic second."""
        name = run.name if run.name in self._next or len(self._next) < TYPES_MAX else OTHERS
        if now < self._next.get(name, now):
            self._silent[name] += 1
            return
        since = self._silent.get(name, 0)
        self._next[name], self._silent[name] = now + EVERY_S, 0
        logger.warning(
            "No handler for task type %r on this worker; the task goes back for other workers, and is archived after "
            "%g s without one%s",
            name,
            self._timeout_s,
            f" ({since} more tasks of this type since the last warning)" if since else "",
            extra={"queue": run.queue.name, "task_id": run.task_id, "task_name": run.name},
        )
