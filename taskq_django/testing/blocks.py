"""`capture`, `eager` and `drain` for the project's queue application, and for what Django's `TestCase` does to it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from taskq_core import testing
from taskq_core.settings import Duration
from taskq_core.testing import Captured, TaskRun
from taskq_django.app import taskq
from taskq_django.test_cases import taken_for_committed


@contextmanager
def capture(*, as_committed: bool = True) -> Iterator[Captured]:
    """Capture what is enqueued in a `with` block: nothing is sent to Redis, nothing runs by itself.

    Args:
        as_committed: Take the transaction that `TestCase` holds around a test for committed: tasks enqueued in it are
            captured at once, and those enqueued in an `atomic` block of the code under test at the end of that block,
            or never if it is rolled back. False: they wait, as every `on_commit` hook does, for
            `captureOnCommitCallbacks(execute=True)`.

    Raises:
        ConfigurationError: fakeredis is not installed; the extra `testing` brings it.
    """
    with taken_for_committed(as_committed), testing.capture(taskq) as tasks:
        yield tasks


@contextmanager
def eager(
    *, retries: bool = False, raises: bool = True, propagates: bool = False, as_committed: bool = True
) -> Iterator[Captured]:
    """Run each task that is enqueued in a `with` block at once. As `taskq_core.testing.eager`.

    Args:
        retries: Run again at once what failed or was snoozed, until it succeeds or is archived.
        raises: Raise at the end of the block what tasks failed with, unless the block itself raises.
        propagates: Raise it where the task is enqueued, or where the `atomic` block around that ends, instead.
        as_committed: As `capture`.

    Raises:
        Exception: The last run of a task in the block failed. It is the exception of the first such task.
        ConfigurationError: fakeredis is not installed; the extra `testing` brings it.
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
    """Run a worker until nothing is due any more, blocking. As `taskq_core.testing.drain`.

    Its threads have separate database connections, which do not see uncommitted data of a `TestCase`.
    """
    return testing.drain(taskq, queues=queues, advance=advance, timeout=timeout, raises=raises)


async def adrain(
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker on this event loop until nothing is due any more. As `drain`, for coroutines."""
    return await testing.adrain(taskq, queues=queues, advance=advance, timeout=timeout, raises=raises)
