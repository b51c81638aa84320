"""System checks of the backend, which Django's framework asks for.

- `taskq.E021` `OPTIONS` of the backend in `TASKS` are not usable
- `taskq.E022` `taskq_django` is not in `INSTALLED_APPS`
- `taskq.W021` the backend keeps no results
- `taskq.W022` the backend has a queue that no worker serves
- `taskq.W023` a task has a priority whose queue no worker serves
"""

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names for them

from taskq_core import ConfigurationError
from taskq_core.settings import seconds
from taskq_django.app import taskq
from taskq_django.tasks_backend.options import DEFAULTS, band_queue


def check_backend(backend: Any) -> list[CheckMessage]:
    """Return the errors and warnings about the settings of a `TaskQBackend`."""
    where = f"TASKS[{backend.alias!r}]"
    found: list[CheckMessage] = []
    if not apps.is_installed("taskq_django"):
        found.append(
            Error(
                f"{where} is taskq's backend, but 'taskq_django' is not in INSTALLED_APPS.",
                hint="Add it. It provides `manage.py runworker` and imports the tasks of the installed apps.",
                id="taskq.E022",
            )
        )
    try:
        own_defaults = backend.own_defaults
    except ConfigurationError as error:
        return [*found, Error(f"{error}.", id="taskq.E021")]
    try:
        settings = taskq.settings
    except ConfigurationError:
        return found  # the system check taskq.E001 reports the error
    retention = {**DEFAULTS, **settings.defaults, **own_defaults}["retention"]
    if seconds("retention", retention) == 0:
        found.append(
            Warning(
                f"{where} keeps no results: the retention of its tasks is 0, so a successful task is deleted at once "
                "and get_result() does not find it.",
                hint="Set DEFAULTS['retention'] in its OPTIONS, for example to 86400 seconds. If you need no results, "
                "add 'taskq.W021' to SILENCED_SYSTEM_CHECKS.",
                id="taskq.W021",
            )
        )
    missing = sorted(backend.queues - settings.queues.keys())
    if missing:
        found.append(
            Warning(
                f"{where} has queues that are not in TASKQ['QUEUES'], so no worker serves them: "
                f"{', '.join(map(repr, missing))}.",
                hint="Add them to TASKQ['QUEUES'] with their weights, or remove QUEUES from TASKQ to serve the queues "
                "of TASKS.",
                id="taskq.W022",
            )
        )
    ignored = [
        f"{name!r} ({task.priority})"
        for name, task in backend.known_tasks()
        if backend.queue_for(task) != band_queue(task.queue_name, int(task.priority))
    ]
    if ignored:
        found.append(
            Warning(
                f"{where} has tasks with a priority whose queue is not in TASKQ['QUEUES'], so the priority is ignored: "
                f"{', '.join(sorted(ignored))}.",
                hint="Add the queues of the bands, such as 'default-high', to TASKQ['QUEUES'] with their weights, or "
                "remove QUEUES from TASKQ to serve the queues of TASKS.",
                id="taskq.W023",
            )
        )
    return found
