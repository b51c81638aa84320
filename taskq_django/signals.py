"""Django signals about tasks. They are sent in the processes that enqueue tasks and in workers.

The sender is the registered task. For a task type that is not registered in this process it is
`taskq_core.RemoteTask`, or `taskq_core.RawTask` if a handler runs it. All signals have the arguments `task_id`, `name`
and `queue`. An exception in a receiver is logged and has no other effect. Receivers may be coroutine functions.

Further keyword arguments:
    task_enqueued: `handle`, the `TaskHandle`. Sent once the task is stored: after the commit inside a transaction, and
        when the row is committed with the outbox.
    task_started: `context`, the `TaskContext`. Sent just before the function is called; receivers use up its timeout.
    task_succeeded: `context`, and `result`, the function's return value.
    task_retried: `context`, and `error`, the function's exception or `Snooze`. The task will run again.
    task_failed: `context`, and `error`. The task is archived.

The last three are sent when the outcome is decided. `context.outcome` names it. They are not sent for a task that is
dropped (`Discard`), requeued by a stopping worker, or lost to another worker.
"""

from django.dispatch import Signal

__all__ = ["task_enqueued", "task_failed", "task_retried", "task_started", "task_succeeded"]

task_enqueued = Signal()
task_started = Signal()
task_succeeded = Signal()
task_retried = Signal()
task_failed = Signal()
