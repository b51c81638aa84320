"""System checks.

- `taskq.E001` the `TASKQ` setting is not usable
- `taskq.E002` `TASKQ['URL']` is not usable
- `taskq.E003` a periodic task is not usable: its task is not registered, or its arguments do not fit
- `taskq.E004` the outbox is used and has no table (`check --database`)
- `taskq.E005` `DEV_WORKER` without `DEBUG`, or beside `EAGER`
- `taskq.E006` there is no table of periodic tasks where the router lets it be (`check --database`)
- `taskq.E007` two tasks have one name
- `taskq.W001` `manage.py runworker` is another app's, which stands before `taskq_django` in `INSTALLED_APPS`
- `taskq.W002` `manage.py runworker` is ours and hides another app's
- `taskq.W003` `embedded://` in a deployment (`check --deploy`)
- `taskq.W004` `EAGER` in a deployment
- `taskq.W005` tasks wait in an outbox that is not used any more (`check --database`)
- `taskq.W006` `DEV_WORKER` in a deployment (`check --deploy`)
- `taskq.W007` Redis cannot be reached (`check --deploy`)
- `taskq.W008` Redis drops tasks when its memory is full (`check --deploy`)
- `taskq.W009` a database did not say what it has (`check --database`)
- `taskq.W010` migrations are not applied (`check --database`)
- `taskq.W011` a task goes to a queue that is not in `QUEUES`
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names for them
from django.core.management import find_commands
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from taskq_core import ConfigurationError, TaskQError
from taskq_core.broker.connection import parse_url
from taskq_core.settings import EnqueueMode, nearest_hint
from taskq_django import dev_worker
from taskq_django.app import taskq
from taskq_django.conf import read_settings

COMMAND = "runworker"


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the `TASKQ` setting and the environment over it."""
    try:
        settings = read_settings()
    except ConfigurationError as error:
        return [
            Error(
                f"The TASKQ setting is not usable: {error}.",
                hint="It is read from settings.TASKQ; environment variables TASKQ_<KEY> override it.",
                id="taskq.E001",
            )
        ]
    if isinstance(settings.url, str):
        try:
            parse_url(settings.url)
        except ConfigurationError as error:
            return [Error(f"TASKQ['URL'] is not usable: {error}.", id="taskq.E002")]
    return []


