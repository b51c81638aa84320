"""Test workflows through their handles, on the store in memory, which runs one task after the other."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core import (
    Discard,
    NoCurrentTaskError,
    Retry,
    TaskQ,
    TaskState,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTimeoutError,
)
from taskq_core.broker.operations import workflows
from taskq_core.errors import QueueNotEmptyError
from taskq_core.inspector import Inspector
from taskq_core.testing import Captured, capture, eager
from taskq_core.views import Dashboard
from taskq_core.views.labels import step_state
from taskq_core.workflow import StepFailure, StepState, Workflow, WorkflowState, after, chain, chord, group, step
from tests.clock import at_time

app = TaskQ("redis://127.0.0.1:1/0", queues={"default": 1, "other": 1})
seen: list[Any] = []


@app.task
def add(a: int, b: int = 0) -> int:
    seen.append(("add", a, b))
    return a + b


@app.task
def double(a: int) -> int:
    return 2 * a


@app.task
def total(numbers: list[int | None]) -> int:
    return sum(each or 0 for each in numbers)


@app.task(max_retry=0)
def fail(a: Any = None) -> int:
    raise ValueError(f'no "way"\n{"é"}')


@app.task
def drop() -> None:
    raise Discard


@app.task(max_retry=3)
def fail_twice(a: int) -> int:
    seen.append("attempt")
    if seen.count("attempt") < 3:
        raise Retry(after=30)
    return a


@app.task
def note(*, what: Any) -> None:
    seen.append(what)


@app.task
def hear(result: Any) -> None:
    seen.append(result)


@app.task
def tell(failure: StepFailure) -> None:
    seen.append(failure)


@app.task
def say(text: str | None) -> str:
    return f"<{text}>"


@pytest.fixture
def tasks() -> Iterator[Captured]:
    seen.clear()
    with capture(app) as captured:
        yield captured


def states(handle: Any) -> dict[str, StepState]:
    return {each.name: each.state for each in handle.graph().steps}


def test_a_chain_passes_each_result_to_the_next_step(tasks: Captured) -> None:
    handle = chain(add.s(1, 2), double.s(), add.s(10)).delay()

    assert [run.name for run in tasks.run()] == [add.name, double.name, add.name]
    assert handle.result(timeout=0) == 16
    assert seen == [("add", 1, 2), ("add", 6, 10)]  # a result is the first argument, as in Celery
    assert handle.refresh().state is WorkflowState.SUCCEEDED


def test_operators_build_a_chain_and_immutable_calls_take_no_result(tasks: Captured) -> None:
    handle = (add.s(1) | add.si(5, 6) | double.s()).delay()

    tasks.run()

    assert handle.result(timeout=0) == 22


def test_a_step_starts_after_the_previous_step_succeeded(tasks: Captured) -> None:
    """The next step is not enqueued while the previous step is retried."""
    handle = (fail_twice.s(4) | double.s()).delay()

    tasks.run(raises=False)
    assert states(handle) == {"fail_twice": StepState.STARTED, "double": StepState.WAITING}
    tasks.run(advance=120, raises=False)

    assert seen.count("attempt") == 3
    assert handle.result(timeout=0) == 8


def test_steps_after_a_failed_step_are_skipped(tasks: Captured) -> None:
    handle = (add.s(1) | fail.s() | double.s() | double.s()).delay()

    tasks.run(raises=False)

    assert states(handle) == {
        "add": StepState.SUCCEEDED,
        "fail": StepState.FAILED,
        "double": StepState.SKIPPED,
        "double-2": StepState.SKIPPED,
    }
    with pytest.raises(WorkflowFailedError) as failed:
        handle.result(timeout=0)
    assert str(failed.value).endswith("step 'fail' failed: ValueError: no \"way\"\né")


def test_a_step_whose_task_drops_itself_has_failed(tasks: Captured) -> None:
    handle = (drop.si() | double.si(1)).delay()

    tasks.run()

    assert states(handle) == {"drop": StepState.FAILED, "double": StepState.SKIPPED}
    assert handle.graph().steps[0].error == "the task was dropped"


def test_a_step_that_may_fail_does_not_stop_the_next_step(tasks: Captured) -> None:
    handle = chain(step(fail.s(), on_failure="continue"), say.s()).delay()

    tasks.run(raises=False)

    assert handle.result(timeout=0) == "<None>"
    assert handle.refresh().state is WorkflowState.SUCCEEDED


def test_a_group_returns_its_results_in_order(tasks: Captured) -> None:
    handle = group(double.s(each) for each in range(5)).delay()

    tasks.run()

    assert handle.result(timeout=0) == [0, 2, 4, 6, 8]


def test_a_large_group_is_streamed(tasks: Captured) -> None:
    """A generator, which is read once, gives more members than are sent with the workflow itself."""
    handle = chord((double.s(each) for each in range(205)), total.s()).delay()

    assert handle.refresh().counts == {StepState.STARTED: 205, StepState.WAITING: 1}
    tasks.run()

    assert handle.result(timeout=0) == 205 * 204


def test_a_group_without_members_returns_an_empty_list(tasks: Captured) -> None:
    handle = (add.si(1) | group([]) | total.s()).delay()
    first = chord((double.s(each) for each in range(0)), total.s()).delay()

    tasks.run()

    assert [each.result(timeout=0) for each in (handle, first)] == [0, 0]


def test_map_and_starmap_start_one_member_per_item(tasks: Captured) -> None:
    mapped, starred = double.map([1, 2]).delay(), (add.starmap([(1, 2), (3, 4)]) | total.s()).delay()

    tasks.run()

    assert mapped.result(timeout=0) == [2, 4]
    assert starred.result(timeout=0) == 10


def test_a_group_in_the_middle_gives_each_member_the_result(tasks: Captured) -> None:
    handle = (add.s(1) | group(double.s(), add.s(10)) | total.s()).delay()

    tasks.run()

    assert handle.result(timeout=0) == 2 + 11


def test_a_large_group_in_the_middle_gets_the_result(tasks: Captured) -> None:
    """A script starts at most 200 members, and a worker's dispatcher the others. Here one script starts all."""
    handle = (add.s(1) | group([add.s(each) for each in range(105)]) | total.s()).delay()

    tasks.run()

    assert handle.result(timeout=0) == 105 + sum(range(105))


