"""System checks.

- `taskq.E001` the `TASKQ` setting is not usable
- `taskq.E002` `TASKQ['URL']` is not usable
- `taskq.E003` a periodic task is not usable: its task is not registered, or its arguments do not fit
- `taskq.E004` the outbox is used and has no table (`check --database`)
- `taskq.E005` `DEV_WORKER` without `DEBUG`, or together with `EAGER`
- `taskq.E006` the table of periodic tasks is missing (`check --database`)
- `taskq.E007` two tasks have one name
- `taskq.E032` `PROPAGATE["REQUEST_ID"]` does not name a function
- `taskq.W001` another app also has a command `manage.py runworker`
- `taskq.W003` `embedded://` in a deployment (`check --deploy`)
- `taskq.W004` `EAGER` in a deployment
- `taskq.W005` tasks wait in an outbox that is not used any more (`check --database`)
- `taskq.W006` `DEV_WORKER` in a deployment (`check --deploy`)
- `taskq.W009` the tables of a database cannot be listed (`check --database`)
- `taskq.W011` a task goes to a queue that is not in `QUEUES`
- `taskq.W012` no app has a module of a name in `AUTODISCOVER`
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's names for them
from django.core.management import find_commands
from django.db import DatabaseError

from taskq_core import ConfigurationError, TaskQError
from taskq_core.broker.connection import parse_url
from taskq_core.settings import EnqueueMode, Settings, nearest_hint
from taskq_core.tasks.schedule_setting import schedule_lines, scheduled_entries
from taskq_django import dev_worker
from taskq_django.app import taskq
from taskq_django.conf import read_settings, settings_errors
from taskq_django.discovery import missing_names
from taskq_django.propagation import check_request_id

COMMAND = "runworker"


@register
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the `TASKQ` setting and the environment, and what they refer to."""
    found: list[CheckMessage] = [
        Error(
            f"The TASKQ setting is not usable: {_sentence(error)}",
            hint="It is read from settings.TASKQ; environment variables TASKQ_<KEY> override it.",
            id="taskq.E001",
        )
        for error in settings_errors()
    ]
    if found:
        return found
    settings = read_settings()
    dev_worker_hint = "Write 'DEV_WORKER': DEBUG, or leave it out; `manage.py runworker` works anywhere."
    request_id = settings.propagate.request_id
    request_id_hint = "Name a function that returns the id of the request, or leave it out."
    uses: list[tuple[str, Callable[[], object], str | None, str]] = [
        ("TASKQ['URL']", lambda: isinstance(settings.url, str) and parse_url(settings.url), None, "taskq.E002"),
        *(("A periodic task", use, None, "taskq.E003") for use in _periodic_uses(settings)),
        ("TASKQ['DEV_WORKER']", lambda: dev_worker.check_dev_worker(settings), dev_worker_hint, "taskq.E005"),
        ("TASKQ['PROPAGATE']['REQUEST_ID']", lambda: check_request_id(request_id), request_id_hint, "taskq.E032"),
    ]
    for what, use, hint, number in uses:
        try:
            use()
        except TaskQError as error:
            text = _sentence(error)
            if not any(text in each.msg for each in found):  # a wrong URL also prevents the later checks
                found.append(Error(f"{what} is not usable: {text}", hint=hint, id=number))
    return found


def _periodic_uses(settings: Settings) -> list[Callable[[], object]]:
    """Return functions that raise the errors of single entries of `SCHEDULE`, and one for all periodic tasks."""
    lines = schedule_lines(settings.schedule, zone=settings.time_zone)
    uses: list[Callable[[], object]] = [partial(scheduled_entries, [line], taskq.tasks, taskq.remote) for line in lines]
    return [*uses, taskq.periodic_tasks]


def _sentence(error: TaskQError) -> str:
    text = str(error)
    return text if text.endswith("?") else f"{text}."


@register
def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report each task whose name is used by another function."""
    return [
        Error(
            f"Two tasks have one name: {problem}.",
            hint="Give one of them another name=. Until then nothing is enqueued, and no worker starts.",
            id="taskq.E007",
        )
        for problem in dict.fromkeys(map(str, taskq.conflicts))
    ]


@register
def check_queues(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of tasks whose queue is not in `QUEUES`, so that workers do not serve it by default."""
    try:
        settings, tasks = taskq.settings, taskq.task_queues()
    except ConfigurationError:
        return []  # another check reports the invalid settings
    queues = settings.queues
    return [
        Warning(
            f"Queue {queue!r} is not in TASKQ['QUEUES'], and {_listed(names)} there: workers do not serve it by default"
            f"{nearest_hint(queue, queues) or '.'}",
            hint="Correct the queue's name in the task, or add it to TASKQ['QUEUES']. If workers with --queues serve "
            "it, add 'taskq.W011' to SILENCED_SYSTEM_CHECKS.",
            id="taskq.W011",
        )
        for queue, names in tasks.items()
        # Another check reports the queues of mailers.
        if queue not in queues and not settings.eager and not taskq.built_in.issuperset(names)
    ]


