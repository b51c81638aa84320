"""Workflows in a terminal: their lists, their steps, and what is done to them."""

import pytest

from taskq_core import TaskQ
from taskq_core.testing import adrain
from taskq_core.workflow import WorkflowHandle, WorkflowState, step
from taskq_terminal.task import TaskScreen
from taskq_terminal.workflows import StepScreen, WorkflowScreen, WorkflowsScreen
from tests.browser.scene import TIMED_OUT, Scene
from tests.redis_server import RedisServer
from tests.taskq_terminal.conftest import Open
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis


@pytest.fixture
def handle(taskq: TaskQ, redis_server: RedisServer) -> WorkflowHandle:
    """Return a running workflow with a succeeded step, a failed step and a running group."""
    return Scene(redis_server, taskq).workflow


async def listed(person: Person) -> WorkflowsScreen:
    await person.press("5")
    await person.until(lambda: isinstance(person.look, WorkflowsScreen) and person.look.found is not None)
    assert isinstance(person.look, WorkflowsScreen)
    return person.look


async def whole(person: Person, handle: WorkflowHandle) -> WorkflowScreen:
    person.look.go("workflow", handle.queue, handle.id)
    await person.until(lambda: isinstance(person.look, WorkflowScreen) and person.look.found is not None)
    assert isinstance(person.look, WorkflowScreen)
    return person.look


async def test_workflows_are_listed_with_their_progress(opened: Open, handle: WorkflowHandle) -> None:
    async with opened(size=(130, 24)) as person:
        await listed(person)
        await person.sees("order-48217", "running", "11/18", "1 workflow running, 0 ended", handle.id)


@pytest.mark.usefixtures("handle")
async def test_workflows_can_be_filtered_by_state_and_text(opened: Open) -> None:
    async with opened(size=(100, 24)) as person:
        look = await listed(person)
        await person.press("right", "right")
        await person.until(lambda: look.choice is WorkflowState.SUCCEEDED)
        await person.sees("None of 0 workflows matches.")
        await person.click("#choices", offset=(3, 0))
        await person.sees("order-48217")
        await person.press("slash")
        await person.types("nothing")
        await person.sees("filter: nothing", "None of 1 workflows matches.")
        await person.press("escape")
        await person.sees("order-48217")


@pytest.mark.nightly
async def test_an_empty_list_of_workflows_shows_a_message(opened: Open) -> None:
    async with opened() as person:
        await listed(person)
        await person.sees("There is no workflow.")


async def test_each_step_is_drawn_below_its_predecessors(opened: Open, handle: WorkflowHandle) -> None:
    async with opened(size=(160, 30)) as person:
        await whole(person, handle)
        after = {cells[0].strip(): cells[2].strip() for cells in person.cells}

        assert next(iter(after)) == "reserve"
        assert after["reserve"] == ""
        assert after["charge"] == after["pictures"] == "reserve"
        await person.sees("started 8/12, 1 failed", TIMED_OUT[:20], "order-48217")


async def test_a_retried_step_shows_its_attempts_and_its_error(opened: Open, taskq: TaskQ) -> None:
    @taskq.task(name="charge", max_retry=7)
    def charge() -> None:
        raise ValueError("card is gone")

    handle = await taskq.aenqueue_workflow(step(charge.si(), name="charge"))
    await adrain(taskq, raises=False)

    async with opened(size=(120, 24)) as person:
        await whole(person, handle)
        await person.sees("retrying 1/7", "card is gone")


@pytest.mark.nightly
async def test_members_of_a_group_are_listed_in_pages_and_can_be_limited_to_failed_ones(
    opened: Open, handle: WorkflowHandle
) -> None:
    async with opened(size=(120, 14)) as person:
        await whole(person, handle)
        await person.press("down", "down", "enter")
        await person.until(lambda: isinstance(person.look, StepScreen) and person.look.found is not None)
        first = [cells[0].strip() for cells in person.cells]
        assert first[0] == "0"
        assert len(first) < 12
        await person.press("n")
        await person.until(lambda: [cells[0].strip() for cells in person.cells] != first)
        await person.press("right")
        await person.until(lambda: [cells[0].strip() for cells in person.cells] == ["3"])
        await person.sees("image file is truncated", "failed 1")
        await person.press("enter")
        await person.until(lambda: isinstance(person.look, TaskScreen))
        await person.sees(f"task {handle.id}.pictures.3")


@pytest.mark.nightly
async def test_a_step_shows_its_result_and_opens_its_task(opened: Open, handle: WorkflowHandle) -> None:
    async with opened(size=(120, 24)) as person:
        await whole(person, handle)
        await person.press("enter")
        await person.until(lambda: isinstance(person.look, StepScreen) and person.look.found is not None)
        await person.sees("step reserve", '{"reserved":2}')
        await person.press("o")
        await person.until(lambda: isinstance(person.look, TaskScreen) and person.look.found is not None)


@pytest.mark.nightly
async def test_the_task_of_a_step_opens_its_workflow(opened: Open, handle: WorkflowHandle) -> None:
    async with opened() as person:
        person.look.go("task", handle.queue, f"{handle.id}.reserve")
        await person.until(lambda: isinstance(person.look, TaskScreen) and person.look.found is not None)
        await person.until(lambda: "Workflow" in person.foot)
        await person.press("w")
        await person.until(lambda: isinstance(person.look, WorkflowScreen) and person.look.found is not None)
        await person.sees("workflow order-48217")


@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_workflow_is_cancelled_after_confirmation(
    opened: Open, handle: WorkflowHandle, is_listed: bool
) -> None:
    async with opened(size=(100, 24)) as person:
        await (listed(person) if is_listed else whole(person, handle))
        await person.press("c")
        await person.sees("Cancel the workflow “order-48217”", "of its 18 steps")
        await person.press("enter")
        await person.misses("Cancel the workflow “order-48217”")
        assert (await handle.agraph()).info.state is WorkflowState.RUNNING

        await person.press("c")
        await person.sees("Cancel the workflow “order-48217”")
        await person.press("y")
        await person.sees("is cancelled.")
        assert (await handle.agraph()).info.state is WorkflowState.CANCELLED

        await person.press("c")
        await person.sees("has already ended.")


async def test_failed_steps_are_retried_after_confirmation(opened: Open, handle: WorkflowHandle) -> None:
    async with opened(size=(100, 24)) as person:
        await whole(person, handle)
        await person.press("r")
        await person.sees("Run the failed steps of the workflow “order-48217”", "again (2)")
        await person.press("n")
        await person.misses("Run the failed steps")
        await person.press("r")
        await person.sees("Run the failed steps")
        await person.press("y")
        await person.sees("of the workflow “order-48217”", "again.")
