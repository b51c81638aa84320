"""Send tasks when the database transaction around their enqueue has committed.

A task enqueued inside `atomic` is sent once every database whose transaction was open then has committed, and never if
one of them rolls back, to a savepoint or whole. Where no transaction is open it is sent at once. What goes wrong while
sending is logged by Django, and the hooks after it still run.

Django's `TestCase` wraps each test in a transaction that never commits: tasks enqueued there wait like every
`on_commit` hook, until `captureOnCommitCallbacks(execute=True)` runs them. With autocommit turned off by hand there is
no commit to be told of, so tasks are sent at once.
"""

import threading
from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper


class CommitHook:
    """The core's `TransactionHook` for Django's databases."""

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when all transactions open in this thread have committed; False if none is open."""
        waiting_for = open_transactions()
        if not waiting_for:
            return False
        committed = _Countdown(len(waiting_for), send)
        for connection in waiting_for:
            connection.on_commit(committed, robust=True)
        return True

    def count_waiting(self) -> int:
        """Return how many sends wait for a commit in this thread."""
        waiting = {
            id(hook)
            for connection in connections.all(initialized_only=True)
            for _, hook, *_ in connection.run_on_commit
            if isinstance(hook, _Countdown)
        }
        return len(waiting)

    async def adefer(self, send: Callable[[], None]) -> bool:
        """As `defer`, for the transactions of the blocking code around this coroutine.

        They belong to the thread in which `sync_to_async` runs: that of the code which called `async_to_sync`, if any.
        """
        return await sync_to_async(self.defer, thread_sensitive=True)(send)


class _Countdown:
    """Sends at the last of the commits."""

    def __init__(self, commits: int, send: Callable[[], None]) -> None:
        self.__qualname__ = "taskq's sending of a task"  # Django names a failed hook in its log by this
        self._left = commits
        self._send = send
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._send()


def open_transactions() -> list[BaseDatabaseWrapper]:
    """Return the connections of this thread that are inside `atomic`.

    Those that only a `TestCase` holds open count where there is no other, and then as one: the default database's,
    whose hooks `captureOnCommitCallbacks` captures unless told otherwise.
    """
    opened = [each for each in connections.all(initialized_only=True) if each.in_atomic_block]
    if not opened:
        return []
    own = [connection for connection in opened if not _is_held_by_test_case(connection)]
    if own:
        return own
    return [next((each for each in opened if each.alias == DEFAULT_DB_ALIAS), opened[0])]


def _is_held_by_test_case(connection: BaseDatabaseWrapper) -> bool:
    blocks = getattr(connection, "atomic_blocks", ())
    return bool(blocks) and all(getattr(block, "_from_testcase", False) for block in blocks)
