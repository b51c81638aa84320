"""Each row of the page of guarantees names faults and test files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "guarantees.md"
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def rows() -> list[list[str]]:
    """Return the cells of each row of each table."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| guarantee |")
    ]


def test_each_row_names_faults_and_test_files_that_exist() -> None:
    problems = []
    for guarantee, faults, tests in rows():
        links = _LINK.findall(tests)
        if not faults or not links or _LINK.sub("", tests).strip(", "):
            problems.append(f"{guarantee}: faults or tests are missing")
        for name, target in links:
            file = (PAGE.parent / target).resolve()
            if not file.exists() or file != ROOT / "tests" / f"{name}.py":
                problems.append(f"{guarantee}: {name} does not exist")

    assert len(rows()) > 50
    assert not problems


def test_a_guarantee_is_named_once() -> None:
    names = [row[0] for row in rows()]

    assert len(set(names)) == len(names)
