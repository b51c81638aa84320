"""Test `OPTIONS` of the backend, the queues that workers serve for it, and its system checks."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.checks.messages import CheckMessage

from taskq_core import ConfigurationError
from taskq_django import taskq
from taskq_django.conf import read_settings
from taskq_django.tasks_backend.options import queues_of_tasks, read_defaults
from tests.rows import rows
from tests.taskq_django.parcels import tasks as parcels

OURS = "taskq_django.TaskQBackend"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    taskq.close()


def tasks_setting(**params: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": OURS, **params}}


def checked(prefix: str = "taskq.") -> list[CheckMessage]:
    return [each for each in run_checks() if str(each.id).startswith(prefix)]


@rows(
    ("given", "words"),
    [
        ([], "OPTIONS must be a dict, got list"),
        ({"DEFAULT": {}}, "unknown option of the backend 'DEFAULT'; did you mean 'DEFAULTS'"),
        ({"DEFAULTS": []}, "DEFAULTS must be a dict of task options, got list"),
        ({"DEFAULTS": {"max_rety": 1}}, "unknown task option in DEFAULTS 'max_rety'; did you mean 'max_retry'"),
        ({"DEFAULTS": {"queue": "a"}}, "DEFAULTS cannot have 'queue': the framework's queue_name"),
        ({"DEFAULTS": {"max_retry": -1}}, "DEFAULTS: max_retry must be between 0"),
        ({"PRIORITY_BANDS": {}}, "unknown option of the backend 'PRIORITY_BANDS'"),
    ],
)
def test_invalid_options_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_defaults(given)

    assert words in str(caught.value)


def test_workers_serve_the_queues_of_tasks(settings: Any) -> None:
    settings.TASKQ = {}
    settings.TASKS = {
        **tasks_setting(QUEUES=["default", "mail"]),
        "other": {"BACKEND": OURS, "QUEUES": ["slow"], "OPTIONS": 5},
        "foreign": {"BACKEND": "elsewhere.Backend", "QUEUES": ["foreign"]},
    }

    assert dict(read_settings().queues) == {
        "default-high": 6,
        "default": 3,
        "default-low": 1,
        "mail-high": 6,
        "mail": 3,
        "mail-low": 1,
        "slow-high": 6,
        "slow": 3,
        "slow-low": 1,
    }


def test_configured_queues_replace_those_of_tasks(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TASKS = tasks_setting()
    settings.TASKQ = {"QUEUES": {"default": 1}}
    assert dict(read_settings().queues) == {"default": 1}

    settings.TASKQ = {}
    monkeypatch.setenv("TASKQ_QUEUES", "mail=2")
    assert dict(read_settings().queues) == {"mail": 2}


@rows("setting", [None, [], {"default": None}, {"default": {"BACKEND": "elsewhere.Backend"}}])
def test_other_settings_of_tasks_need_no_queues(setting: object) -> None:
    assert queues_of_tasks(setting) == {}


# --- checks -----------------------------------------------------------------------------------------------------------


def test_valid_options_pass_all_checks(settings: Any) -> None:
    settings.TASKQ = {}
    settings.TASKS = tasks_setting()

    assert checked() == []


def test_e021_reports_invalid_options(settings: Any) -> None:
    settings.TASKQ = {}
    settings.TASKS = tasks_setting(OPTIONS={"DEFAULTS": {"max_rety": 1}})

    (found,) = checked()
    assert found.id == "taskq.E021"
    assert found.msg.startswith("TASKS['default']['OPTIONS']: unknown task option in DEFAULTS 'max_rety'")
    with pytest.raises(ConfigurationError, match="max_rety"):
        parcels.label.enqueue()


def test_e022_reports_a_missing_app(settings: Any) -> None:
    settings.TASKQ = {}
    settings.TASKS = tasks_setting()
    settings.INSTALLED_APPS = [each for each in settings.INSTALLED_APPS if each != "taskq_django"]

    found = parcels.label.get_backend().check()

    assert [each.id for each in found] == ["taskq.E022"]
    assert "'taskq_django' is not in INSTALLED_APPS" in found[0].msg


@rows(
    ("of_taskq", "of_backend", "ids"),
    [
        ({}, {}, []),
        ({"retention": 0}, {}, ["taskq.W021"]),
        ({"retention": 60}, {"retention": 0}, ["taskq.W021"]),
        ({"retention": 0}, {"retention": 60}, []),
    ],
)
def test_w021_warns_that_no_result_is_stored(settings: Any, of_taskq: Any, of_backend: Any, ids: list[str]) -> None:
    settings.TASKQ = {"DEFAULTS": of_taskq}
    settings.TASKS = tasks_setting(OPTIONS={"DEFAULTS": of_backend})

    assert [each.id for each in checked()] == ids


def test_w022_warns_of_a_queue_without_a_worker(settings: Any) -> None:
    settings.TASKQ = {"QUEUES": {"default": 1}}
    settings.TASKS = tasks_setting(QUEUES=["default", "mail", "news"])

    (found,) = checked()
    assert found.id == "taskq.W022"
    assert found.msg.endswith("no worker serves them: 'mail', 'news'.")


def rush() -> None:
    """A function that tests turn into a task."""


def test_w023_warns_of_an_ignored_priority(settings: Any) -> None:
    settings.TASKQ = {"QUEUES": {"default": 1, "default-low": 2}}
    settings.TASKS = tasks_setting()
    parcels.task(priority=5)(rush)
    try:
        (found,) = checked()
        settings.TASKQ = {"QUEUES": {"default": 1, "default-high": 2}}
        mended = checked()
    finally:
        del taskq._tasks[f"{__name__}.rush"]

    assert found.id == "taskq.W023"
    assert found.msg.endswith("so the priority is ignored: 'tests.taskq_django.test_backend_options.rush' (5).")
    assert mended == []


def test_an_invalid_taskq_setting_is_reported_once(settings: Any) -> None:
    settings.TASKQ = {"CONCURENCY": 1}
    settings.TASKS = tasks_setting()

    assert [each.id for each in checked()] == ["taskq.E001"]