def test_groups_contain_chains_and_groups(tasks: Captured) -> None:
    handle = group(chain(add.s(1), double.s()), group(double.s(4), double.s(5)), double.s(7)).delay()

    tasks.run()

    assert handle.result(timeout=0) == [2, [8, 10], 14]


def test_a_chord_stops_or_goes_on_when_members_fail(tasks: Captured) -> None:
    stops = chord([double.s(1), fail.s(2)], total.s()).delay()
    goes_on = chord([double.s(1), fail.s(2)], total.s(), on_failure="continue").delay()

    tasks.run(raises=False)

    with pytest.raises(WorkflowFailedError, match=r"step 'double-group' failed: member 1: ValueError"):
        stops.result(timeout=0)
    assert goes_on.result(timeout=0) == 2
    assert stops.graph().steps[0].failed == 1


def test_success_and_completion_callbacks_run_after_success(tasks: Captured) -> None:
    workflow = (add.s(1) | double.s()).on_success(add.s(100)).on_error(tell.s()).on_complete(note.s(what="over"))
    handle = workflow.delay()

    tasks.run()

    assert seen == [("add", 1, 0), ("add", 2, 100), "over"]
    assert states(handle)["tell"] is StepState.SKIPPED
    assert handle.result(timeout=0) == 2  # not that of a callback


