"""A place for one worker process: its process, and its successor during a replacement."""

from taskq_core.supervisor.child import Child
from taskq_core.supervisor.config import Pause


class Place:
    """A place for one worker process.

    Attributes:
        number: Its number, from 1.
        current: Its process, None between two.
        successor: The process that starts to replace it.
        replace_reason: Why the process must be replaced, "" if not.
        next_at: Monotonic second before which no process is started.
        pause: The pause after a death.
        is_done: Whether the work is done, in burst mode.
        restarts: Number of processes that died and were replaced.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Child | None = None
        self.successor: Child | None = None
        self.replace_reason = ""
        self.next_at = 0.0
        self.pause = Pause()
        self.is_done = False
        self.restarts = 0
