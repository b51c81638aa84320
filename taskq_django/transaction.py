"""Send tasks when the database transaction around their enqueue has committed.

A task enqueued inside `atomic` is sent once every database whose transaction was open then has committed, and never if
one of them rolls back, to a savepoint or whole. If no transaction is open, it is sent at once. Django logs errors of
sending, and the hooks after it still run. With autocommit turned off by hand, Django reports no commit, so tasks are
sent at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from taskq_core import TaskQ
from taskq_core.client.sender import SendAtLastCommit
from taskq_core.warnings import EnqueueInTransactionWarning, warn_caller


class CommitHook:
    """Sends tasks after the commit of Django's transactions. Implements the core's `TransactionHook`.

    Args:
        app: The queue application. Its `propagates` decides whether errors of sending are raised or logged.
    """

    def __init__(self, app: TaskQ) -> None:
        self._app = app

    def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Call `send` when all transactions open in this thread have committed; False if none is open."""
        waiting_for = open_transactions()
        if waiting_for:
            after_commit(waiting_for, send, dropped, robust=not self._app.propagates)
        return bool(waiting_for)

    async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """As `defer`, for the transactions of the blocking code around this coroutine.

        They belong to the thread in which `sync_to_async` runs: that of the code which called `async_to_sync`, if any.
        """
        return await sync_to_async(self.defer, thread_sensitive=True)(send, dropped)


class ImmediateHook:
    """Sends tasks at once, and warns if a transaction is open. Implements the core's `TransactionHook`."""

    def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Return False. Warn if a transaction is open."""
        if not all(map(is_held_only_by_test_case, open_transactions())):
            warn_caller(
                "a task is sent before its transaction commits, because ENQUEUE is 'immediate': a worker may run it "
                "before it can read the rows of the transaction, and a rollback does not stop it",
                EnqueueInTransactionWarning,
            )
        return False

    async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Return False. Only blocking code can be inside a transaction."""
        return False


def after_commit(
    waiting_for: Sequence[BaseDatabaseWrapper],
    send: Callable[[], None],
    dropped: Callable[[], None],
    *,
    robust: bool = True,
) -> None:
    """Call `send` once when all these transactions have committed. If one rolls back, call `dropped` instead.

    Args:
        waiting_for: Connections inside `atomic`, at least one.
        send: Called in the thread of the last commit.
        dropped: Called when Django has removed the hooks of a transaction that was rolled back.
        robust: Log an error of `send`. If false, raise it.
    """
    hook: Any = SendAtLastCommit(len(waiting_for), send, dropped)
    hook.__qualname__ = "taskq's sending of a task"  # the name in Django's log if the hook fails
    for connection in waiting_for:
        connection.on_commit(hook, robust=robust)


def open_transactions() -> list[BaseDatabaseWrapper]:
    """Return the connections of this thread that are inside `atomic`. In tests, `test_cases` replaces this function."""
    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block]


def is_held_only_by_test_case(connection: BaseDatabaseWrapper) -> bool:
    """Return whether Django's `TestCase` opened all `atomic` blocks of the connection."""
    blocks: Sequence[Any] = connection.atomic_blocks
    return all(block._from_testcase for block in blocks)
