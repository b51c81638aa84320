"""Set up the Django app: import tasks, register checks, and reload settings that change."""

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.translation import gettext_lazy as _

from taskq_django.app import taskq
from taskq_django.dev_worker import start_with_server
from taskq_django.discovery import autodiscover
from taskq_django.iteration import let_tasks_iterate
from taskq_django.tasks_backend.options import queues_of_tasks

_SETTINGS = ("TASKQ", "BASE_DIR", "TASKS", "TIME_ZONE")


class TaskQConfig(AppConfig):
    """`INSTALLED_APPS = [..., "taskq_django"]`."""

    name = "taskq_django"
    verbose_name = _("Task queue")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, follow `override_settings`, import the tasks of all apps, and start a `DEV_WORKER`."""
        setting_changed.connect(_follow_settings, dispatch_uid="taskq_django")
        import_module("taskq_django.checks")  # imported late, because it reads settings
        connect_mail()
        let_tasks_iterate()
        connect_outbox()
        connect_django_tasks()
        autodiscover()
        follow_periodic_tasks()
        start_with_server()


def connect_mail() -> None:
    """Register the checks of the mailers, and let workers ask for their queues."""
    from taskq_django.mail.checks import mail_queues  # reads settings

    taskq.mail_queues = mail_queues


def connect_outbox() -> None:
    """Give the queue application its outbox in the project's databases."""
    from taskq_django.outbox import DatabaseOutbox  # needs loaded apps, because it imports models

    taskq.outbox = DatabaseOutbox()


def connect_django_tasks() -> None:
    """Let workers find tasks that were defined for another backend, if the setting `TASKS` uses `TaskQBackend`."""
    taskq.find_elsewhere = None
    if queues_of_tasks(getattr(settings, "TASKS", None)):
        from taskq_django.tasks_backend.finding import find_by_name  # needs the framework, which Django 5.2 lacks

        taskq.find_elsewhere = find_by_name


def follow_periodic_tasks() -> None:
    """Add the table of periodic tasks to the sources of this project's schedulers."""
    from taskq_django.schedule_table import DatabaseSchedule  # needs loaded apps, because it imports models

    if not any(isinstance(each, DatabaseSchedule) for each in taskq.timetable.tables):
        taskq.timetable.tables.append(DatabaseSchedule())


def _follow_settings(*, setting: str, **_: Any) -> None:
    if setting in _SETTINGS:
        from taskq_django.test_cases import watch  # only tests change settings

        watch()  # before `reload`, because code in an `override_settings` block may read `EAGER` at once
        connect_django_tasks()
        taskq.reload()
