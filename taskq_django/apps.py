"""The Django app: finds tasks and follows settings that change."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from django.apps import AppConfig, apps
from django.core import checks
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from taskq_core import ConfigurationError
from taskq_django.app import taskq
from taskq_django.carrying import check_carry
from taskq_django.checks import (
    check_commands,
    check_deployment,
    check_dev_worker,
    check_names,
    check_outbox,
    check_periodic_tasks,
    check_schedule,
    check_settings,
)
from taskq_django.dev_worker import start_with_server
from taskq_django.iteration import let_tasks_iterate
from taskq_django.test_cases import watch

_SETTINGS = ("TASKQ", "BASE_DIR", "TASKS")


class TaskQConfig(AppConfig):
    """`INSTALLED_APPS = [..., "taskq_django"]`."""

    name = "taskq_django"
    verbose_name = _("Task queue")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, follow `override_settings`, import the tasks of all apps, and start a `DEV_WORKER`."""
        checks.register(check_settings)
        checks.register(check_schedule)
        checks.register(check_names)
        checks.register(check_dev_worker)
        checks.register(check_commands)
        checks.register(check_deployment, deploy=True)
        checks.register(check_outbox, checks.Tags.database)
        checks.register(check_periodic_tasks, checks.Tags.database)
        setting_changed.connect(_follow_settings, dispatch_uid="taskq_django")
        checks.register(check_carry)
        checks.register(import_module("taskq_django.mail.checks").check_mail)  # not above: it needs the settings
        let_tasks_iterate()
        autodiscover()
        follow_periodic_tasks()
        start_with_server()


def follow_periodic_tasks() -> None:
    """Let the schedulers of this project read its table of periodic tasks."""
    from taskq_django.schedule_table import DatabaseSchedule  # models can only be imported once the apps are loaded

    if not any(isinstance(each, DatabaseSchedule) for each in taskq.timetable.tables):
        taskq.timetable.tables.append(DatabaseSchedule())


def autodiscover() -> None:
    """Import modules with tasks, as the setting `AUTODISCOVER` says.

    True imports the module `tasks` of every installed app, a list of names the modules of these names; a name with a
    dot is imported as it stands.
    """
    names = _wanted_names()
    if not names:
        return
    autodiscover_modules(*(name for name in names if "." not in name))
    for name in names:
        if "." in name:
            import_module(name)


def discovered_modules() -> list[ModuleType]:
    """Return the modules that `autodiscover` has imported."""
    paths: list[str] = []
    for name in _wanted_names():
        paths += [name] if "." in name else [f"{app.name}.{name}" for app in apps.get_app_configs()]
    return [module for path in paths if (module := sys.modules.get(path)) is not None]


def _wanted_names() -> tuple[str, ...]:
    try:
        wanted = taskq.settings.autodiscover
    except ConfigurationError:
        return ()  # a system check reports it; raising here would keep the check from running
    return wanted if isinstance(wanted, tuple) else ("tasks",) * wanted


def _follow_settings(*, setting: str, **_: Any) -> None:
    if setting in _SETTINGS:
        watch()  # tests alone change settings; `EAGER` may be among the new ones, and is read inside a block for once
        taskq.reload()
