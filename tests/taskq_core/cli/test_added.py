"""Commands that other packages add to `taskq`."""

from importlib.metadata import EntryPoint
from typing import Any

import click
import pytest

from taskq_core.cli import added
from taskq_core.cli.command import SERVICES, make_root
from taskq_core.cli.plugin import Command, Session
from tests.console import invoke


@click.command("hello", cls=Command)
@click.pass_obj
def hello(session: Session) -> None:
    """Say hello."""
    session.output.line("hello")


def install(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Add entry points as if a package with them were installed, and make the root command anew."""

    def installed(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in points]

    monkeypatch.setattr(added, "entry_points", installed)
    monkeypatch.setattr("taskq_core.cli.command.root", make_root(SERVICES))


def test_a_command_of_another_package_runs_and_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("hello", f"{__name__}:hello"))

    assert invoke(("hello",)).output == "hello\n"
    assert "Say hello." in invoke(("--help",)).output


@pytest.mark.parametrize("name", ["worker", "twice"])
def test_a_name_that_exists_twice_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(monkeypatch, (name, "one:command"), (name, "another:command"))

    result = invoke(("--help",))

    assert result.exit_code == 1
    assert f"the command {name!r}" in result.output


@pytest.mark.parametrize("value", ["no_such_module:hello", f"{__name__}:no_such_name", f"{__name__}:pytest"])
def test_a_command_that_cannot_be_imported_fails_alone(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    install(monkeypatch, ("broken", value))

    result = invoke(("broken", "--all"))

    assert result.exit_code == 1
    assert "the command 'broken' of" in result.output
    assert "cannot be imported" in result.output
    assert "Cannot be imported." in invoke(("--help",)).output
    assert invoke(("version",)).exit_code == 0
