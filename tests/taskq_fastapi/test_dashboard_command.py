"""`taskq dashboard`: open on this machine only, and for requests that name it only."""

import importlib.metadata
import sys
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_fastapi.dashboard.serving import local_app
from tests.console import invoke
from tests.rows import rows
from tests.taskq_fastapi.dashboards import looking

pytestmark = pytest.mark.redis


def failing(*words: str) -> str:
    result = invoke(("dashboard", *words))
    assert result.exit_code in (1, 2)
    return result.output


@rows("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_does_not_start_open_for_other_machines(host: str) -> None:
    assert "the dashboard has no login" in failing("--host", host, "--port", "0")


@rows(
    ("words", "said"),
    [
        (("--host", "no such host"), "cannot be resolved"),
        (("--port", "99999"), "--port"),
        (("--login", "nothing"), "does not name a login hook"),
        (("--login", "no.such.module:login"), "there is no module"),
        (("--login", "math:pi"), "is not a function"),
    ],
)
def test_what_is_not_usable_is_said_in_a_line(words: tuple[str, ...], said: str) -> None:
    assert said in failing(*words)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**selected: str) -> Any:
        return ()

    monkeypatch.setattr(importlib.metadata, "entry_points", none)
    assert "pip install 'taskq-asynq[dashboard]'" in failing()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "taskq_fastapi.dashboard.serving", raising=False)
    assert "pip install 'taskq-asynq[dashboard]'" in failing("--port", "0")


@rows(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:8080@evil.example", 403),
        ("127.0.0.1.evil.example:8080", 403),
        ("127.0.0.2", 200),
        ("", 403),
        ("localhost:", 200),
        ("localhost:x", 403),
    ],
)
async def test_only_requests_that_name_this_machine_are_answered(taskq: TaskQ, host: str, status: int) -> None:
    async with looking(local_app(taskq, read_only=False), user="", host=host) as web:
        if not host:
            web.headers["host"] = ""
        assert (await web.get("/")).status_code == status