def test_callbacks_of_a_workflow_of_named_steps_get_its_result(tasks: Captured) -> None:
    """Callbacks get the result of the last step, or a dict of results if there are several last steps."""
    one = Workflow().step("a", add.s(1)).step("b", double.s(), after="a").on_success(hear.s()).on_complete(hear.s())
    several = Workflow().step("a", add.s(1)).step("b", add.s(2)).on_success(hear.s()).on_complete(hear.s())
    handles = one.delay(), several.delay()

    tasks.run()

    results = [handle.result(timeout=0) for handle in handles]
    assert results == [2, {"a": 1, "b": 2}]
    heard = [each for each in seen if not isinstance(each, tuple)]
    assert len(heard) == 4
    assert all(heard.count(each) == 2 for each in results)


def test_error_and_completion_callbacks_run_after_a_failure(tasks: Captured) -> None:
    """An error callback runs once, and gets the name of the failed step."""
    workflow = (add.s(1) | fail.s() | double.s()).on_success(note.si(what="?")).on_error(tell.s())
    handle = workflow.on_complete(note.si(what="over")).delay()

    tasks.run(raises=False)

    assert seen[1:] == [
        {
            "workflow": handle.id,
            "step": "fail",
            "task": fail.name,
            "task_id": f"{handle.id}.fail",
            "error": 'ValueError: no "way"\né',
        },
        "over",
    ]


def test_named_steps_run_in_the_order_of_their_edges(tasks: Captured) -> None:
    """The graph fans out and in. Results are passed by position, by parameter name, or not at all."""
    workflow = Workflow("sums").step("a", add.s(1, 1))
    workflow.step("join", add.s(), after=["left", "right"]).step("left", double.s(), after="a")
    workflow.step("right", add.s(b=3), after="a").step("end", add.s(1), after={"a": "b", "join": None})
    handle = workflow.delay()

    tasks.run()

    assert handle.result(timeout=0) == 1 + 2
    assert ("add", 4, 5) in seen
    graph = handle.graph()
    assert (graph.info.name, graph.info.total) == ("sums", 5)
    assert {each.name: dict(each.after) for each in graph.steps}["join"] == {"left": "success", "right": "success"}
    assert [each.name for each in graph.steps].index("join") > [each.name for each in graph.steps].index("right")


def test_the_result_of_several_last_steps_is_a_dict(tasks: Captured) -> None:
    handle = Workflow().step("a", add.s(1)).step("b", double.s(), after="a").step("c", add.s(5), after="a").delay()

    tasks.run()

    assert handle.result(timeout=0) == {"b": 2, "c": 6}


def test_an_edge_overrides_the_failure_policy(tasks: Captured) -> None:
    workflow = Workflow().step("bad", fail.s()).step("good", add.s(1))
    workflow.step("stops", say.s(), after="bad")
    workflow.step("goes_on", say.s(), after=[after("bad", on_failure="continue"), after("good", into="")])
    handle = workflow.delay()

    tasks.run(raises=False)

    assert states(handle) == {
        "bad": StepState.FAILED,
        "good": StepState.SUCCEEDED,
        "stops": StepState.SKIPPED,
        "goes_on": StepState.SUCCEEDED,
    }


def test_a_step_runs_its_own_callbacks(tasks: Captured) -> None:
    workflow = Workflow().step("bad", fail.s(), on_error=tell.s(), on_complete=note.si(what="over"))
    workflow.step("good", add.s(1), on_success=[double.s(), note.si(what="good")], on_error=tell.s())
    handle = workflow.delay()

    tasks.run(raises=False)

    assert [each["step"] for each in seen if isinstance(each, dict)] == ["bad"]
    assert {"over", "good"} <= {each for each in seen if isinstance(each, str)}
    assert handle.refresh().state is WorkflowState.FAILED


def test_a_workflow_continues_when_its_failed_step_succeeds_later(tasks: Captured) -> None:
    """An operator runs the archived task again, or it was archived by mistake."""
    seen.append("attempt")  # the task succeeds in its third attempt
    workflow = (fail_twice.s(4).using(max_retry=0) | double.s()).on_error(tell.s())
    handle = workflow.delay()
    tasks.run(raises=False)
    assert handle.refresh().state is WorkflowState.FAILED

    Inspector(app).run_task("default", f"{handle.id}.fail_twice")
    tasks.run(raises=False)

    assert handle.result(timeout=0) == 8
    assert states(handle)["double"] is StepState.SUCCEEDED


