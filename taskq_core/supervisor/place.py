"""A place for one process among those of a supervisor: who has it, and who is to have it next."""

from taskq_core.supervisor.child import Child
from taskq_core.supervisor.config import Pause


class Place:
    """One of the places for processes.

    Attributes:
        number: From 1.
        current: Who has it, None between two.
        successor: Who is being started to take it over.
        wants: Why the current one is to be replaced, "" if it is not.
        next_at: Monotonic second before which no process is started here.
        pause: How long a place stays empty.
        is_done: Whether the work here is done, in burst mode.
        restarts: Processes that were followed by another one because they died.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Child | None = None
        self.successor: Child | None = None
        self.wants = ""
        self.next_at = 0.0
        self.pause = Pause()
        self.is_done = False
        self.restarts = 0
