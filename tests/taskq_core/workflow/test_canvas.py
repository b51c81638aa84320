"""Test that an invalid workflow is refused where it is built, with the name of the step."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, WorkflowDefinitionError
from taskq_core.workflow import Workflow, after, chain, chord, group, step

app = TaskQ("redis://127.0.0.1:1/0")


@app.task
def start(a: int, b: int = 0) -> int:
    return a + b


@app.task
def follow(first: int, second: int = 0) -> int:
    return first + second


@app.task
def alone() -> None:
    return None


remote = app.remote("go:resize")

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no part": (lambda: chain(), "workflow: a chain needs at least one part"),
    "a task in place of a call": (lambda: chain(start.s(1), follow), "use its .s(...)"),
    "a result that is not taken": (
        lambda: chain(start.s(1), alone.s()),
        "takes 0 positional arguments but 1 was given",
    ),
    "a result too many": (lambda: start.s(1) | follow.s(2, 3), "takes from 1 to 2 positional arguments but 3"),
    "a result given twice": (lambda: start.s(1) | follow.s(first=2), "got multiple values for argument 'first'"),
    "a result for a member": (
        lambda: start.s(1) | group(follow.s(), alone.s()),
        "task 'tests.taskq_core.workflow.test_canvas.alone'",
    ),
    "an unknown parameter": (lambda: step(follow.s(), into="frist"), "did you mean 'first'?"),
    "a parameter of an immutable call": (lambda: step(follow.si(1), into="first"), "made by si()"),
    "a name of a step": (lambda: step(start.s(1), name="a b"), "must be 1 to 80 ASCII letters"),
    "a name of a workflow": (lambda: chain(start.s(1)).named(""), "must be 1 to 80 ASCII letters"),
    "a policy": (lambda: step(start.s(1), on_failure="ignore"), "on_failure must be 'stop' or 'continue'"),
    "an option": (lambda: step(start.s(1), quue="x"), "unknown task option 'quue'"),  # type: ignore[call-arg]
    "a callback that takes nothing": (lambda: start.s(1).on_error(alone.s()), "takes 0 positional arguments"),
    "a step twice": (
        lambda: Workflow().step("a", start.s(1)).step("a", start.s(1)),
        "step 'a': the workflow has a step with this name already",
    ),
    "a step after one twice": (
        lambda: Workflow().step("a", follow.s(), after=["b", "b"]),
        "after= names the step 'b' twice",
    ),
    "a wrong parameter of a step": (
        lambda: Workflow().step("join", follow.s(), after={"a": "frist"}),
        "step 'join': task 'tests.taskq_core.workflow.test_canvas.follow' got an unexpected keyword argument 'frist'",
    ),
    "results by position of a step": (lambda: Workflow().step("join", follow.s(1), after=["a", "b"]), "step 'join'"),
    "a remote task with arguments": (
        lambda: start.s(1) | remote.s(width=3),
        "name a parameter for the result with into=",
    ),
}


def test_an_invalid_workflow_is_refused_when_it_is_built(subtests: pytest.Subtests) -> None:
    for build, words in WRONG.values():
        with subtests.test(build=build, words=words):
            with pytest.raises(ConfigurationError) as refused:
                build()

            assert words in str(refused.value)


LATE: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown step": (
        lambda: Workflow().step("a", start.s(1)).step("b", follow.s(), after="aa"),
        "step 'b': its predecessor 'aa' is unknown; known steps: 'a', 'b'",
    ),
    "a circle": (
        lambda: (
            Workflow()
            .step("a", follow.s(), after="c")
            .step("b", follow.s(), after="a")
            .step("c", follow.s(), after="b")
        ),
        "the steps form a cycle: 'a' after 'c' after 'b' after 'a'",
    ),
    "a step after itself": (lambda: Workflow().step("a", follow.s(), after="a"), "the steps form a cycle"),
    "no steps": (lambda: Workflow(), "workflow: the workflow has no steps"),
    "an argument that is missing": (
        lambda: chain(start.s(), follow.s()),
        "step 'start': task 'tests.taskq_core.workflow.test_canvas.start' missing",
    ),
    "an argument of a wrong type": (
        lambda: chain(start.s("1"), follow.s()),
        "test_canvas.start' argument 'a': expected int, got str (position 1)",
    ),
    "an argument beside a result": (
        lambda: chain(start.s(1), follow.s("x")),
        "test_canvas.follow' argument 'second': expected int, got str (position 2)",
    ),
    "a name twice": (
        lambda: chain(step(start.s(1), name="x"), step(follow.s(), name="x")),
        "step 'x': the workflow has a step with this name already",
    ),
    "an id": (
        lambda: chain(start.s(1).using(task_id="x")),
        "step 'start': the option task_id is not allowed in a workflow",
    ),
    "a unique lock": (
        lambda: chain(start.s(1).using(unique_for=9)),
        "step 'start': the option unique_for is not allowed in a workflow",
    ),
    "an aggregation": (
        lambda: chain(start.s(1).using(aggregate="g")),
        "step 'start': the option aggregate is not allowed in a workflow",
    ),
    "a chain among streamed members": (
        lambda: group(each for each in (start.s(1), start.s(2) | follow.s())),
        "step 'group': member 1 of a streamed group must be a signature",
    ),
    "a workflow in a chain": (lambda: group([]), "a group without members"),
}


def test_an_invalid_workflow_is_refused_before_a_request_is_sent(subtests: pytest.Subtests) -> None:
    """The store of these tests does not exist, so a sent request would raise another error."""
    for build, words in LATE.values():
        with subtests.test(build=build, words=words):
            workflow = build()

            with pytest.raises(WorkflowDefinitionError) as refused:
                workflow.delay()

            assert words in str(refused.value)


async def test_adelay_refuses_an_invalid_workflow_before_a_request_is_sent() -> None:
    for build, words in LATE.values():
        with pytest.raises(WorkflowDefinitionError) as refused:
            await build().adelay()
        assert words in str(refused.value)


def test_methods_change_a_copy_and_not_the_original() -> None:
    first = chain(start.s(1))

    second = first.named("x").at_home("q").kept(9).on_success(follow.s())

    assert (first.details.name, first.callbacks.success) == (None, ())
    assert (second.details.name, second.details.queue, second.details.keep_s) == ("x", "q", 9.0)


def test_nested_chains_are_merged_into_one_chain() -> None:
    assert len((start.s(1) | follow.s() | follow.s() | (follow.s() | follow.s())).parts) == 5
    with pytest.raises(WorkflowDefinitionError):
        chain(start.s(1, 2) for _ in range(3))  # the second would take three arguments


def test_an_immutable_call_keeps_its_arguments() -> None:
    call = start.si(1).using(queue="x").with_headers({"a": "b"})

    assert call.is_immutable
    assert follow.s(second=1).with_arguments(first=5).arguments == {"first": 5, "second": 1}


def test_steps_have_deadlines_and_edges_compare_by_value() -> None:
    deadline = datetime(2030, 1, 1, tzinfo=UTC)

    assert step(start.s(1), deadline=deadline).call.task.options.deadline == deadline
    assert after("a", into="x", on_failure="continue") == after("a", into="x", on_failure="continue")
    members = [start.s(1), start.s(2)]
    assert chord(members, follow.s()).parts[0].members is members
