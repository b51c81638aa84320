"""Define `TaskQTestMixin`, with which each test of a class captures the tasks that it enqueues."""

import unittest
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from taskq_core.settings import Duration
from taskq_core.testing import Captured, EnqueuedTask, TaskRun
from taskq_core.testing.records import TaskLike
from taskq_django.testing import blocks

__unittest = True  # makes unittest hide this module's lines in the traceback of a failed assertion

if TYPE_CHECKING:
    _Base = unittest.TestCase
else:
    _Base = object  # not a TestCase, so that unittest does not collect a user's own mixins


class TaskQTestMixin(_Base):
    """Captures the tasks that each test enqueues. Put it before Django's test case, as in `(TaskQTestMixin, TestCase)`.

    If your class has a `setUp`, it must call `super().setUp()` before it enqueues.

    Attributes:
        taskq_eager: Run each task inside the call that enqueues it, instead of in `drain()`. An error of a task fails
            the test at its end. Set it on the class.
        taskq_as_committed: Count the transaction that `TestCase` holds around a test as committed; see `capture`. Set
            it on the class.
    """

    taskq_eager = False
    taskq_as_committed = True

    def setUp(self) -> None:
        """Start to capture. The end of the test stops it."""
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
        """Check that a task was enqueued, and return the matching tasks. See `Captured.assert_enqueued`."""
        __tracebackhide__ = True
        return self.tasks.assert_enqueued(task, *args, count=count, queue=queue, **kwargs)

    def assert_not_enqueued(self, task: TaskLike, *args: object, queue: str | None = None, **kwargs: object) -> None:
        """Check that no matching call was enqueued. See `Captured.assert_not_enqueued`."""
        __tracebackhide__ = True
        self.tasks.assert_not_enqueued(task, *args, queue=queue, **kwargs)

    def assert_nothing_enqueued(self) -> None:
        """Check that no task was enqueued. See `Captured.assert_nothing_enqueued`."""
        __tracebackhide__ = True
        self.tasks.assert_nothing_enqueued()

    def drain(self, *, advance: Duration | None = None, raises: bool = True) -> list[TaskRun]:
        """Run due tasks, and the due tasks that they enqueue, until no task is due.

        Inside a `TestCase`, tasks run in this thread, because only it sees the uncommitted data of the test. In a
        `TransactionTestCase`, a real worker runs the tasks in the queues of the settings.

        Args:
            advance: Treat tasks as due that are scheduled or retried within this time, without waiting for it.
            raises: Raise the error of a failed task. If false, only return it.

        Returns:
            The runs, in order.

        Raises:
            Exception: The last run of a task failed. It is the exception of the first such task.
        """
        if blocks.has_own_data():
            return self.tasks.run(advance=advance, raises=raises)
        return blocks.drain(advance=advance, raises=raises)

    async def adrain(self, *, advance: Duration | None = None, raises: bool = True) -> list[TaskRun]:
        """Run due tasks on this event loop, as `drain` does."""
        if await sync_to_async(blocks.has_own_data, thread_sensitive=True)():
            return await self.tasks.arun(advance=advance, raises=raises)
        return await blocks.adrain(advance=advance, raises=raises)
