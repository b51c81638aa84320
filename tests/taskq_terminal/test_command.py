"""Test `taskq dash`: its options, and its errors if it cannot draw."""

import os
import sys
from datetime import timedelta

import pytest

from taskq_terminal.app import DashApp
from taskq_terminal.command import background
from taskq_terminal.state import DashConfig
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[DashConfig]:
    """With a terminal: how the dashboard was begun, in place of beginning it."""
    begun: list[DashConfig] = []
    monkeypatch.setattr(DashApp, "run", lambda self: begun.append(self.shared.config))
    monkeypatch.setattr("taskq_terminal.command.has_terminal", lambda: True)
    return begun


def test_by_default_it_refreshes_every_two_seconds_and_permits_changes(run: Run, begun: list[DashConfig]) -> None:
    run("dash")

    assert begun == [DashConfig(refresh=timedelta(seconds=2), read_only=False, payloads=True, theme="dark")]


def test_options_are_passed_to_the_terminal_app(run: Run, begun: list[DashConfig]) -> None:
    run("dash", "--refresh", "0.5", "--read-only", "--hide-payloads", "--theme", "light")

    assert begun == [DashConfig(refresh=timedelta(seconds=0.5), read_only=True, payloads=False, theme="light")]


def test_a_refresh_interval_out_of_bounds_is_refused(
    run: Run, begun: list[DashConfig], subtests: pytest.Subtests
) -> None:
    for seconds in ["0.1", "0", "-1", "3601", "soon", "nan"]:
        with subtests.test(seconds=seconds):
            result = run("dash", "--refresh", seconds, status=None)

            assert result.exit_code in (1, 2)
            assert begun == []


@pytest.mark.parametrize(
    ("told", "found"),
    [("", "dark"), ("15;0", "dark"), ("0;15", "light"), ("0;default;15", "light"), ("0;7", "light"), ("?", "dark")],
)
def test_colors_depend_on_the_terminal(
    run: Run, begun: list[DashConfig], monkeypatch: pytest.MonkeyPatch, told: str, found: str
) -> None:
    monkeypatch.setenv("COLORFGBG", told)

    run("dash")

    assert background(told) == found
    assert begun[0].theme == found


def test_colors_can_be_disabled(run: Run, begun: list[DashConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")

    run("dash", "--color", "never")
    assert os.environ["NO_COLOR"] == "1"
    run("dash", "--color", "always")
    assert "NO_COLOR" not in os.environ

    assert len(begun) == 2


def test_without_a_terminal_it_is_refused(run: Run) -> None:
    result = run("dash", status=1)

    assert "taskq: taskq dash needs a terminal; taskq stats works without one" in result.stderr


def test_json_output_is_refused(run: Run) -> None:
    assert "taskq dash has no --json; use taskq stats --json" in run("dash", "--json", status=2).stderr


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("textual", "taskq_terminal") and name != "taskq_terminal.command":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)

    result = run("dash", status=1)

    assert "taskq dash needs a package that is not installed: pip install 'taskq-asynq[dash]'" in result.stderr
