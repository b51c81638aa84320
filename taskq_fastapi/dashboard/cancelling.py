"""Which running tasks somebody has asked to be cancelled: Redis keeps no note of that, so the dashboard does.

It is known in the process that was asked, for as long as a worker may reasonably take to end a task.
"""

import time

KEPT_S = 60.0
MOST = 10_000


class Cancelling:
    """Tasks whose workers were asked to cancel them a moment ago."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def add(self, queue: str, task_id: str) -> None:
        """Note that a worker was asked to cancel a task."""
        now = time.monotonic()
        if len(self._until) >= MOST:
            self._until = {key: until for key, until in self._until.items() if until > now}
            if len(self._until) >= MOST:
                self._until.clear()
        self._until[queue, task_id] = now + KEPT_S

    def has(self, queue: str, task_id: str) -> bool:
        """Return whether that was a moment ago."""
        return self._until.get((queue, task_id), 0.0) > time.monotonic()
