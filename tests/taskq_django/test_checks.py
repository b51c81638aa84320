"""What `manage.py check` says of the queue."""

from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, run_checks
from django.db import connection

from taskq_django import checks
from taskq_django.checks import check_outbox
from taskq_django.models import OutboxTask


def ours(*, deploy: bool = False) -> list[CheckMessage]:
    messages = run_checks(include_deployment_checks=deploy)
    return [message for message in messages if str(message.id).startswith("taskq.")]


def test_good_settings_pass() -> None:
    assert ours(deploy=True) == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"CONCURENCY": 5}, "did you mean 'CONCURRENCY'?"),
        ({"CONCURRENCY": 0}, "CONCURRENCY must be between 1 and"),
        ({"DEFAULTS": {"max_retries": 3}}, "did you mean 'max_retry'?"),
        ({"DEFAULTS": {"task_id": "one"}}, "DEFAULTS: task_id cannot be the same for all tasks"),
        (["URL"], "TASKQ must be a dict, got list"),
    ],
)
def test_a_bad_setting_is_an_error(settings: Any, setting: object, told: str) -> None:
    settings.TASKQ = setting

    (message,) = ours()

    assert message.id == "taskq.E001"
    assert told in message.msg


def test_a_bad_url_is_an_error_without_its_password(settings: Any) -> None:
    settings.TASKQ = {"URL": "reddis://:secret@localhost"}

    (message,) = ours()

    assert message.id == "taskq.E002"
    assert "'reddis' is not a known scheme" in message.msg
    assert "secret" not in message.msg


def test_embedded_in_a_deployment_is_warned_of(settings: Any) -> None:
    settings.TASKQ = {"URL": "embedded://"}

    assert [message.id for message in ours(deploy=True)] == ["taskq.W003"]
    assert ours() == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["channels", "taskq_django"], "taskq.W001"),
        (["taskq_django", "channels"], "taskq.W002"),
        (["taskq_django"], None),
    ],
)
def test_another_runworker_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, order: list[str], expected: str | None
) -> None:
    """Django takes the command of the app that stands first; the message says whose it is and what to do."""
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
def test_an_outbox_that_is_not_used_any_more_and_rows_that_wait(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://localhost/0"}
    assert check_outbox(None, databases=["default"]) == []
    OutboxTask.objects.create(receipt="r", queue="default", name="n", task_id="i", message=b"", size=0)

    (found,) = check_outbox(None, databases=["default"])

    assert found.id == "taskq.W005"
    assert found.msg.startswith("1 tasks wait in the outbox of database 'default'")
    assert check_outbox(None) == [], "databases are looked at only where they are asked for"
    settings.TASKQ = {"URL": "redis://localhost/0", "ENQUEUE": "outbox"}
    assert check_outbox(None, databases=["default"]) == []


@pytest.mark.django_db(transaction=True)
def test_an_outbox_without_a_table(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://localhost/0", "ENQUEUE": "outbox"}
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxTask)
    try:
        (found,) = check_outbox(None, databases=["default"])
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(OutboxTask)

    assert found.id == "taskq.E004"
    assert found.hint is not None
    assert "manage.py migrate taskq_django --database default" in found.hint
