"""Test one step of a workflow: its result, and the members of a group, page by page."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from taskq_core import ConfigurationError, Discard, TaskQ, WorkflowNotFoundError
from taskq_core.views import StepDetail, has_task
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import WorkflowHandle, chain, group, step
from tests.redis_server import RedisServer
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


async def work(app: TaskQ) -> None:
    """Run all that waits in the queue default."""
    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0


async def step_of(ask: Ask, handle: WorkflowHandle, name: str, **page: int) -> StepDetail:
    found: StepDetail = await ask("workflow_step", handle.queue, handle.id, name, **page)
    return found


def told(found: StepDetail) -> list[tuple[int, str, str, str, Any]]:
    return [
        (each.number, each.queue, each.state.value, each.error, msgspec.json.decode(each.result or b"null"))
        for each in found.members
    ]


async def test_members_have_their_outcomes(ask: Ask, app: TaskQ) -> None:
    @app.task(name="half", max_retry=0)
    async def half(number: int) -> int:
        if number % 2:
            raise Discard(f"{number} is odd")
        return number // 2

    far = app.remote("far", queue="far")
    members = group([half.s(0), half.s(1), far.si(), half.s(4), half.s(5)], name="halves")
    handle = await chain(members, group([half.si(8)], name="later")).at_home("default").adelay()

    begun = await step_of(ask, handle, "halves")
    await work(app)
    found = await step_of(ask, handle, "halves")
    later = await step_of(ask, handle, "later")

    assert [(queue, state) for _, queue, state, _, _ in told(begun)] == [
        *(("default", "started"), ("default", "started"), ("far", "started"), ("default", "started")),
        ("default", "started"),
    ]
    assert told(found) == [
        (0, "default", "succeeded", "", 0),
        (1, "default", "failed", "the task was dropped", None),
        (2, "far", "started", "", None),
        (3, "default", "succeeded", "", 2),
        (4, "default", "failed", "the task was dropped", None),
    ]
    assert [each.task_id for each in found.members] == [f"{handle.id}.halves.{number}" for number in range(5)]
    assert (found.step.succeeded, found.step.failed, found.step.members) == (2, 2, 5)
    assert [told(later)[0][2], has_task(later.members[0])] == ["waiting", False]
    await handle.acancel()
    assert [each[2] for each in told(await step_of(ask, handle, "halves"))][2:] == ["cancelled", "succeeded", "failed"]
    assert told(await step_of(ask, handle, "later"))[0][2] == "cancelled"


async def test_members_added_by_a_running_member_have_separate_ids(ask: Ask, app: TaskQ) -> None:
    @app.task(name="leaf")
    async def leaf(number: int) -> int:
        return number

    @app.task(name="root")
    async def root() -> None:
        await app.aextend_group([leaf.s(7), leaf.s(8)])

    handle = await group([root.s()], name="tree").adelay()
    await work(app)
    found = await step_of(ask, handle, "tree")

    assert [(each[2], each[4]) for each in told(found)] == [("succeeded", None), ("succeeded", 7), ("succeeded", 8)]
    assert [each.task_id.removeprefix(f"{handle.id}.tree.0") for each in found.members] == ["", "-0", "-1"]
    assert [each.task_id for each in (await step_of(ask, handle, "tree", skip=2, count=1)).members] == [
        found.members[2].task_id
    ]


async def test_each_page_of_a_group_costs_the_same(ask: Ask, app: TaskQ, commands_of: Callable[..., Any]) -> None:
    few = await group([app.remote("t").si(number=number) for number in range(50)], name="g").adelay()
    many = await group((app.remote("t").si(number=number) for number in range(3_000)), name="g").adelay()
    await step_of(ask, few, "g")

    pages = [await step_of(ask, many, "g", skip=skip, count=400) for skip in range(0, 3_400, 400)]

    assert [each.number for page in pages for each in page.members] == list(range(3_000))
    assert {page.step.members for page in pages} == {3_000}
    price = await commands_of("workflow_step", "default", few.id, "g")
    assert await commands_of("workflow_step", "default", many.id, "g", skip=2_950) == price


async def test_failed_members_can_be_listed_alone(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    members = (app.remote("t").si(number=number) for number in range(3_000))
    handle = await group(members, name="g").adelay()
    key = f"{app.runtime.keys.queue('default').workflow(handle.id)}:f0"
    none = await step_of(ask, handle, "g", only_failed=True)
    redis_server.client.hset(key, mapping={str(number): "no ink" for number in (2_999, 7, 1_024)})
    few = await step_of(ask, handle, "g", only_failed=True)
    redis_server.client.hset(key, mapping={str(number): "no ink" for number in range(0, 3_000, 3)})
    many = await step_of(ask, handle, "g", only_failed=True, count=40)

    assert none.members == []
    assert [(each.number, each.state, each.error) for each in few.members] == [
        (number, "failed", "no ink") for number in (7, 1_024, 2_999)
    ]
    numbers = [each.number for each in many.members]
    assert (len(numbers), len(set(numbers)), sorted(numbers)) == (40, 40, numbers)
    assert {each.state for each in many.members} == {"failed"}
    with pytest.raises(ConfigurationError, match="skip must be 0 with only_failed, got 1"):
        await step_of(ask, handle, "g", only_failed=True, skip=1)


async def test_the_result_of_a_step_is_returned_and_truncated(ask: Ask, app: TaskQ) -> None:
    @app.task(name="long")
    async def long(size: int) -> str:
        return "x" * size

    handle = await chain(
        step(long.s(3), name="short"), step(long.si(70_000), name="long"), group([long.si(5_000)], name="g")
    ).adelay()
    await work(app)

    short, cut, (member,) = (
        await step_of(ask, handle, "short"),
        await step_of(ask, handle, "long"),
        (await step_of(ask, handle, "g")).members,
    )

    assert (short.result, short.result_size, short.step.task_id) == (b'"xxx"', 5, f"{handle.id}.short")
    assert (len(cut.result), cut.result_size) == (64 * 1024, 70_002)
    assert (len(member.result), member.result_size) == (4 * 1024, 5_002)
    assert (short.workflow_state, short.workflow_id, short.queue) == ("succeeded", handle.id, "default")


async def test_unknown_names_and_invalid_values_are_refused(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    handle = await group([app.remote("t").si()], name="g").named("w").adelay()

    assert (await step_of(ask, handle, "g", skip=10**9)).members == []
    with pytest.raises(WorkflowNotFoundError, match="the workflow has no step 'G'"):
        await step_of(ask, handle, "G")
    for wrong in ({"skip": -1}, {"count": 0}, {"count": 501}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must be"):
            await step_of(ask, handle, "g", **wrong)
    redis_server.client.delete(app.runtime.keys.queue("default").workflow(handle.id))
    with pytest.raises(WorkflowNotFoundError, match="no longer stored"):
        await step_of(ask, handle, "g")
