"""What tests of a Django project need: `taskq_core.testing` for the project's queue application.

::

    class SignUpTest(TaskQTestMixin, TestCase):
        def test_a_mail_is_sent(self) -> None:
            self.client.post("/sign-up/", {"email": "a@b.c"})

            self.assert_enqueued(send_welcome, to="a@b.c")
            self.drain()

or, in a test of any kind, `with capture() as tasks:`. Fixtures for pytest are in `taskq_django.testing.plugin`.

`TestCase` holds a transaction around each test that never commits. Here it is taken for committed, so that what waits
for a commit is captured, or run, when it would be in production. Tasks that run inside the test, by `eager`,
`Captured.run` and `TaskQTestMixin.drain`, use its database connections.
"""

from taskq_core.testing import Captured, EnqueuedTask, TaskRun
from taskq_django.testing.blocks import adrain, capture, drain, eager
from taskq_django.testing.mixin import TaskQTestMixin

__all__ = ["Captured", "EnqueuedTask", "TaskQTestMixin", "TaskRun", "adrain", "capture", "drain", "eager"]
