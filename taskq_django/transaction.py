"""Send tasks when the database transaction around their enqueue has committed.

A task enqueued inside `atomic` is sent once every database whose transaction was open then has committed, and never if
one of them rolls back, to a savepoint or whole. Where no transaction is open it is sent at once. What goes wrong while
sending is logged by Django, and the hooks after it still run.

Django's `TestCase` wraps each test in a transaction that never commits: tasks enqueued there wait like every
`on_commit` hook, until `captureOnCommitCallbacks(execute=True)` runs them, unless that transaction is taken for
committed (`test_cases`). With autocommit turned off by hand there is no commit to be told of, so tasks are sent at
once.
"""

from collections.abc import Callable, Sequence

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from taskq_core.client.commits import Countdown
from taskq_core.errors import BrokerError, BrokerReplicationError, QueueFullError, TaskQError
from taskq_core.warnings import EnqueueInTransactionWarning, warn_caller
from taskq_django.test_cases import AfterCommit, are_committed, is_held_only_by_test_case

_LOST = (
    'The transaction has committed and the task is not sent again. TASKQ = {"ENQUEUE": "outbox"} makes it a row of '
    "the transaction, which a worker sends when Redis takes it."
)


class CommitHook:
    """The core's `TransactionHook` for Django's databases.

    Args:
        is_robust: Whether what goes wrong while sending is logged, as above, rather than raised at the commit.
    """

    def __init__(self, is_robust: Callable[[], bool] = lambda: True) -> None:
        self._is_robust = is_robust

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when all transactions open in this thread have committed; False if none is open."""
        waiting_for = open_transactions()
        if not waiting_for:
            return False
        after_commit(waiting_for, send, robust=self._is_robust())
        return True

    def count_waiting(self) -> int:
        """Return how many sends wait for a commit in this thread."""
        return count_waiting()

    async def adefer(self, send: Callable[[], None]) -> bool:
        """As `defer`, for the transactions of the blocking code around this coroutine.

        They belong to the thread in which `sync_to_async` runs: that of the code which called `async_to_sync`, if any.
        """
        return await sync_to_async(self.defer, thread_sensitive=True)(send)


class ImmediateHook:
    """The core's `TransactionHook` where tasks are sent at once: it warns of those sent from inside a transaction."""

    def defer(self, send: Callable[[], None]) -> bool:
        """Return False. Whether a transaction is open is known in blocking code only."""
        if _owned(_inside_atomic()):
            warn_caller(
                "a task is sent before the transaction around it has committed, as ENQUEUE is 'immediate': a worker "
                "may not find its rows yet, and a rollback does not stop it",
                EnqueueInTransactionWarning,
            )
        return False

    async def adefer(self, send: Callable[[], None]) -> bool:
        """Return False."""
        return False

    def count_waiting(self) -> int:
        """Return 0: nothing waits."""
        return 0


class _Countdown(AfterCommit):
    """Sends at the last of the commits."""

    def __init__(self, commits: int, send: Callable[[], None]) -> None:
        super().__init__()
        self.__qualname__ = "taskq's sending of a task"  # Django names a failed hook in its log by this
        self._countdown = Countdown(commits)
        self._send = send

    def __call__(self) -> None:
        if not self._countdown.is_last():
            return
        try:
            self._send()
        except TaskQError as error:
            cause = error.__cause__
            is_stored = isinstance(cause, BrokerReplicationError)
            if isinstance(error, QueueFullError) or (isinstance(cause, BrokerError) and not is_stored):
                error.add_note(_LOST)
            raise


def after_commit(waiting_for: Sequence[BaseDatabaseWrapper], send: Callable[[], None], *, robust: bool = True) -> None:
    """Call `send` once when all these transactions have committed, never if one rolls back.

    Args:
        waiting_for: Connections inside `atomic`, at least one.
        send: Called in the thread of the last commit.
        robust: Log what it raises; False: raise it there.
    """
    committed = _Countdown(len(waiting_for), send)
    for connection in waiting_for:
        connection.on_commit(committed, robust=robust)


def count_waiting() -> int:
    """Return how many sends wait for a commit in this thread, that of a test case where it is one."""
    waiting = {
        id(hook)
        for connection in connections.all(initialized_only=True)
        for _, hook, *_ in connection.run_on_commit
        if isinstance(hook, AfterCommit) and hook.is_ours == are_committed()
    }
    return len(waiting)


def open_transactions() -> list[BaseDatabaseWrapper]:
    """Return the connections of this thread that are inside `atomic`.

    Those that only a `TestCase` holds open count where there is no other, and then as one: the default database's,
    whose hooks `captureOnCommitCallbacks` captures unless told otherwise. Taken for committed, they do not count.
    """
    opened = _inside_atomic()
    if not opened:
        return opened
    own = _owned(opened)
    if own or are_committed():
        return own
    return [next((each for each in opened if each.alias == DEFAULT_DB_ALIAS), opened[0])]


def _inside_atomic() -> list[BaseDatabaseWrapper]:
    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block]


def _owned(opened: Sequence[BaseDatabaseWrapper]) -> list[BaseDatabaseWrapper]:
    """Return the connections whose `atomic` is not that of a test case alone."""
    return [connection for connection in opened if not is_held_only_by_test_case(connection)]
