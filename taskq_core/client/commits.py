"""Sends that wait for the commit of a database transaction, or for the last of several commits."""

import threading
from collections.abc import Callable
from typing import Protocol

from taskq_core.errors import BrokerError, BrokerReplicationError, QueueFullError, TaskQError

_LOST = (
    "The transaction has committed and the task is not sent again. With the setting ENQUEUE = 'outbox', it is a row of "
    "the transaction, which a worker sends when Redis takes it."
)


class TransactionHook(Protocol):
    """Postpones sending to the commit of a surrounding database transaction."""

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when the transaction commits and return True; return False if none is open."""
        ...

    async def adefer(self, send: Callable[[], None]) -> bool:
        """Postpone a send, from a coroutine. As `defer`; `send` is called in blocking code."""
        ...


class SendAtLastCommit:
    """Sends once, when the last of several transactions has committed. Call it at each commit, from any thread.

    Args:
        commits: Number of transactions, at least 1. If one of them never commits, nothing is sent.
        send: Sends.
    """

    def __init__(self, commits: int, send: Callable[[], None]) -> None:
        self._left = commits
        self._lock = threading.Lock()
        self._send = send

    def __call__(self) -> None:
        """Count a commit, and send at the last one. If sending fails, a note on the error says what is lost."""
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
