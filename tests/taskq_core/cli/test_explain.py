"""`taskq explain`, and the codes that lead to it."""

from collections.abc import Callable
from typing import Any

import pytest

from taskq_core.cli.explain import explanations
from tests.taskq_core.cli.conftest import Run

RunJson = Callable[..., Any]


def test_it_prints_the_meaning_of_an_error_and_its_fix(run: Run) -> None:
    lines = run("explain", "queue-not-found").stdout.splitlines()

    assert lines[0] == "queue-not-found (QueueNotFoundError)"
    assert lines[2] == "  means  No queue of this name is known."
    assert [line.split()[0] for line in lines if line[:2] == "  " and line[2] != " "] == ["means", "cause", "cure"]
    assert run("explain", "QueueNotFoundError").stdout.splitlines() == lines


def test_it_prints_json(run_json: RunJson) -> None:
    document = run_json("explain", "eviction")

    assert (document["code"], document["name"]) == ("eviction", None)
    assert "noeviction" in document["cure"]


def test_without_a_code_it_lists_all_errors(run: Run, run_json: RunJson) -> None:
    text = run("explain").stdout

    assert [code for code in explanations() if f"\n  {code} " not in text] == []
    assert [each["code"] for each in run_json("explain")["errors"]] == list(explanations())


def test_an_unknown_code_is_answered_with_the_nearest_one(run: Run) -> None:
    assert "did you mean 'queue-full'" in run("explain", "queue-ful", status=2).stderr
    assert "taskq explain lists all" in run("explain", "zzzz", status=2).stderr


def test_a_system_check_is_answered_with_the_page_that_explains_it(run: Run, run_json: RunJson) -> None:
    text = "taskq.W011 is a system check of Django; docs/reference/system-checks.md explains it\n"

    assert run("explain", "taskq.W011").stdout == run("explain", "(taskq.W011)").stdout == text
    assert run_json("explain", "taskq.E001") == {"code": "taskq.E001", "page": "docs/reference/system-checks.md"}


@pytest.mark.redis
def test_a_failure_names_its_code(run: Run, run_json: RunJson) -> None:
    assert run("queue", "pause", "absent", status=1).stderr.rstrip().endswith("[queue-not-found]")
    document = run_json("queue", "pause", "absent", status=1)
    assert document["queues"][0]["code"] == "queue-not-found"