def test_a_handle_reports_the_progress_of_a_running_workflow(tasks: Captured) -> None:
    handle = (add.s(1) | double.s()).named("two").delay()

    info = handle.refresh()
    assert (info.state, info.total, info.ended, info.ended_at) == (WorkflowState.RUNNING, 2, 0, None)
    with pytest.raises(WorkflowTimeoutError):
        handle.result(timeout=0)

    tasks.run()
    assert handle.refresh().ended == 2
    assert app.workflow(handle.id).result(timeout=0) == 2
    with pytest.raises(WorkflowNotFoundError):
        app.workflow("none").refresh()


def test_a_graph_is_shown_as_text_chart_and_json(tasks: Captured) -> None:
    handle = (add.s(1) | group(double.s(), double.s()) | total.s()).delay()

    graph = handle.graph()

    assert graph.to_text().splitlines() == [
        "add           started",
        "double-group  waiting    0/2  after add",
        "total         waiting    after double-group",
    ]
    assert "    n0 --> n1\n" in graph.to_mermaid()
    assert [each["state"] for each in graph.to_dict()["steps"]] == ["started", "waiting", "waiting"]


def test_the_graph_shows_the_attempts_and_the_error_of_a_failed_step(tasks: Captured) -> None:
    handle = (fail_twice.s(1) | double.s()).delay()

    tasks.run(advance=31, raises=False)
    first = handle.graph().steps[0]
    assert (first.state, first.status, first.error) == (
        StepState.STARTED,
        "retrying 2/3",
        "the task asked to be retried",
    )
    assert handle.graph().to_text().splitlines()[0] == "fail_twice  retrying 2/3  (the task asked to be retried)"
    assert step_state(first) == "retrying 2/3", "as the admin and the dashboards show it"

    tasks.run(advance=60)
    assert [step.status for step in handle.graph().steps] == ["succeeded", "succeeded"]


def test_the_dashboard_shows_the_attempts_and_the_error_of_a_failed_member(tasks: Captured) -> None:
    handle = group(fail_twice.s(1), add.using(run_after=60).s(1)).delay()

    tasks.run(raises=False)
    found = Dashboard(Inspector(app)).workflow_step(handle.queue, handle.id, handle.graph().steps[0].name)
    assert [(each.retried, each.max_retry, each.error) for each in found.members] == [
        (1, 3, "the task asked to be retried"),
        (0, 0, ""),
    ]


def test_a_step_overrides_the_options_of_its_task(tasks: Captured) -> None:
    handle = chain(add.s(1), step(double.s(), run_after=30, name="later", max_retry=7)).delay()

    tasks.run()
    assert states(handle) == {"add": StepState.SUCCEEDED, "later": StepState.STARTED}
    tasks.run(advance=60)

    assert handle.result(timeout=0) == 2


async def test_workflows_work_the_same_from_coroutines(tasks: Captured) -> None:
    handle = await (add.s(1) | group(double.s(each) for each in range(0)) | total.si([1])).adelay()
    members = await chord((double.s(each) for each in range(205)), total.s()).adelay()

    await tasks.arun()

    assert await handle.aresult(timeout=0) == 1
    assert await members.aresult(timeout=0) == 205 * 204
    assert (await handle.arefresh()).state is WorkflowState.SUCCEEDED
    assert (await handle.agraph()).info.id == handle.id


def test_ended_steps_without_retention_are_deleted(tasks: Captured) -> None:
    """Steps with a retention keep their tasks."""
    kept = (add.s(1) | double.s().using(retention=60)).delay()

    tasks.run()

    completed = Inspector(app).tasks("default", TaskState.COMPLETED)
    assert [each.id for each in completed.tasks] == [f"{kept.id}.double"]


