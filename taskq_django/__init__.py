"""taskq for Django: tasks are enqueued when the transaction commits, and shown in the admin.

The setting `TASKQ` configures it.

Put `"taskq_django"` into `INSTALLED_APPS`, write tasks in the `tasks.py` of your apps, and run a worker with
`python manage.py runworker`::

    from taskq_django import task

    @task(queue="critical", max_retry=5)
    def send_welcome(user_id: int) -> None: ...

    send_welcome.delay(user.pk)             # in a view: sent when the surrounding transaction commits
    await send_welcome.adelay(user.pk)      # in an async view
"""

from typing import TYPE_CHECKING, Any

from taskq_django.app import aggregator, async_client, client, periodic, schedule, task, taskq

if TYPE_CHECKING:
    from taskq_django.tasks_backend.backend import TaskQBackend

__all__ = ["TaskQBackend", "aggregator", "async_client", "client", "periodic", "schedule", "task", "taskq"]


def __getattr__(name: str) -> Any:
    # Names imported on first access, because they need Django's task framework, which Django 5.2 does not have.
    if name == "TaskQBackend":
        from taskq_django.tasks_backend.backend import TaskQBackend

        return TaskQBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
