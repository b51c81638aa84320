"""Test that the tests cover all supported versions, and that deprecated code is removed with its release."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def overdue(sources: dict[str, str], version: str) -> list[str]:
    """Return deprecated code in the sources whose removal release is this one or earlier."""
    return [
        f"{path}: {named}"
        for path, source in sources.items()
        for named in re.findall(r"""removed_in=["']([^"']+)["']""", source)
        if release(named) <= release(version)
    ]


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
    packages = (
        "taskq_core",
        "taskq_dashboard",
        "taskq_django",
        "taskq_exporter",
        "taskq_fastapi",
        "taskq_migrate",
        "taskq_pydantic_ai",
        "taskq_sqlalchemy",
        "taskq_terminal",
    )
    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }

    assert len(sources) > 200
    assert overdue(sources, version) == []