@register
def check_discovery(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of names in `AUTODISCOVER` that are not the name of a module of any app."""
    return [
        Warning(
            f"TASKQ['AUTODISCOVER'] names {name!r}, but no app in INSTALLED_APPS has a module of this name"
            f"{nearest_hint(name, ['tasks']) or '.'}",
            hint="Correct the name, or remove it. A name with a dot, such as 'shop.jobs', names one module.",
            id="taskq.W012",
        )
        for name in missing_names()
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"task {names[0]!r}{more} {'go' if more else 'goes'}"


@register
def check_commands(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report another app with a command `runworker`. Django uses the command of the first app."""
    names = [
        config.name
        for config in apps.get_app_configs()
        if COMMAND in find_commands(str(Path(config.path) / "management"))
    ]
    if "taskq_django" not in names or len(names) == 1:
        return []
    return [
        Warning(
            f"`manage.py {COMMAND}` runs the command of {names[0]!r}, which is the first of the apps in INSTALLED_APPS "
            f"that have one: {', '.join(map(repr, names))}.",
            hint="To start task workers, put 'taskq_django' first, or use `manage.py taskq worker`. To keep it, "
            "add 'taskq.W001' to SILENCED_SYSTEM_CHECKS.",
            id="taskq.W001",
        )
    ]


@register(deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report development settings in a deployment."""
    try:
        settings = read_settings()
    except ConfigurationError:
        return []  # the system check taskq.E001 reports the error
    is_embedded = isinstance(settings.url, str) and settings.url.startswith("embedded://")
    return [
        Warning(f"TASKQ[{key!r}] {problem}", hint=hint, id=number)
        for is_set, key, problem, hint, number in (
            (
                is_embedded,
                "URL",
                "is embedded://, a private redis-server for development on this machine alone.",
                "Give the URL of a Redis that all machines reach, for example TASKQ_URL=redis://redis:6379/0.",
                "taskq.W003",
            ),
            (
                settings.eager,
                "EAGER",
                "is set: each task runs inside the request that enqueues it, and workers get no tasks.",
                "Leave it out; it is for tests and development.",
                "taskq.W004",
            ),
            (
                settings.dev_worker,
                "DEV_WORKER",
                "is set: `manage.py runserver` runs a worker, and no other server does.",
                "Leave it out, and run `manage.py runworker`.",
                "taskq.W006",
            ),
        )
        if is_set
    ]


@register(Tags.database)
def check_tables(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report missing tables, and an unused outbox that still has rows."""
    from taskq_django.models import PeriodicTask
    from taskq_django.outbox import outbox_aliases  # needs loaded apps, because it imports models
    from taskq_django.schedule_table import schedule_alias
    from taskq_django.tables import has_table

    try:
        uses_outbox = read_settings().enqueue is EnqueueMode.OUTBOX
    except ConfigurationError:
        return []  # the system check taskq.E001 reports the error
    found: list[CheckMessage] = []
    for alias in databases or ():
        try:
            if alias in outbox_aliases():
                found += _check_outbox(alias, is_used=uses_outbox)
            if alias == schedule_alias() and not has_table(alias, PeriodicTask):
                text = (
                    f"Database {alias!r} has no table of periodic tasks: the admin cannot show them, and schedulers "
                    "take none from there."
                )
                found += _missing(alias, "PeriodicTask", text, "taskq.E006")
        except DatabaseError as error:
            found.append(
                Warning(
                    f"Cannot list the tables of database {alias!r}, so the tables of taskq_django were not checked: "
                    f"{error}.",
                    hint="Check the database, then run this check again.",
                    id="taskq.W009",
                )
            )
    return found


def _check_outbox(alias: str, *, is_used: bool) -> list[CheckMessage]:
    from taskq_django.models import OutboxTask
    from taskq_django.tables import has_table

    if not has_table(alias, OutboxTask):
        text = f"TASKQ['ENQUEUE'] is 'outbox', and database {alias!r} has no outbox."
        return _missing(alias, "OutboxTask", text, "taskq.E004") if is_used else []
    waiting = 0 if is_used else OutboxTask.objects.using(alias).count()
    if not waiting:
        return []
    return [
        Warning(
            f"{waiting} tasks wait in the outbox of database {alias!r}, and TASKQ['ENQUEUE'] is not 'outbox' "
            "any more: no worker sends them.",
            hint="Set it to 'outbox' until a worker has sent them.",
            id="taskq.W005",
        )
    ]


def _missing(alias: str, model: str, text: str, number: str) -> list[CheckMessage]:
    """Report a missing table, but not to `migrate`, which creates the table and which an error would prevent."""
    hint = (
        f"Run `manage.py migrate taskq_django --database {alias}`, or let a router keep taskq_django.{model} out of "
        "that database."
    )
    return [] if sys.argv[1:2] == ["migrate"] else [Error(text, hint=hint, id=number)]
