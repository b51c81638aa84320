"""Test `taskq dashboard`, which serves only this machine and only requests with its host name."""

import sys

import pytest

from taskq_core import TaskQ
from taskq_dashboard.serving import local_app
from tests.console import invoke
from tests.rows import rows
from tests.taskq_dashboard.dashboards import looking

pytestmark = pytest.mark.redis


def failing(*words: str) -> str:
    result = invoke(("dashboard", *words))
    assert result.exit_code in (1, 2)
    return result.output


@rows("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_the_command_refuses_to_listen_to_other_machines_without_a_password(host: str) -> None:
    assert "the dashboard has no login" in failing("--host", host, "--port", "0")


@rows(
    ("words", "expected"),
    [
        (("--host", "no such host"), "cannot be resolved"),
        (("--port", "99999"), "--port"),
        (("--login", "nothing"), "does not name a login hook"),
        (("--login", "no.such.module:login"), "there is no module"),
        (("--login", "math:pi"), "is not a function"),
    ],
)
def test_invalid_options_cause_a_one_line_error(words: tuple[str, ...], expected: str) -> None:
    assert expected in failing(*words)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "taskq_dashboard.serving", raising=False)
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
async def test_requests_with_a_foreign_host_header_are_refused(taskq: TaskQ, host: str, status: int) -> None:
    async with looking(local_app(taskq, read_only=False), user="", host=host) as web:
        if not host:
            web.headers["host"] = ""
        assert (await web.get("/")).status_code == status
