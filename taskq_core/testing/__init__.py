"""Helpers for tests of your project: capture enqueued tasks, run them in the test, or let a real worker run them.

::

    with capture(taskq) as tasks:             # nothing is sent, and no task runs by itself
        signup("a@b.c")
        tasks.assert_enqueued(send_email, to="a@b.c")
        tasks.run(advance=3600)                 # run due tasks in this thread, as if an hour had passed

    with eager(taskq):                        # each task runs inside the call that enqueues it
        signup("a@b.c")

    drain(taskq)                              # a real worker, on Redis or inside a capture

    with interrupt_after(3):                  # iterating tasks stop after three items and continue in another run
        tasks.run()

They work in pytest and in unittest (`self.enterContext(capture(taskq))`), in blocking code and in coroutines
(`await tasks.arun()`, `await adrain(taskq)`). Fixtures for pytest are in `taskq_core.testing.plugin`.
"""

from taskq_core.testing.captured import Captured, capture, eager
from taskq_core.testing.draining import adrain, drain
from taskq_core.testing.interrupting import interrupt_after
from taskq_core.testing.records import EnqueuedTask, TaskRun

__all__ = ["Captured", "EnqueuedTask", "TaskRun", "adrain", "capture", "drain", "eager", "interrupt_after"]
