"""Provide `capture`, `eager` and `drain` for the project's queue application, also inside Django's `TestCase`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from asgiref.sync import sync_to_async
from django.db import connections

from taskq_core import testing
from taskq_core.settings import Duration
from taskq_core.testing import Captured, TaskRun
from taskq_django.app import taskq
from taskq_django.test_cases import is_inside, taken_for_committed

_UNCOMMITTED = (
    "The worker of drain() has separate database connections, and this test runs in a transaction that they do not see "
    "and that may lock tables. Use @pytest.mark.django_db(transaction=True), or a TransactionTestCase."
)


@contextmanager
def capture(*, as_committed: bool = True) -> Iterator[Captured]:
    """Capture the tasks that are enqueued in a `with` block. They are not sent to Redis and do not run by themselves.

    Args:
        as_committed: Count the transaction that `TestCase` holds around a test as committed. Tasks are then captured
            at once, or at the end of the outermost `atomic` block of the code under test, and never if that block is
            rolled back. If false, they wait like every `on_commit` hook for `captureOnCommitCallbacks(execute=True)`.

    Raises:
        ConfigurationError: fakeredis is not installed; the extra `testing` installs it.
    """
    with taken_for_committed(as_committed), testing.capture(taskq) as tasks:
        yield tasks


@contextmanager
def eager(
    *, retries: bool = False, raises: bool = True, propagates: bool = False, as_committed: bool = True
) -> Iterator[Captured]:
    """Run each task that is enqueued in a `with` block at once, as `taskq_core.testing.eager` does.

    Args:
        retries: Run failed and snoozed tasks again at once, until they succeed or are archived.
        raises: Raise the error of a failed task at the end of the block, unless the block itself raises.
        propagates: Raise the error in the call that enqueues the task, or at the end of the `atomic` block around it.
        as_committed: See `capture`.

    Raises:
        Exception: The last run of a task in the block failed. It is the exception of the first such task.
        ConfigurationError: fakeredis is not installed; the extra `testing` installs it.
    """
    run = testing.eager(taskq, retries=retries, raises=raises, propagates=propagates)
    with taken_for_committed(as_committed), run as tasks:
        yield tasks


def drain(
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker until no task is due, and block until then, as `taskq_core.testing.drain` does.

    Its threads have separate database connections, which do not see uncommitted data of a `TestCase`. If a task fails
    in such a test, its exception has a note about this.
    """
    try:
        return testing.drain(taskq, queues=queues, advance=advance, timeout=timeout, raises=raises)
    except Exception as error:
        if has_own_data():
            error.add_note(_UNCOMMITTED)
        raise


async def adrain(
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker on this event loop until no task is due, as `drain` does."""
    try:
        return await testing.adrain(taskq, queues=queues, advance=advance, timeout=timeout, raises=raises)
    except Exception as error:
        if await sync_to_async(has_own_data, thread_sensitive=True)():
            error.add_note(_UNCOMMITTED)
        raise


def has_own_data() -> bool:
    """Return whether a test holds a transaction around this thread, so that other threads do not see its data."""
    return any(is_inside(connection) for connection in connections.all(initialized_only=True))
