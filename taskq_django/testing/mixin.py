"""`TaskQTestMixin`: each test of a class captures what it enqueues."""

import unittest
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import connections

from taskq_core.settings import Duration
from taskq_core.testing import Captured, EnqueuedTask, TaskRun
from taskq_core.testing.records import TaskLike
from taskq_django.test_cases import is_inside
from taskq_django.testing import blocks

__unittest = True  # an assertion that fails is shown where the test makes it

if TYPE_CHECKING:
    _Base = unittest.TestCase
else:
    _Base = object  # a user's own base class with tests and without a test case must not be collected


class TaskQTestMixin(_Base):
    """Captures the tasks that each test enqueues. Put it before Django's test case, as in `(TaskQTestMixin, TestCase)`.

    A `setUp` of your own calls `super().setUp()` before it enqueues.

    Attributes:
        taskq_eager: Run each task inside the call that enqueues it, instead of when the test says. An error of one
            fails the test at its end. Set on the class.
        taskq_as_committed: Take the transaction that `TestCase` holds around a test for committed; see `capture`. Set
            on the class.
    """

    taskq_eager = False
    taskq_as_committed = True

    def setUp(self) -> None:
        """Begin to capture; the end of the test ends it."""
        super().setUp()
        block = blocks.eager if self.taskq_eager else blocks.capture
        self._taskq_tasks = self.enterContext(block(as_committed=self.taskq_as_committed))

    @property
    def tasks(self) -> Captured:
        """Tasks that the test has enqueued so far, and their outcomes.

        Raises:
            RuntimeError: `setUp` was not called.
        """
        tasks: Captured | None = getattr(self, "_taskq_tasks", None)
        if tasks is None:
            raise RuntimeError(f"{type(self).__name__}.setUp must call super().setUp() for tasks to be captured")
        return tasks

    def assert_enqueued(
        self, task: TaskLike, *args: object, count: int | None = None, queue: str | None = None, **kwargs: object
    ) -> list[EnqueuedTask]:
        """Check that a task was enqueued, and return the matches. As `Captured.assert_enqueued`."""
        __tracebackhide__ = True
        return self.tasks.assert_enqueued(task, *args, count=count, queue=queue, **kwargs)

    def assert_not_enqueued(self, task: TaskLike, *args: object, queue: str | None = None, **kwargs: object) -> None:
        """Check that no call like this was enqueued. As `Captured.assert_not_enqueued`."""
        __tracebackhide__ = True
        self.tasks.assert_not_enqueued(task, *args, queue=queue, **kwargs)

    def assert_nothing_enqueued(self) -> None:
        """Check that no task at all was enqueued. As `Captured.assert_nothing_enqueued`."""
        __tracebackhide__ = True
        self.tasks.assert_nothing_enqueued()

    def drain(self, *, advance: Duration | None = None, raises: bool = True) -> list[TaskRun]:
        """Run what is due, and what that enqueues, until nothing is due any more.

        Inside a `TestCase` tasks run in this thread, as only it sees what the test has not committed. Elsewhere, in a
        `TransactionTestCase`, a real worker runs those in the queues of the settings.

        Args:
            advance: Let this much time pass for tasks that wait for their start or their next attempt, without waiting.
            raises: Raise what tasks failed with; False: only return it.

        Returns:
            The runs, in order.

        Raises:
            Exception: The last run of a task failed. It is the exception of the first such task.
        """
        if _has_own_data():
            return self.tasks.run(advance=advance, raises=raises)
        return blocks.drain(advance=advance, raises=raises)

    async def adrain(self, *, advance: Duration | None = None, raises: bool = True) -> list[TaskRun]:
        """Run what is due on this event loop. As `drain`, for coroutines."""
        if await sync_to_async(_has_own_data, thread_sensitive=True)():
            return await self.tasks.arun(advance=advance, raises=raises)
        return await blocks.adrain(advance=advance, raises=raises)


def _has_own_data() -> bool:
    return any(is_inside(connection) for connection in connections.all(initialized_only=True))
