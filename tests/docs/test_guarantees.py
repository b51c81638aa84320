"""The page of guarantees is whole: each promise, rule and fault stands there once, with tests or a reason."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "guarantees.md"
PARTS = {
    "Promises": [str(number) for number in range(1, 18)],
    "Rules": [f"R{number}" for number in range(1, 22)],
    "Faults": [str(number) for number in range(1, 78)],
    "Front ends": [str(number) for number in range(55, 69)],
}
"""What has to stand in which part of the page."""
NOT_HERE = "Cannot be run:"
"""Begins the reason of a row without a test of its own."""
NOT_THERE = "Not here:"
"""Begins the reason why a fault cannot come to a front end."""
_LINK = re.compile(r"\[`([^`]+)`\]\(([^)]+)\)")
_CODE = re.compile(r"`(taskq_\w+/[^`]*)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table: its part of the page and its cells."""

    part: str
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.part} {self.cells[0]}"


def rows() -> list[Row]:
    """The rows of the three parts, whichever table of a part they stand in."""
    found, part = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            part = line.removeprefix("## ")
        elif part in PARTS and line.startswith("|") and not line.startswith(("|---", "| number |")):
            found.append(Row(part=part, cells=tuple(cell.strip() for cell in line.strip()[1:-1].split("|"))))
    return found


ROWS = rows()


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """Tests of a file, those of a class as `Class::test`."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}::{each.name}" for each in inner}
    return frozenset(name for name in names if name.rpartition("::")[2].startswith("test_"))


def test_each_number_is_listed_once_and_in_order() -> None:
    for part, numbers in PARTS.items():
        assert [row.cells[0] for row in ROWS if row.part == part] == numbers, part


def test_each_row_names_tests_that_exist_or_a_reason() -> None:
    problems = [
        f"{row}: {problem}"
        for row in ROWS
        for cell in (row.cells[1:] if row.part == "Front ends" else row.cells[-1:])
        for problem in problems_of(cell)
    ]

    assert not problems


def problems_of(shown: str) -> Iterator[str]:
    """Yield what is wrong with a cell that names tests, or the reason why there are none."""
    links = _LINK.findall(shown)
    if shown.startswith((NOT_HERE, NOT_THERE)):
        if len(shown.split(":", 1)[1].split()) < 5:
            yield "the reason is missing"
    elif not links or _LINK.sub("", shown).strip(", "):
        yield f"not a list of tests: {shown}"
    for test, target in links:
        path, _, name = test.partition("::")
        file = ROOT / path
        if not file.exists() or (PAGE.parent / target).resolve() != file or name not in names_of_tests(file):
            yield f"{test} does not exist"


def test_the_code_that_keeps_a_rule_exists() -> None:
    for row in ROWS:
        if row.part == "Rules":
            places = _CODE.findall(row.cells[2])
            assert places, f"{row} names no place"
            assert not [place for place in places if not (ROOT / place).exists()], row


def test_rows_without_a_test_are_rare() -> None:
    """Go's own workers are all that cannot be had here."""
    assert [row.cells[0] for row in ROWS if row.cells[-1].startswith(NOT_HERE)] == ["49"]
