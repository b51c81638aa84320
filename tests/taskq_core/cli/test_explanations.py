"""Every error and warning that users meet has a code that stays, and an explanation."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import taskq_core
from scripts import error_page
from taskq_core.cli.explain import explanations, find_explanation, nearest_codes, plain, read_text
from taskq_core.errors import QueueFullError, TaskQError, code_of
from taskq_core.warnings import TaskQWarning
from tests.rows import rows

ROOT = Path(__file__).parents[3]
CODES = (ROOT / "tests/golden/codes.txt").read_text(encoding="utf-8").split()
"""Codes that were released: more may come, none may go."""
LOGGED = {"loop-blocked", "queue-unknown", "no-scheduler", "clock-skew", "eviction"}
"""Codes of warnings that appear only in the log."""


def kinds(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        if not kind.__name__.startswith("_") and not kind.__module__.startswith(("taskq_dashboard.", "tests.")):
            yield kind
        yield from kinds(kind)


def all_kinds() -> dict[str, type]:
    for package in (taskq_core, importlib.import_module("taskq_django.mail")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "uvloop")):
                importlib.import_module(module.name)
    found = {kind.__name__: kind for base in (TaskQError, TaskQWarning) for kind in kinds(base)}
    # Runners use them internally. Callers see only their base classes.
    internal = {"ClosedClientError", "LateError", "RedirectedError"}
    return {name: kind for name, kind in found.items() if name not in internal}


def test_each_error_class_has_an_explanation_and_no_explanation_is_unused() -> None:
    found = {(kind.code, name) for name, kind in all_kinds().items()}  # type: ignore[attr-defined]  # of both bases
    explained = {(each.code, each.name) for each in explanations().values()}

    assert found == explained - {(code, "") for code in LOGGED}
    assert {each.code for each in explanations().values() if not each.name} == LOGGED
    assert len(explanations()) == read_text().count("\n### ")


def test_a_released_code_never_disappears() -> None:
    assert set(CODES) - set(explanations()) == set()


def test_each_explanation_consists_of_complete_sentences() -> None:
    for each in explanations().values():
        for text in (each.means, each.cause, each.cure):
            assert text[0].isupper() or text[0] in "`[", (each.code, text)
            assert text.endswith("."), (each.code, text)


def test_the_error_page_matches_the_command() -> None:
    shown = error_page.PAGE.read_text(encoding="utf-8")

    assert shown == error_page.page(shown)


def test_a_code_is_derived_from_the_class_name_unless_given() -> None:
    class OddlyNamedHTTPError(TaskQError):
        code = "oddly-named"

    assert QueueFullError.code == "queue-full"
    assert OddlyNamedHTTPError.code == "oddly-named"
    assert code_of("PayloadSizeWarning") == "payload-size"
    assert QueueFullError("t", "q", "i", 3, 2).code == "queue-full"


@rows("text", ["queue-full", "QueueFullError", "taskq_core.errors.QueueFullError", "[queue-full]", " queue-full\n"])
def test_an_explanation_is_found_by_the_text_of_a_message_or_traceback(text: str) -> None:
    found = find_explanation(text)

    assert found is not None
    assert found.code == "queue-full"


def test_a_misspelled_code_is_answered_with_the_nearest_one() -> None:
    assert nearest_codes("QueueFulError")[0] == "queue-full"
    assert nearest_codes("queue-ful")[0] == "queue-full"
    assert nearest_codes("zzzz") == []
    assert find_explanation("queue-ful") is None
    assert find_explanation("") is None


def test_links_and_code_are_printed_as_plain_text() -> None:
    assert plain("give it a [`retention`](task-options.md) of `3`") == "give it a retention of 3"
