"""Test the setting `DEV_WORKER`: a worker inside `manage.py runserver`."""

import multiprocessing
import sys
from typing import Any

import pytest
from django.core.checks import run_checks

from taskq_core import ConfigurationError
from taskq_django import dev_worker, served_worker, taskq
from taskq_django.dev_worker import check_dev_worker, is_serving
from tests.rows import rows


@rows(
    ("arguments", "environ", "expected"),
    [
        (["manage.py", "runserver"], {}, False),
        (["manage.py", "runserver"], {"RUN_MAIN": "true"}, True),
        (["manage.py", "runserver", "--noreload"], {}, True),
        (["/x/django/__main__.py", "runserver", "0.0.0.0:80", "--norel"], {}, True),
        (["manage.py", "runserver", "--nothreading"], {}, False),
        (["manage.py", "runserver", "--help"], {"RUN_MAIN": "true"}, False),
        (["manage.py", "migrate"], {"RUN_MAIN": "true"}, False),
        (["manage.py", "runworker", "--autoreload"], {"RUN_MAIN": "true"}, False),
        (["manage.py", "test", "runserver"], {}, False),
        (["manage.py"], {}, False),
        ([], {}, False),
    ],
)
def test_only_a_serving_process_starts_a_development_worker(
    arguments: list[str], environ: dict[str, str], expected: bool
) -> None:
    assert is_serving(arguments, environ) is expected


@pytest.mark.parametrize("is_child", [False, True])
def test_a_child_process_of_the_server_starts_no_development_worker(
    settings: Any, monkeypatch: pytest.MonkeyPatch, is_child: bool
) -> None:
    """A process of `multiprocessing` has the command line of its parent."""
    settings.TASKQ = {"DEV_WORKER": True}
    settings.DEBUG = True
    started: list[str] = []
    monkeypatch.setattr(sys, "argv", ["manage.py", "runserver", "--noreload"])
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object() if is_child else None)
    monkeypatch.setattr(served_worker.BackgroundWorker, "start", lambda _: started.append("worker"))
    monkeypatch.setattr(served_worker, "_end_with_process", lambda *_: None)

    dev_worker.start_with_server()

    assert started == ([] if is_child else ["worker"])


def test_the_development_worker_is_refused_without_debug(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TASKQ = {"DEV_WORKER": True}
    assert [each.id for each in run_checks()] == [], "Django's tests turn DEBUG off themselves"
    monkeypatch.setattr(dev_worker, "are_tests_running", lambda: False)

    with pytest.raises(ConfigurationError, match="it needs DEBUG = True"):
        check_dev_worker(taskq.settings)

    assert [each.id for each in run_checks()] == ["taskq.E005"]
    settings.DEBUG = True
    assert run_checks() == []


def test_the_development_worker_is_refused_with_eager(settings: Any) -> None:
    settings.TASKQ = {"DEV_WORKER": True, "EAGER": True}
    settings.DEBUG = True

    (found,) = run_checks()

    assert found.id == "taskq.E005"
    assert "DEV_WORKER and EAGER are both set" in found.msg


def test_the_development_worker_causes_a_deployment_warning(settings: Any) -> None:
    settings.TASKQ = {"DEV_WORKER": True}

    assert "taskq.W006" in [each.id for each in run_checks(include_deployment_checks=True)]


def test_the_development_worker_can_be_set_in_the_environment(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKQ_DEV_WORKER", "yes")
    settings.TASKQ = {}

    assert taskq.settings.dev_worker
