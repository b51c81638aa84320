"""The page of guarantees is whole: each promise, rule and fault stands there once, with tests or a reason."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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


@pytest.mark.parametrize("part", PARTS)
def test_each_number_stands_there_once_and_in_order(part: str) -> None:
    assert [row.cells[0] for row in ROWS if row.part == part] == PARTS[part]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_names_tests_that_exist_or_a_reason(row: Row) -> None:
    assert all(row.cells), "a cell is empty"
    for cell in row.cells[1:] if row.part == "Front ends" else row.cells[-1:]:
        check_tests(cell)


def check_tests(shown: str) -> None:
    """Refuse a cell that names neither tests that exist nor a reason."""
    links = _LINK.findall(shown)
    if shown.startswith((NOT_HERE, NOT_THERE)):
        assert len(shown.split(":", 1)[1].split()) >= 5, "the reason is missing"
    else:
        assert links, "no test is named"
        assert _LINK.sub("", shown).strip(", ") == "", "something else than tests is named"
    for test, target in links:
        path, _, name = test.partition("::")
        assert (PAGE.parent / target).resolve() == ROOT / path
        assert name in names_of_tests(ROOT / path), f"{test} does not exist"
    assert len({test for test, _ in links}) == len(links), "a test is named twice"


@pytest.mark.parametrize("row", [row for row in ROWS if row.part == "Rules"], ids=str)
def test_where_a_rule_is_kept_exists(row: Row) -> None:
    places = _CODE.findall(row.cells[2])
    assert places, "no place is named"
    for place in places:
        assert (ROOT / place).exists(), place


def test_a_row_without_a_test_is_rare() -> None:
    """Go's own workers are all that cannot be had here."""
    assert [row.cells[0] for row in ROWS if row.cells[-1].startswith(NOT_HERE)] == ["49"]