def check_schedule(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the tasks of the setting `SCHEDULE` are there and take their arguments."""
    try:
        _ = taskq.settings
    except ConfigurationError:
        return []  # E001 or E002 tells of it
    try:
        taskq.periodic_tasks()
    except TaskQError as error:
        return [Error(f"A periodic task is not usable: {error}.", id="taskq.E003")]
    return []


def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Tell of each task whose name another function has."""
    return [
        Error(
            f"Two tasks have one name: {problem}.",
            hint="Give one of them another name=. Until then nothing is enqueued, and no worker starts.",
            id="taskq.E007",
        )
        for problem in dict.fromkeys(map(str, taskq.conflicts))
    ]


def check_queues(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of tasks whose queue is not in `QUEUES`, so that workers do not serve it by default."""
    try:
        settings, tasks = taskq.settings, taskq.task_queues()
    except ConfigurationError:
        return []  # another check reports it
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
        if queue not in queues and not settings.eager
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"task {names[0]!r}{more} {'go' if more else 'goes'}"


def check_dev_worker(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a worker inside `runserver` where it has no place."""
    try:
        settings = read_settings()
    except ConfigurationError:
        return []  # E001 tells of it
    try:
        dev_worker.check_dev_worker(settings)
    except ConfigurationError as error:
        return [
            Error(
                f"TASKQ['DEV_WORKER'] is not usable: {error}.",
                hint="Write 'DEV_WORKER': DEBUG, or leave it out; `manage.py runworker` works anywhere.",
                id="taskq.E005",
            )
        ]
    return []


def check_commands(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Tell when another app provides a command of the same name, and whose it is."""
    providers = [config for config in apps.get_app_configs() if COMMAND in _commands(config)]
    names = [config.name for config in providers]
    if "taskq_django" not in names or len(names) == 1:
        return []
    winner = names[0]  # Django takes the command of the app that stands first
    if winner != "taskq_django":
        return [
            Warning(
                f"`manage.py {COMMAND}` runs the command of {winner!r}, which stands before 'taskq_django' in "
                "INSTALLED_APPS.",
                hint="Start task workers with `manage.py taskq worker`, or put 'taskq_django' first.",
                id="taskq.W001",
            )
        ]
    others = ", ".join(repr(name) for name in names[1:])
    return [
        Warning(
            f"`manage.py {COMMAND}` runs the task worker and hides the command of {others}, because 'taskq_django' "
            "stands first in INSTALLED_APPS.",
            hint="To reach the other one, put its app before 'taskq_django' and use `manage.py taskq worker` for "
            "tasks. To keep it so, add 'taskq.W002' to SILENCED_SYSTEM_CHECKS.",
            id="taskq.W002",
        )
    ]


def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Tell what is for development, and when Redis is not there or does not keep what it is given."""
    if check_settings(app_configs):
        return []  # E001 or E002
    from taskq_django.server_check import check_server  # only here: it brings the diagnosis and all of the worker along

    settings = read_settings()
    found = check_server(settings)
    if isinstance(settings.url, str) and settings.url.startswith("embedded://"):
        found.append(
            Warning(
                "TASKQ['URL'] is embedded://, a private redis-server for development on this machine alone.",
                hint="Give the URL of a Redis that all machines reach, for example TASKQ_URL=redis://redis:6379/0.",
                id="taskq.W003",
            )
        )
    if settings.eager:
        found.append(
            Warning(
                "TASKQ['EAGER'] is set: each task runs inside the request that enqueues it, and no worker gets any.",
                hint="Leave it out; it is for tests and development.",
                id="taskq.W004",
            )
        )
    if settings.dev_worker:
        found.append(
            Warning(
                "TASKQ['DEV_WORKER'] is set: `manage.py runserver` runs a worker, and no other server does.",
                hint="Leave it out, and run `manage.py runworker`.",
                id="taskq.W006",
            )
        )
    return found


def check_outbox(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of an outbox without a table, and of one whose rows nobody sends any more."""
    from taskq_django.outbox import outbox_aliases

    try:
        is_used = read_settings().enqueue is EnqueueMode.OUTBOX
    except ConfigurationError:
        return []  # E001 tells of it
    return [
        message
        for alias in outbox_aliases()
        if alias in (databases or ())
        for message in _check_database(alias, is_used=is_used)
    ]


def _check_database(alias: str, *, is_used: bool) -> list[CheckMessage]:
    from taskq_django.models import OutboxTask

    connection = connections[alias]
    try:
        with connection.cursor() as cursor:
            has_table = OutboxTask._meta.db_table in connection.introspection.table_names(cursor)
        unapplied = _unapplied_migrations(connection)
        waiting = OutboxTask.objects.using(alias).count() if has_table and not is_used else 0
    except DatabaseError as error:
        return [_not_told(alias, error)]
    found: list[CheckMessage] = []
    if not has_table and is_used and not _is_migrating():
        found.append(
            Error(
                f"TASKQ['ENQUEUE'] is 'outbox', and database {alias!r} has no outbox.",
                hint=f"Run `manage.py migrate taskq_django --database {alias}`, or let a router keep "
                "taskq_django.OutboxTask out of that database.",
                id="taskq.E004",
            )
        )
    elif unapplied and not _is_migrating():
        found.append(
            Warning(
                f"Migrations of taskq_django are not applied to database {alias!r}: {', '.join(unapplied)}.",
                hint=f"Run `manage.py migrate taskq_django --database {alias}`.",
                id="taskq.W010",
            )
        )
    if waiting:
        found.append(
            Warning(
                f"{waiting} tasks wait in the outbox of database {alias!r}, and TASKQ['ENQUEUE'] is not 'outbox' "
                "any more: no worker sends them.",
                hint="Set it to 'outbox' until a worker has sent them.",
                id="taskq.W005",
            )
        )
    return found


def _not_told(alias: str, error: DatabaseError) -> CheckMessage:
    return Warning(
        f"Database {alias!r} did not say whether it has what taskq_django needs: {error}.",
        hint="Check the database, then run this check again.",
        id="taskq.W009",
    )


def _unapplied_migrations(connection: BaseDatabaseWrapper) -> list[str]:
    """Return migrations of ours that a database lacks; none where no migration was ever applied."""
    recorder = MigrationRecorder(connection)
    if not recorder.has_table():
        return []
    applied = recorder.applied_migrations()
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    ours = sorted(name for label, name in known if label == "taskq_django")
    return [name for name in ours if ("taskq_django", name) not in applied]


def check_periodic_tasks(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell when the table of periodic tasks is missing."""
    from taskq_django.schedule_table import has_table, schedule_alias

    alias = schedule_alias()
    if alias is None or alias not in (databases or ()) or _is_migrating():
        return []
    try:
        if has_table(alias):
            return []
    except DatabaseError as error:
        return [_not_told(alias, error)]
    return [
        Error(
            f"Database {alias!r} has no table of periodic tasks: the admin cannot show them, and schedulers take none "
            "from there.",
            hint=f"Run `manage.py migrate taskq_django --database {alias}`, or let a router keep "
            "taskq_django.PeriodicTask out of that database.",
            id="taskq.E006",
        )
    ]


def _is_migrating() -> bool:
    """Whether `migrate` runs, which makes what is missing and would be kept from it by an error."""
    return sys.argv[1:2] == ["migrate"]


def _commands(config: AppConfig) -> list[str]:
    return find_commands(str(Path(config.path) / "management"))
