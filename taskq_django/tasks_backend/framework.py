"""Import Django's task framework: `django.tasks` since Django 6.0, the package `django-tasks` before.

Both have the same classes. This module hides the differences between them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import django
from django.core.exceptions import ImproperlyConfigured

PACKAGE = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
"""The package that a project imports `task` from."""

if TYPE_CHECKING:
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json

    AnyTask = Task[..., Any]
    AnyResult = TaskResult[..., Any]
else:
    try:
        import_module(PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        raise ImproperlyConfigured(
            "taskq_django.TaskQBackend needs Django's task framework, which is part of Django since 6.0; for Django "
            f"{django.get_version()} install the package django-tasks: pip install 'taskq-asynq[django-tasks]'"
        ) from None
    _base = import_module(f"{PACKAGE}.base")
    _exceptions = import_module(f"{PACKAGE}.exceptions")
    _signals = import_module(f"{PACKAGE}.signals")
    BaseTaskBackend = import_module(f"{PACKAGE}.backends.base").BaseTaskBackend
    Task, TaskContext, TaskError = _base.Task, _base.TaskContext, _base.TaskError
    TaskResult, TaskResultStatus = _base.TaskResult, _base.TaskResultStatus
    # In the package `django-tasks`, the name of this class ends with "Error".
    InvalidTask = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError
    TaskResultDoesNotExist = _exceptions.TaskResultDoesNotExist
    task_enqueued, task_finished, task_started = _signals.task_enqueued, _signals.task_finished, _signals.task_started
    normalize_json = _base.normalize_json
    AnyTask, AnyResult = Task, TaskResult


def backends() -> Any:
    """Return the framework's backends: iteration yields aliases, and `[alias]` returns a backend."""
    return import_module(PACKAGE).task_backends


__all__ = [
    "PACKAGE",
    "AnyResult",
    "AnyTask",
    "BaseTaskBackend",
    "InvalidTask",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "backends",
    "normalize_json",
    "task_enqueued",
    "task_finished",
    "task_started",
]
