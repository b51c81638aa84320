"""What `manage.py check` says of the queue."""

from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, run_checks

from taskq_django import checks


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
