"""Django signals about tasks, in the processes that enqueue them and in workers.

The sender is the registered task, as `@task` leaves it; for a type whose code is not here it is
`taskq_core.RemoteTask` or, where a handler runs it, `taskq_core.RawTask`. All receive `task_id`, `name` and `queue`.
Django logs the exception of a receiver, which changes nothing else. Receivers may be coroutine functions.

Keyword arguments besides:
    task_enqueued: `handle`, the `TaskHandle`. Sent once the task is stored: after the commit inside a transaction, and
        when the row is committed with the outbox.
    task_started: `context`, the `TaskContext`. Sent where the function would begin, within its time limit.
    task_succeeded: `context`, and `result`, what the function returned.
    task_retried: `context`, and `error`, what it failed with or `Snooze`. It runs again.
    task_failed: `context`, and `error`. It is archived.

The last three are sent once the outcome is decided; `context.outcome` is its word. A task that is dropped (`Discard`),
requeued by a worker that stops, or lost to another worker does not send them.
"""

from django.dispatch import Signal

__all__ = ["task_enqueued", "task_failed", "task_retried", "task_started", "task_succeeded"]

task_enqueued = Signal()
task_started = Signal()
task_succeeded = Signal()
task_retried = Signal()
task_failed = Signal()