# --- extended groups --------------------------------------------------------------------------------------------------


@app.task(max_retry=3, retry_delay=0)
def crawl(depth: int, width: int, *, fails: bool = False) -> int:
    """Add members; with `fails` fail once after that."""
    seen.append(("crawl", depth))
    if depth:
        app.extend_group(crawl.s(depth - 1, width) for _ in range(width))
        app.extend_group([crawl.s(0, 0)])
    if fails and seen.count("failed") == 0:
        seen.append("failed")
        raise ValueError("once")
    return 1


def test_members_add_members_to_their_group(tasks: Captured) -> None:
    """Added members add members too, and the next step waits for all of them."""
    handle = chord([crawl.s(2, 3), crawl.s(0, 0)], total.s()).delay()

    tasks.run()

    members = 2 + 3 + 1 + 3 * (3 + 1)
    assert handle.result(timeout=0) == members
    assert handle.graph().steps[0].members == members


def test_a_retried_member_adds_its_members_once(tasks: Captured) -> None:
    handle = chord([crawl.s(1, 205, fails=True)], total.s()).delay()

    tasks.run(advance=5, raises=False)

    assert seen.count("failed") == 1
    assert handle.result(timeout=0) == 1 + 205 + 1


@pytest.mark.parametrize("how", ["a step", "a task"])
def test_only_members_of_a_group_can_extend_it(tasks: Captured, how: str) -> None:
    if how == "a step":
        chain(crawl.s(1, 1).using(max_retry=0)).delay()
    else:
        crawl.using(max_retry=0).delay(1, 1)

    runs = tasks.run(raises=False)

    assert "is not a member of a group" in str(runs[0].error)
    with pytest.raises(NoCurrentTaskError):
        app.extend_group([crawl.s(1, 1)])


def test_added_members_may_fail_or_be_in_another_queue(tasks: Captured) -> None:
    @app.task(name="grow", max_retry=0)
    def grow() -> int:
        app.extend_group([elsewhere(double.s(1)), fail_twice.s(7).using(max_retry=0)])
        return 0

    seen.append("attempt")
    handle = chord([grow.s()], total.s()).delay()
    tasks.run(raises=False)
    assert handle.refresh().state is WorkflowState.FAILED

    assert handle.retry() == 1
    tasks.run(raises=False)

    assert handle.result(timeout=0) == 0 + 2 + 7


# --- steps in different queues ----------------------------------------------------------------------------------------


def elsewhere(call: Any) -> Any:
    return call.using(queue="other")


def test_steps_run_in_different_queues(tasks: Captured) -> None:
    handle = (add.s(1) | elsewhere(double.s()) | add.s(5) | group(elsewhere(double.s()), add.s(1)) | total.s()).delay()

    runs = tasks.run()

    assert [run.queue for run in runs][:3] == ["default", "other", "default"]
    assert handle.result(timeout=0) == 2 * 7 + 8
    assert handle.queue == "default"


def test_a_workflow_is_stored_in_another_queue_than_its_steps(tasks: Captured) -> None:
    handle = (elsewhere(add.s(1)) | double.s()).at_home("third").delay()

    tasks.run()

    assert handle.result(timeout=0) == 2
    assert app.workflow(handle.id, "third").refresh().state is WorkflowState.SUCCEEDED


def test_members_of_a_group_run_in_another_queue(tasks: Captured) -> None:
    """This holds for a streamed group, and for a group after another step."""
    streamed = chord((elsewhere(double.s(each)) if each % 2 else double.s(each) for each in range(205)), total.s())
    first, second = streamed.delay(), (add.s(0) | group([elsewhere(add.s(each)) for each in range(120)]) | total.s())
    later = second.delay()

    tasks.run()

    assert first.result(timeout=0) == 205 * 204
    assert later.result(timeout=0) == sum(range(120))


