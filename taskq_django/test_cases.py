"""Django's `TestCase`, whose transaction around each test never commits.

What waits for a commit there waits in vain, unless the test says that this transaction is to be taken for committed.
Then a task enqueued in it is sent at once, and one enqueued in an `atomic` block of the code under test at the end of
that block, or never if it is rolled back: as in production, where the outermost `atomic` commits.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic, get_connection

logger = logging.getLogger("taskq.django")


def are_tests_running() -> bool:
    """Return whether Django's test runner, or pytest-django, has prepared this process for tests."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)  # where Django records it
    return hasattr(state, "saved_data")


class AfterCommit:
    """What Django calls at a commit, and what we call where a `TestCase` keeps Django from it.

    Attributes:
        is_ours: Whether we may call it: transactions of test cases were taken for committed when it began to wait.
    """

    def __init__(self) -> None:
        self.is_ours = are_committed()

    def __call__(self) -> None:
        """Do it."""
        raise NotImplementedError


class _Choice:
    by_default = False
    in_block: bool | None = None


_choice = _Choice()  # of the whole process: the threads of a live server belong to the test, too


def are_committed() -> bool:
    """Whether the transactions of test cases are taken for committed."""
    return _choice.by_default if _choice.in_block is None else _choice.in_block


def take_for_committed(by_default: bool) -> None:
    """Say what holds outside of `taken_for_committed`."""
    if by_default:
        watch()
    _choice.by_default = by_default


@contextmanager
def taken_for_committed(are_committed: bool) -> Iterator[None]:
    """Say what holds in a `with` block."""
    if are_committed:
        watch()
    before, _choice.in_block = _choice.in_block, are_committed
    try:
        yield
    finally:
        _choice.in_block = before


def watch() -> None:
    """See the ends of `atomic` blocks from now on; those that are open already are not seen.

    Django tells nobody when a block ends inside another, so the exit of `atomic` is followed, in tests alone.
    """
    if Atomic.__exit__ is not _exit:
        _followed.append(Atomic.__exit__)
        Atomic.__exit__ = _exit  # type: ignore[method-assign]  # see above


def is_inside(connection: BaseDatabaseWrapper) -> bool:
    """Whether a test case holds a transaction open, whatever other blocks there are in it."""
    blocks: Sequence[Any] = getattr(connection, "atomic_blocks", ())
    return bool(blocks) and getattr(blocks[0], "_from_testcase", False)


def is_held_only_by_test_case(connection: BaseDatabaseWrapper) -> bool:
    """Whether no block but those of a test case is open."""
    blocks: Sequence[Any] = getattr(connection, "atomic_blocks", ())
    return bool(blocks) and all(getattr(block, "_from_testcase", False) for block in blocks)


_followed: list[Callable[..., Any]] = []


def _exit(self: Atomic, *error: Any) -> None:
    _followed[-1](self, *error)
    connection = get_connection(self.using)
    if are_committed() and is_held_only_by_test_case(connection) and not connection.needs_rollback:
        _call_waiting(connection)


def _call_waiting(connection: BaseDatabaseWrapper) -> None:
    """Call what of ours waits for the commit, as Django would at it; hooks of others are the test's to run."""
    entries: list[Any] = connection.run_on_commit
    waiting = [entry for entry in entries if isinstance(entry[1], AfterCommit) and entry[1].is_ours]
    connection.run_on_commit = [entry for entry in entries if entry not in waiting]
    for _, call, is_robust in waiting:
        try:
            call()
        except Exception:
            if not is_robust:
                raise
            logger.exception("%s failed at the end of an atomic block", getattr(call, "__qualname__", call))
