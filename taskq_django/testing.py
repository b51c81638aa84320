"""What tests of a Django project need: `taskq_core.testing` for the project's queue application.

A task enqueued inside a transaction is captured, or run, when the transaction commits. `TestCase` never commits the one
around each test, so let its hooks run by themselves::

    class SignupTest(TestCase):
        def test_a_mail_is_sent(self) -> None:
            with capture() as tasks, self.captureOnCommitCallbacks(execute=True):
                self.client.post("/signup/", {"email": "a@b.c"})
            tasks.assert_enqueued(send_welcome)

`TransactionTestCase` commits as production does. Tasks that run inside the test, by `eager` and `Captured.run`, use its
database connections; a worker's threads, in `drain`, have their own and see only what is committed.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager

from taskq_core import testing
from taskq_core.settings import Duration
from taskq_core.testing import Captured, EnqueuedTask, TaskRun
from taskq_django.app import taskq

__all__ = ["Captured", "EnqueuedTask", "TaskRun", "adrain", "capture", "drain", "eager"]


def capture() -> AbstractContextManager[Captured]:
    """Capture what is enqueued in a `with` block. As `taskq_core.testing.capture`."""
    return testing.capture(taskq)


def eager(*, retries: bool = False, raises: bool = True) -> AbstractContextManager[Captured]:
    """Run each task that is enqueued in a `with` block at once. As `taskq_core.testing.eager`."""
    return testing.eager(taskq, retries=retries, raises=raises)


def drain(
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker until nothing is due any more, blocking. As `taskq_core.testing.drain`."""
    return testing.drain(taskq, queues=queues, advance=advance, timeout=timeout, raises=raises)


async def adrain(
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker on this event loop until nothing is due any more. As `taskq_core.testing.adrain`."""
    return await testing.adrain(taskq, queues=queues, advance=advance, timeout=timeout, raises=raises)
