"""Sending that waits for database transactions: what an adapter tells a client, and which commit is the last."""

import threading
from collections.abc import Callable
from typing import Protocol


class TransactionHook(Protocol):
    """Postpones sending to the commit of a surrounding database transaction."""

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when the transaction commits and return True; return False if none is open."""
        ...

    async def adefer(self, send: Callable[[], None]) -> bool:
        """As `defer`, asked from a coroutine. `send` is called in blocking code."""
        ...

    def count_waiting(self) -> int:
        """Return how many sends wait for a commit in this thread."""
        ...


class Countdown:
    """Tells which of several commits, perhaps in several threads, is the last.

    Args:
        commits: How many there are, at least 1. Where one never comes, none is the last.
    """

    def __init__(self, commits: int) -> None:
        self._left = commits
        self._lock = threading.Lock()

    def is_last(self) -> bool:
        """Count one commit; True if it was the last."""
        with self._lock:
            self._left -= 1
            return self._left == 0
