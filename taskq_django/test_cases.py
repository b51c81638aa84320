"""Support for Django's `TestCase`, whose transaction around each test never commits. Imported in tests only.

Tasks enqueued in it wait like every `on_commit` hook, until `captureOnCommitCallbacks(execute=True)` runs them, unless
the test says that this transaction is to be taken for committed. Then a task enqueued in it is sent at once, and one
enqueued in an `atomic` block of the code under test at the end of that block, or never if it is rolled back: as in
production, where the outermost `atomic` commits.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic, get_connection

from taskq_core.client.commits import SendAtLastCommit
from taskq_django import transaction
from taskq_django.transaction import is_held_only_by_test_case

logger = logging.getLogger("taskq.django")


class _Choice:
    by_default = False
    in_block: bool | None = None
    waiting_before: tuple[SendAtLastCommit, ...] = ()
    """Hooks that waited when the block began, which is not to call them."""


_choice = _Choice()  # of the whole process: the threads of a live server belong to the test, too


def are_committed() -> bool:
    """Whether the transactions of test cases are taken for committed."""
    return _choice.by_default if _choice.in_block is None else _choice.in_block


def take_for_committed(by_default: bool) -> None:
    """Set what holds outside of `taken_for_committed`."""
    watch()
    _choice.by_default = by_default


@contextmanager
def taken_for_committed(are_committed: bool) -> Iterator[None]:
    """Set what holds in a `with` block."""
    watch()
    before = _choice.in_block, _choice.waiting_before
    _choice.in_block, _choice.waiting_before = are_committed, tuple(_waiting())
    try:
        yield
    finally:
        _choice.in_block, _choice.waiting_before = before


def watch() -> None:
    """Follow the ends of `atomic` blocks from now on. Blocks that are already open are not seen.

    Django does not report when a block inside another one ends, so the exit of `atomic` is wrapped.
    """
    transaction.open_transactions = _open_transactions
    if Atomic.__exit__ is not _exit:
        _wrapped.append(Atomic.__exit__)
        Atomic.__exit__ = _exit  # type: ignore[method-assign]  # see above


def waiting_note() -> str:
    """Return a sentence on the sends that wait for a commit in this thread, or "". For errors of tests."""
    count = len({*_waiting()} - {*_choice.waiting_before})
    if not count:
        return ""
    note = f"{count} more wait for the commit of the transaction around them"
    if are_committed():
        return f"{note}: look after the `atomic` block has ended"
    return f"{note}, and Django's TestCase makes none: use captureOnCommitCallbacks(execute=True)"


def is_inside(connection: BaseDatabaseWrapper) -> bool:
    """Whether a test case holds a transaction open, whatever other blocks there are in it."""
    return bool(connection.atomic_blocks) and getattr(connection.atomic_blocks[0], "_from_testcase", False)


_all_open = transaction.open_transactions


def _open_transactions() -> list[BaseDatabaseWrapper]:
    """Return the connections that are inside `atomic`.

    Those that only a `TestCase` holds open count if they are all there are, and then as one: the default database's,
    whose hooks `captureOnCommitCallbacks` captures by default. Taken for committed, they do not count.
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
    """Call our hooks that wait for the commit, as Django would at it. Hooks of others are the test's to run."""
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
