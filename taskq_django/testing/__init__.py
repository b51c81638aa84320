"""Helpers for tests of a Django project: `taskq_core.testing` for the project's queue application.

::

    class SignUpTest(TaskQTestMixin, TestCase):
        def test_a_mail_is_sent(self) -> None:
            self.client.post("/sign-up/", {"email": "a@b.c"})

            self.assert_enqueued(send_welcome, to="a@b.c")
            self.drain()

or, in a test of any kind, `with capture() as tasks:`. Fixtures for pytest are in `taskq_django.testing.plugin`.

`TestCase` holds a transaction around each test that never commits. These helpers count it as committed, so that tasks
are captured or run at the same point as in production. Tasks that run inside the test, by `eager`, `Captured.run` and
`TaskQTestMixin.drain`, use its database connections.
"""

from taskq_core.testing import Captured, EnqueuedTask, TaskRun
from taskq_django.testing.blocks import adrain, capture, drain, eager
from taskq_django.testing.mixin import TaskQTestMixin

__all__ = ["Captured", "EnqueuedTask", "TaskQTestMixin", "TaskRun", "adrain", "capture", "drain", "eager"]
