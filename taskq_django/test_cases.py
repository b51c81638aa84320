"""Send tasks in Django's `TestCase`, whose transaction around each test never commits. Imported in tests only.

By default, tasks enqueued in the test wait like every `on_commit` hook until `captureOnCommitCallbacks(execute=True)`
runs them. A test can instead count this transaction as committed. Then a task is sent at once, or at the end of the
outermost `atomic` block of the code under test, and never if that block is rolled back, as in production.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic, get_connection

from taskq_core.client.sender import SendAtLastCommit
from taskq_django import transaction
from taskq_django.transaction import is_held_only_by_test_case

logger = logging.getLogger("taskq.django")


class _Choice:
    by_default = False
    in_block: bool | None = None
    waiting_before: tuple[SendAtLastCommit, ...] = ()
    """Commit hooks that were registered before the block began. The block does not call them."""


_choice = _Choice()  # shared by all threads, because it also applies to those of a live server


def are_committed() -> bool:
    """Return whether the transactions of test cases count as committed."""
    return _choice.by_default if _choice.in_block is None else _choice.in_block


def take_for_committed(by_default: bool) -> None:
    """Set whether transactions of test cases count as committed in code outside of `taken_for_committed`."""
    watch()
    _choice.by_default = by_default


@contextmanager
def taken_for_committed(are_committed: bool) -> Iterator[None]:
    """Set whether the transactions of test cases count as committed in a `with` block."""
    watch()
    before = _choice.in_block, _choice.waiting_before
    _choice.in_block, _choice.waiting_before = are_committed, tuple(_waiting())
    try:
        yield
    finally:
        _choice.in_block, _choice.waiting_before = before


def watch() -> None:
    """Start to observe the ends of `atomic` blocks. Blocks that are already open are not observed.

    Django does not report the end of a block inside another one, so `Atomic.__exit__` is wrapped.
    """
    transaction.open_transactions = _open_transactions
    if Atomic.__exit__ is not _exit:
        _wrapped.append(Atomic.__exit__)
        Atomic.__exit__ = _exit  # type: ignore[method-assign]  # see above


def waiting_note() -> str:
    """Return a sentence about tasks of this thread that wait for a commit, or "". For errors of tests."""
    count = len({*_waiting()} - {*_choice.waiting_before})
    if not count:
        return ""
    note = f"{count} more wait for the commit of the transaction around them"
    if are_committed():
        return f"{note}: check after the `atomic` block has ended"
    return f"{note}, which Django's TestCase never commits: use captureOnCommitCallbacks(execute=True)"


def is_inside(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a test case opened the outermost `atomic` block of the connection."""
    return bool(connection.atomic_blocks) and getattr(connection.atomic_blocks[0], "_from_testcase", False)


_all_open = transaction.open_transactions


def _open_transactions() -> list[BaseDatabaseWrapper]:
    """Return the connections inside `atomic`. Replaces `transaction.open_transactions` in tests.

    Connections that only a `TestCase` holds open are left out if the code under test opened others, or if they count as
    committed. Otherwise one of them is returned: that of the default database, whose hooks `captureOnCommitCallbacks`
    runs by default.
    """
    opened = _all_open()
    own = [connection for connection in opened if not is_held_only_by_test_case(connection)]
    if own or are_committed() or not opened:
        return own
    return [next((each for each in opened if each.alias == DEFAULT_DB_ALIAS), opened[0])]


def _waiting() -> Iterator[SendAtLastCommit]:
    for connection in connections.all(initialized_only=True):
        yield from (hook for _, hook, *_ in connection.run_on_commit if isinstance(hook, SendAtLastCommit))


_wrapped: list[Callable[..., Any]] = []


def _exit(self: Atomic, *error: Any) -> None:
    _wrapped[-1](self, *error)
    connection = get_connection(self.using)
    is_inside_test = connection.atomic_blocks and is_held_only_by_test_case(connection)
    if are_committed() and is_inside_test and not connection.needs_rollback:
        _call_waiting(connection)


def _call_waiting(connection: BaseDatabaseWrapper) -> None:
    """Run taskq's hooks that wait for the commit of a connection. Do not run hooks of other libraries."""
    entries: list[Any] = connection.run_on_commit
    ours = [
        entry for entry in entries if isinstance(entry[1], SendAtLastCommit) and entry[1] not in _choice.waiting_before
    ]
    connection.run_on_commit = [entry for entry in entries if entry not in ours]
    for _, call, is_robust in ours:
        try:
            call()
        except Exception:
            if not is_robust:
                raise
            logger.exception("%s failed at the end of an atomic block", getattr(call, "__qualname__", call))
