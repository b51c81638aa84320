"""Test that every API, command and test on the parity page exists."""

import ast
import importlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

from taskq_core.cli.command import root

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "asynq-parity.md"
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One feature of Asynq and what taskq has for it."""

    section: str
    feature: str
    api: str
    test: str

    def __str__(self) -> str:
        return f"{self.section}: {self.feature}"


def rows() -> list[Row]:
    """The rows of all tables on the page."""
    found, section = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("|") and not line.startswith(("|---", "| Asynq |")):
            feature, api, test, _ = (cell.strip() for cell in line.strip()[1:-1].split("|"))
            found.append(Row(section=section, feature=feature, api=api, test=test))
    return found


ROWS = rows()


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions, classes and methods of a file, the latter as `Class::method`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(names)


def resolve(name: str) -> Any:
    """Import a dotted name: the longest part that is a module, then attributes."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            annotations = getattr(found, "__annotations__", {})  # a field of a record without a default
            found = annotations[part] if part in annotations and not hasattr(found, part) else getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def command_of(words: list[str]) -> click.Command:
    """Return the command that words name, whose options all have to be there."""
    context = click.Context(root)
    command: click.Command = root
    for word in words:
        if word.startswith("-"):
            known = {flag for each in command.get_params(context) for flag in (*each.opts, *each.secondary_opts)}
            assert word in known, f"{command.name} has no option {word}"
        else:
            assert isinstance(command, click.Group), f"{command.name} has no commands"
            found = command.get_command(context, word)
            assert found is not None, f"{command.name} has no command {word}"
            command = found
    return command


ROWS_BY_SECTION = {
    "Connection": 15,
    "Task and client": 35,
    "Server configuration": 35,
    "Handlers": 20,
    "Periodic tasks": 18,
    "Inspector": 36,
    "Extras": 15,
    "The CLI": 48,
    "asynqmon's server": 11,
    "asynqmon's pages": 26,
}
"""How many features of Asynq each part of the page has. One that is split or found makes it more, never fewer."""


def test_no_feature_is_missing() -> None:
    found = Counter(row.section for row in ROWS)

    assert found.keys() == ROWS_BY_SECTION.keys()
    assert {name: count for name, count in found.items() if count < ROWS_BY_SECTION[name]} == {}
    assert len({(row.section, row.feature) for row in ROWS}) == len(ROWS), "each stands there once"


def test_what_a_row_names_exists() -> None:
    problems = []
    for row in ROWS:
        try:
            check_api(row)
            check_tests(row)
        except (AssertionError, AttributeError, ImportError, OSError) as error:
            problems.append(f"{row}: {str(error).partition(chr(10))[0]}")

    assert not problems


def check_api(row: Row) -> None:
    names = _QUOTED.findall(row.api)
    assert names, "it names no API"
    for name in names:
        if name.startswith("taskq "):
            command_of(name.split()[1:])
        elif name.startswith("taskq_"):
            resolve(name)
        else:
            assert name.startswith("manage.py "), f"{name} is neither a dotted name nor a command"
            assert list(ROOT.glob(f"taskq_django/management/commands/{name.split()[1]}.py")), f"no command {name}"


def check_tests(row: Row) -> None:
    tests = _QUOTED.findall(row.test)
    assert tests, "it names no test"
    for test in tests:
        path, _, name = test.partition("::")
        assert name.rpartition("::")[2].startswith("test_"), f"{test} is not a test"
        assert name in names_in(ROOT / path), f"{test} does not exist"
