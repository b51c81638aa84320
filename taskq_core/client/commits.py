"""Postpone the send of tasks to the commit of a database transaction, or to the last of several commits."""

import threading
from collections.abc import Callable
from typing import Protocol

from taskq_core.errors import BrokerError, BrokerReplicationError, QueueFullError, TaskQError

_LOST = (
    "The transaction has committed, but the task was not sent and will not be sent again. With the setting "
    "ENQUEUE = 'outbox', the task is a row of the transaction, and a worker sends it when Redis is available again."
)


class TransactionHook(Protocol):
    """Postpones sending to the commit of a surrounding database transaction."""

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when the open transaction commits, and return True. Return False if no transaction is open."""
        ...

    async def adefer(self, send: Callable[[], None]) -> bool:
        """Postpone a send from a coroutine, as `defer` does. `send` is called in blocking code."""
        ...


class SendAtLastCommit:
    """Calls `send` once, after the last of several transactions has committed. Call this object at each commit.

    Safe to call from any thread.

    Args:
        commits: Number of transactions, at least 1. If one of them never commits, nothing is sent.
        send: The function to call.
    """

    def __init__(self, commits: int, send: Callable[[], None]) -> None:
        self._left = commits
        self._lock = threading.Lock()
        self._send = send

    def __call__(self) -> None:
        """Count a commit, and send at the last one. Add a note to the error of a failed send that the task is lost."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        try:
            self._send()
        except TaskQError as error:
            cause = error.__cause__
            is_stored = isinstance(cause, BrokerReplicationError)
            if isinstance(error, QueueFullError) or (isinstance(cause, BrokerError) and not is_stored):
                error.add_note(_LOST)
            raise
