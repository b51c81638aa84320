"""Test the system checks of `manage.py check`."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, run_checks
from django.db import OperationalError, connection

from taskq_django import checks, taskq
from taskq_django.checks import check_tables
from taskq_django.models import OutboxTask, PeriodicTask
from tests.redis_server import RedisServer
from tests.rows import rows

ROOT = Path(__file__).parents[2]


def ours(*, deploy: bool = False) -> list[CheckMessage]:
    messages = run_checks(include_deployment_checks=deploy)
    return [message for message in messages if str(message.id).startswith("taskq.")]


def ids(*, deploy: bool = False) -> list[str]:
    return [str(message.id) for message in ours(deploy=deploy)]


@pytest.mark.redis
def test_good_settings_pass(redis: RedisServer) -> None:
    assert ours(deploy=True) == []


def test_a_task_with_an_unconfigured_queue_causes_a_warning(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(taskq, "task_queues")  # the Redis of conftest.py
    monkeypatch.setattr(taskq, "_tasks", {})
    settings.TASKQ = {"QUEUES": ["critical", "default"]}
    for name in ("charge", "refund"):
        taskq.task(name=name, queue="critcal")(lambda: None)
    taskq.task(name="other")(lambda: None)

    (found,) = [each for each in ours() if each.id == "taskq.W011"]

    assert found.msg == (
        "Queue 'critcal' is not in TASKQ['QUEUES'], and task 'charge' and 1 more go there: workers do not serve it by "
        "default; did you mean 'critical'?"
    )
    assert "add it to TASKQ['QUEUES']" in str(found.hint)


def test_a_name_to_discover_that_no_app_has_is_warned_of(settings: Any) -> None:
    settings.TASKQ = {"AUTODISCOVER": ["tasks", "models", "taks"]}

    (found,) = [each for each in ours() if each.id == "taskq.W012"]

    assert found.msg == (
        "TASKQ['AUTODISCOVER'] names 'taks', but no app in INSTALLED_APPS has a module of this name; "
        "did you mean 'tasks'?"
    )


@rows(
    ("setting", "expected"),
    [
        ({"CONCURENCY": 5}, "did you mean 'CONCURRENCY'?"),
        ({"CONCURRENCY": 0}, "CONCURRENCY must be between 1 and"),
        ({"DEFAULTS": {"max_retries": 3}}, "did you mean 'max_retry'?"),
        ({"DEFAULTS": {"task_id": "one"}}, "DEFAULTS: task_id cannot be the same for all tasks"),
        (["URL"], "TASKQ must be a dict, got list"),
    ],
)
def test_a_bad_setting_is_an_error(settings: Any, setting: object, expected: str) -> None:
    settings.TASKQ = setting

    (message,) = ours()

    assert message.id == "taskq.E001"
    assert expected in message.msg


def test_all_errors_of_the_setting_and_of_the_environment_are_reported(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKQ_LEASE", "soon")
    settings.TASKQ = {
        "URL": "redis://localhost",
        "CONCURENCY": 5,
        "ENQUEUE_TIMEOUT": -1,
        "DEFAULTS": {"max_retries": 3, "timeout": 0, "retention": 60},
        "EMAIL": {"QUEU": "mail"},
        "SCHEDULE": {"a": {"task": "shop:greet"}, "b": {"spec": "@hourly"}},
    }

    found = ours()

    assert {message.id for message in found} == {"taskq.E001"}
    expected = ("CONCURENCY", "ENQUEUE_TIMEOUT", "max_retries", "timeout must", "QUEU", "LEASE", "['a']", "['b']")
    assert len(found) == len(expected)
    assert [word for word in expected if not any(word in message.msg for message in found)] == []


def test_all_unusable_periodic_tasks_are_reported_beside_other_errors(settings: Any) -> None:
    settings.TASKQ = {
        "URL": "reddis://localhost",
        "SCHEDULE": {
            "good": {"task": "shop:greet", "spec": "@hourly", "kwargs": {"name": "Ada"}},
            "lost": {"task": "shop:gret", "spec": "@hourly"},
            "bare": {"task": "shop:greet", "spec": "@hourly"},
        },
    }

    found = ours()

    assert [message.id for message in found] == ["taskq.E002", "taskq.E003", "taskq.E003"]
    assert "SCHEDULE['lost']" in found[1].msg
    assert "SCHEDULE['bare']" in found[2].msg


def test_a_bad_url_is_an_error_without_its_password(settings: Any) -> None:
    settings.TASKQ = {"URL": "reddis://:secret@localhost"}

    (message,) = ours()

    assert message.id == "taskq.E002"
    assert "'reddis' is not a known scheme" in message.msg
    assert "secret" not in message.msg


def test_an_embedded_server_causes_a_deployment_warning(settings: Any) -> None:
    settings.TASKQ = {"URL": "embedded://"}

    assert [message.id for message in ours(deploy=True)] == ["taskq.W003"]
    assert ours() == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["channels", "taskq_django"], "taskq.W001"),
        (["taskq_django", "channels"], "taskq.W001"),
        (["taskq_django"], None),
    ],
)
def test_another_runworker_command_causes_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, order: list[str], expected: str | None
) -> None:
    """Django uses the command of the first app. The message names this app and the fix."""
    commands = tmp_path / "management" / "commands"
    commands.mkdir(parents=True)
    (commands / "runworker.py").touch()

    class Channels(AppConfig):
        name = label = "channels"
        path = str(tmp_path)

    import django

    known = {"channels": Channels("channels", django), "taskq_django": apps.get_app_config("taskq_django")}
    monkeypatch.setattr(checks.apps, "get_app_configs", lambda: [known[name] for name in order])

    messages = checks.check_commands(None)

    assert [message.id for message in messages] == ([expected] if expected else [])
    for message in messages:
        assert f"{order[0]!r}" in message.msg
        assert "`manage.py taskq worker`" in str(message.hint)


@pytest.mark.django_db(transaction=True)
def test_an_unused_outbox_with_waiting_rows_causes_a_warning(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://localhost/0"}
    assert check_tables(None, databases=["default"]) == []
    OutboxTask.objects.create(receipt="r", queue="default", name="n", task_id="i", message=b"", size=0)

    (found,) = check_tables(None, databases=["default"])

    assert found.id == "taskq.W005"
    assert found.msg.startswith("1 tasks wait in the outbox of database 'default'")
    assert check_tables(None) == [], "databases are looked at only where they are asked for"
    settings.TASKQ = {"URL": "redis://localhost/0", "ENQUEUE": "outbox"}
    assert check_tables(None, databases=["default"]) == []


@pytest.mark.django_db(transaction=True)
def test_a_missing_outbox_table_is_an_error(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://localhost/0", "ENQUEUE": "outbox"}
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxTask)
    try:
        (found,) = check_tables(None, databases=["default"])
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(OutboxTask)

    assert found.id == "taskq.E004"
    assert found.hint is not None
    assert "manage.py migrate taskq_django --database default" in found.hint


@pytest.mark.django_db(transaction=True)
def test_an_unreachable_database_is_reported(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(connection, "cursor", refuse)

    (found,) = check_tables(None, databases=["default"])

    assert found.id == "taskq.W009"
    assert "the database is away" in found.msg


# --- Redis, in a deployment -------------------------------------------------------------------------------------------


def test_a_private_server_is_not_started_for_a_check(settings: Any, tmp_path: Path) -> None:
    settings.TASKQ = {"URL": f"embedded://{tmp_path}/data"}

    assert ids(deploy=True) == ["taskq.W003"]
    assert list(tmp_path.iterdir()) == []


def test_eager_tasks_need_no_redis(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "EAGER": True}

    assert ids(deploy=True) == ["taskq.W004"]


# --- names ------------------------------------------------------------------------------------------------------------


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_documentation_lists_all_checks() -> None:
    """The page has a section for each check with its cause and its fix."""
    page = (ROOT / "docs/reference/system-checks.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(taskq\.[EW]\d{3})` \|(.*)\|(.*)\|$", page, re.MULTILINE)
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "taskq_django").rglob("*.py"))
    given = re.findall(r'"(taskq\.[EW]\d{3})"', code)

    assert sorted({number for number, *_ in listed}) == sorted(set(given))
    assert len(listed) == len({number for number, *_ in listed})
    assert set(re.findall(r"taskq\.[EW]\d{3}", code)) == set(given), "the page describes a check that does not exist"
    assert all(says.strip() and to_do.strip() for _, says, to_do in listed)


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_missing_table_of_periodic_tasks_is_an_error(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error is reported if the router excludes the table from that database."""
    assert check_tables(None, databases=["default", "other"]) == []
    with connection.schema_editor() as editor:
        editor.delete_model(PeriodicTask)
    try:
        (found,) = check_tables(None, databases=["default"])
        assert check_tables(None, databases=["other"]) == []
        assert check_tables(None) == []
        settings.DATABASE_ROUTERS = ["tests.taskq_django.test_checks.NotHere"]
        assert check_tables(None, databases=["default"]) == []
    finally:
        settings.DATABASE_ROUTERS = []
        with connection.schema_editor() as editor:
            editor.create_model(PeriodicTask)

    assert found.id == "taskq.E006"
    assert "manage.py migrate taskq_django --database default" in str(found.hint)


class NotHere:
    """A router that excludes periodic tasks from every database."""

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        return False if model_name == "periodictask" else None
