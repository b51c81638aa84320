"""What goes away is announced, with the release that has it no longer, and goes with it."""

import re
import tomllib
import warnings
from pathlib import Path

import pytest

from taskq_core.warnings import TaskQDeprecationWarning, TaskQWarning, warn_deprecated

ROOT = Path(__file__).parents[1]


def release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def overdue(sources: dict[str, str], version: str) -> list[str]:
    """What stands in sources though the release that was to remove it is this one or an earlier one."""
    return [
        f"{path}: {named}"
        for path, source in sources.items()
        for named in re.findall(r"""removed_in=["']([^"']+)["']""", source)
        if release(named) <= release(version)
    ]


def test_the_page_names_what_the_oldest_python_is_not_tested_with() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "explanation" / "stability.md").read_text(encoding="utf-8")
    left_out = re.findall(r'^once="(.*?)"$', script, re.DOTALL | re.MULTILINE)[0].split()
    table = page.partition("### Not on the oldest Python")[2]

    assert sorted(left_out) == sorted(re.findall(r"`(tests/[^`]+)`", table))
    assert [path for path in left_out if not (ROOT / path).exists()] == []


def test_the_package_promises_no_python_and_no_system_that_the_page_calls_not_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "explanation" / "stability.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (Python|system) \| (.*?) \|", page, re.MULTILINE))
    said = [each.split(" :: ") for each in project["classifiers"]]

    assert {each[-1] for each in said if each[:-1] == ["Programming Language", "Python"]} == set(
        re.findall(r"\b3\.\d+\b", rows["Python"])
    )
    assert [each[-1] for each in said if each[0] == "Operating System"] == [rows["system"].partition(" ")[0]]


def test_nothing_is_left_that_should_have_gone() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    packages = ("taskq_core", "taskq_django", "taskq_fastapi")
    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }

    assert len(sources) > 200
    assert overdue(sources, version) == []


def test_what_is_overdue_is_found() -> None:
    source = 'warn_deprecated("`a`", removed_in="0.3", instead="`b`")'

    assert overdue({"a.py": source}, "0.2.9") == []
    assert overdue({"a.py": source}, "0.3.0") == ["a.py: 0.3"]
    assert overdue({"a.py": source}, "0.10.0") == ["a.py: 0.3"]


def test_a_deprecation_says_what_to_use_and_names_the_line_that_uses_it() -> None:
    with pytest.warns(TaskQDeprecationWarning, match=r"^`a` goes away with taskq 0\.3; use `b`$") as said:
        warn_deprecated("`a`", removed_in="0.3", instead="`b`")

    assert [each.filename for each in said if each.category is TaskQDeprecationWarning] == [__file__]
    assert issubclass(TaskQDeprecationWarning, DeprecationWarning)
    assert issubclass(TaskQDeprecationWarning, TaskQWarning)


def test_it_can_be_made_an_error_as_any_deprecation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        with pytest.raises(TaskQDeprecationWarning):
            warn_deprecated("`a`", removed_in="0.3", instead="`b`")