def test_a_failure_in_another_queue_fails_the_workflow(tasks: Captured) -> None:
    handle = (elsewhere(fail.s()) | double.s()).on_error(tell.s()).delay()

    tasks.run(raises=False)

    assert states(handle)["double"] is StepState.SKIPPED
    assert seen[0]["error"] == 'ValueError: no "way"\né'


def test_a_group_with_more_members_than_one_script_starts_completes(tasks: Captured) -> None:
    handle = (add.s(0) | group([add.s(each) for each in range(205)]) | total.s()).delay()

    tasks.run()

    assert handle.result(timeout=0) == sum(range(205))


def test_a_workflow_continues_after_its_step_is_moved_to_another_queue(tasks: Captured) -> None:
    handle = (add.s(1) | double.s()).delay()
    Inspector(app).move_task("default", f"{handle.id}.add", "other")

    tasks.run()

    assert handle.result(timeout=0) == 2


# --- cancel and retry -------------------------------------------------------------------------------------------------


def test_a_cancelled_workflow_starts_no_further_steps(tasks: Captured) -> None:
    handle = (add.s(1) | double.s()).delay()
    members = group(elsewhere(add.s(each)) if each % 2 else add.s(each) for each in range(105)).delay()

    assert (handle.cancel(), handle.cancel(), members.cancel()) == (True, True, True)

    assert tasks.run() == []
    assert Inspector(app).count("default", TaskState.PENDING) == 0
    assert set(states(handle).values()) == {StepState.CANCELLED}
    with pytest.raises(WorkflowCancelledError):
        handle.result(timeout=0)


def test_a_cancelled_step_in_another_queue_is_dropped(tasks: Captured) -> None:
    handle = chain(elsewhere(add.s(1)).using(run_after=60, queue="other")).at_home("default").delay()
    tasks.run()
    assert Inspector(app).count("other", TaskState.SCHEDULED) == 1

    assert handle.cancel()

    assert tasks.run(advance=120) == []
    assert Inspector(app).count("other", TaskState.PENDING) == 0


@pytest.mark.parametrize("is_moved", [False, True])
@pytest.mark.parametrize("queue", ["default", "other"])
def test_a_cancelled_step_is_dropped_after_its_workflow_has_expired(
    tasks: Captured, queue: str, is_moved: bool
) -> None:
    """The step starts after the retention of the cancelled workflow is over."""
    handle = chain(add.s(1).using(run_after=60, queue=queue)).at_home("default").kept(1).delay()
    tasks.run()
    assert handle.cancel()
    home = app.runtime.keys.queue("default")
    later_ns = time.time_ns() + 30 * 10**9
    assert app.runtime.runner.run(at_time(later_ns, workflows.clean_workflows(home))) == 1
    if is_moved:
        Inspector(app).move_task(queue, f"{handle.id}.add", "other" if queue == "default" else "default")

    assert tasks.run(advance=120) == []
    assert [each.size for each in Inspector(app).queue_infos()] == [0] * len(Inspector(app).queues())


def test_an_ended_workflow_cannot_be_cancelled(tasks: Captured) -> None:
    handle = chain(add.s(1)).delay()
    tasks.run()

    assert not handle.cancel()
    assert handle.result(timeout=0) == 1
    with pytest.raises(WorkflowNotFoundError):
        app.workflow("none").cancel()


@pytest.mark.parametrize("queue", ["default", "other"])
def test_a_retry_continues_the_workflow_at_the_failed_step(tasks: Captured, queue: str) -> None:
    seen.append("attempt")
    bad = fail_twice.s().using(max_retry=0, queue=queue)
    handle = (add.s(1, 3) | bad | double.s() | double.s()).on_error(tell.s()).delay()
    tasks.run(raises=False)
    assert states(handle)["double-2"] is StepState.SKIPPED

    assert handle.retry() == 1
    assert handle.refresh().state is WorkflowState.RUNNING
    tasks.run(raises=False)

    assert handle.result(timeout=0) == 16
    assert seen.count(("add", 1, 3)) == 1  # what had succeeded does not run again
    assert handle.retry() == 0


def test_a_retry_enqueues_a_deleted_task_again(tasks: Captured) -> None:
    """The archived task was deleted, so it is created again from the workflow's data."""
    seen.append("attempt")
    handle = (add.s(4) | fail_twice.s().using(max_retry=0) | double.s()).delay()
    tasks.run(raises=False)
    Inspector(app).delete_task("default", f"{handle.id}.fail_twice")

    assert handle.retry() == 1
    tasks.run(raises=False)

    assert handle.result(timeout=0) == 8


@pytest.mark.parametrize("queue", ["default", "other"])
def test_a_retry_runs_failed_members_again(tasks: Captured, queue: str) -> None:
    seen.append("attempt")
    bad = fail_twice.s(4).using(max_retry=0, queue=queue)
    handle = chord([double.s(1), bad, double.s(3)], total.s()).delay()
    tasks.run(raises=False)
    assert handle.refresh().state is WorkflowState.FAILED

    assert handle.retry() == 1
    tasks.run(raises=False)

    assert handle.result(timeout=0) == 2 + 4 + 6


def test_a_member_whose_task_was_deleted_is_not_retried(tasks: Captured) -> None:
    handle = group([drop.si(), double.s(1)], name="both").delay()
    tasks.run()
    assert handle.refresh().state is WorkflowState.FAILED

    assert handle.retry() == 0
    assert handle.refresh().state is WorkflowState.FAILED


def test_a_workflow_fails_again_when_its_retry_fails(tasks: Captured) -> None:
    handle = (fail.s() | double.s()).delay()
    tasks.run(raises=False)

    assert handle.retry() == 1
    tasks.run(raises=False)

    assert states(handle) == {"fail": StepState.FAILED, "double": StepState.SKIPPED}
    assert handle.refresh().state is WorkflowState.FAILED


# --- queues and prefixes ----------------------------------------------------------------------------------------------


def test_a_queue_with_a_running_workflow_is_not_removed(tasks: Captured) -> None:
    """This holds even if all its steps are in other queues. With force, the queue and the workflow are removed."""
    handle = chain(add.s(1).using(run_after=60, queue="other")).at_home("third").delay()
    tasks.run()

    with pytest.raises(QueueNotEmptyError) as refused:
        Inspector(app).remove_queue("third")

    assert (refused.value.active, refused.value.waiting) == (0, 1)
    Inspector(app).remove_queue("third", force=True)
    with pytest.raises(WorkflowNotFoundError):
        handle.refresh()
    assert [run.outcome for run in tasks.run(advance=120)] == ["completed"]


def test_workflows_run_with_another_key_prefix() -> None:
    mine = TaskQ("redis://127.0.0.1:1/0", prefix="shop:dev")

    @mine.task(name="inc")
    def inc(a: int) -> int:
        return a + 1

    with capture(mine) as captured:
        handle = (inc.s(1) | inc.s().using(queue="a}:b") | inc.s()).delay()
        captured.run()

        assert handle.result(timeout=0) == 4


# --- modes of tests ---------------------------------------------------------------------------------------------------


def test_eager_runs_the_whole_workflow_inside_the_call() -> None:
    with eager(app) as tasks:
        handle = (add.s(1) | elsewhere(double.s()) | group(double.s(), add.s(1)) | total.s()).delay()

        assert handle.result(timeout=0) == 4 + 3
        assert [run.attempt for run in tasks.runs] == [1] * 5


def test_eager_reports_a_failed_workflow() -> None:
    with eager(app, raises=False):
        handle = (fail.s() | double.s()).delay()

        with pytest.raises(WorkflowFailedError):
            handle.result(timeout=0)


async def test_eager_runs_a_workflow_enqueued_by_a_coroutine() -> None:
    with eager(app):
        handle = await chord((double.s(each) for each in range(105)), total.s()).adelay()

        assert await handle.aresult(timeout=0) == 105 * 104
