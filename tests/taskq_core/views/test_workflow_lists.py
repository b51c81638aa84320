"""Workflows of all queues, listed and searched, each with how far it is."""

from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import ConfigurationError, Discard, TaskQ
from taskq_core.inspector.cursors import write_cursor
from taskq_core.views import WorkflowCounts, WorkflowFilter, WorkflowRow
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import WorkflowState, chain, group, step
from tests.redis_server import RedisServer
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


@pytest.fixture
async def good(app: TaskQ) -> Any:
    @app.task(name="good")
    async def good(number: int = 0) -> int:
        return number

    return good


@pytest.fixture
async def bad(app: TaskQ) -> Any:
    @app.task(name="bad", max_retry=0)
    async def bad(number: int = 0) -> None:
        raise Discard(f"no {number}")

    return bad


async def work(app: TaskQ) -> None:
    """Run all that waits."""
    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0


async def counts_of(ask: Ask, *names: str) -> Any:
    return await ask("workflow_counts", names)


async def listed(ask: Ask, counts: Any, skip: int = 0, count: int = 50, **wanted: Any) -> list[str]:
    rows = await ask("list_workflows", counts, WorkflowFilter(**wanted), skip=skip, count=count)
    return [row.name for row in rows]


async def searched(ask: Ask, counts: Any, cursor: str | None = None, scan: int = 2_000, **wanted: Any) -> Any:
    found = await ask("search_workflows", counts, WorkflowFilter(**wanted), cursor=cursor, scan=scan)
    return [row.name for row in found.rows], found.scanned, found.total, found.cursor


async def test_a_row_has_the_progress_of_a_workflow(ask: Ask, app: TaskQ, good: Any, bad: Any) -> None:
    names = iter(("begun", "ended", "failed", "excused", "skipped"))
    for workflow in (
        chain(app.remote("elsewhere", queue="far").si(), group(good.si(n) for n in range(3)), good.si()),
        chain(good.si(), group(good.si(n) for n in range(3))),
        chain(group([good.si(), bad.si(), bad.si()]), good.si()),
        chain(step(bad.si(), on_failure="continue"), good.si()),
        chain(bad.si(), group(good.si(n) for n in range(3)), good.si()),
    ):
        await workflow.at_home("default").named(next(names)).adelay()
    off = await chain(app.remote("elsewhere", queue="far").si(), group([good.si()])).at_home("default").adelay()
    await work(app)
    await off.acancel()

    page = await ask("workflows", "default")
    found = {row.name: (row.state.value, row.steps, row.steps_ended, row.steps_failed) for row in page.rows}

    assert found == {
        "begun": ("running", 5, 0, 0),
        "ended": ("succeeded", 4, 4, 0),
        "failed": ("failed", 4, 4, 2),
        "excused": ("succeeded", 2, 2, 0),
        "skipped": ("failed", 5, 5, 1),
        "elsewhere → good-group": ("cancelled", 2, 2, 0),
    }
    assert {row.queue for row in page.rows} == {"default"}
    for row in page.rows:  # the same numbers as in its graph
        info = (await app.workflow(row.id, "default").agraph()).info
        assert (row.steps, row.steps_ended) == (info.total, info.ended), row.name


async def test_each_of_very_many_groups_counts_as_one_step(ask: Ask, app: TaskQ) -> None:
    many = group([group([app.remote("t").si(number=each) for each in range(3)]) for _ in range(101)])
    await many.adelay()

    (row,) = (await ask("workflows", "default")).rows

    assert (row.steps, row.steps_ended, row.steps_failed) == (101, 0, 0)


async def test_running_workflows_of_several_queues_come_first(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    keys = app.runtime.keys
    for number in range(8):
        queue = "ab"[number % 2]
        handle = await chain(app.remote("t", queue=queue).si()).named(f"{queue}{number}").adelay()
        redis_server.client.zadd(keys.queue(queue).workflows_running, {handle.id: number})
        if number < 4:
            await handle.acancel()
            redis_server.client.zadd(keys.queue(queue).workflows_ended, {handle.id: number})
    counts = await counts_of(ask, "b", "a", "gone")

    whole = await listed(ask, counts)

    assert counts == [
        WorkflowCounts(queue="a", running=2, ended=2),
        WorkflowCounts(queue="b", running=2, ended=2),
        WorkflowCounts(queue="gone", running=0, ended=0),
    ]
    assert whole == ["a6", "a4", "b7", "b5", "a2", "a0", "b3", "b1"]
    for skip in range(9):
        assert await listed(ask, counts, skip, 3) == whole[skip : skip + 3]
    assert await listed(ask, counts, queue="b") == ["b7", "b5", "b3", "b1"]
    assert await listed(ask, counts, state=WorkflowState.RUNNING) == whole[:4]
    assert WorkflowFilter(queue="b").size(counts) == WorkflowFilter(state=WorkflowState.RUNNING).size(counts) == 4


async def test_a_search_covers_names_ids_and_states_and_can_be_continued(
    ask: Ask, app: TaskQ, redis_server: RedisServer
) -> None:
    keys = app.runtime.keys
    handles = []
    for number in range(8):
        queue = "ab"[number % 2]
        handles.append(await chain(app.remote("t", queue=queue).si()).named(f"Order-{number}").adelay())
        redis_server.client.zadd(keys.queue(queue).workflows_running, {handles[-1].id: number})
        if number < 4:
            await handles[-1].acancel()
            redis_server.client.zadd(keys.queue(queue).workflows_ended, {handles[-1].id: number})
    redis_server.client.hdel(keys.queue("b").workflow(handles[5].id), "created")
    counts = await counts_of(ask, "a", "b")
    cancelled = ["Order-2", "Order-0", "Order-3", "Order-1"]

    assert await searched(ask, counts, text="oRDER-3") == (["Order-3"], 8, 8, None)
    assert await searched(ask, counts, text=handles[6].id[4:]) == (["Order-6"], 8, 8, None)
    assert await searched(ask, counts, state=WorkflowState.CANCELLED) == (cancelled, 4, 4, None)
    assert await searched(ask, counts, state=WorkflowState.DAMAGED) == (["Order-5"], 8, 8, None)
    assert await searched(ask, counts, state=WorkflowState.RUNNING, text="order-5") == ([], 4, 4, None)
    for scan in range(1, 5):
        found: list[str] = []
        cursor: str | None = None
        while True:
            names, scanned, total, cursor = await searched(
                ask, counts, cursor, scan, state=WorkflowState.CANCELLED, text="order"
            )
            assert (scanned <= scan, total) == (True, 4)
            found += names
            if cursor is None:
                break
        assert found == cancelled
    emptied = [WorkflowCounts(queue="b", running=0, ended=2)]
    assert (await searched(ask, emptied, write_cursor(["r", "a", 1]), text="order"))[0] == ["Order-3", "Order-1"]
    assert await searched(ask, emptied, write_cursor(["e", "b", 7]), text="order") == ([], 0, 2, None)


async def test_the_number_of_redis_commands_depends_on_rows_and_not_on_members(
    ask: Ask, app: TaskQ, commands_of: Callable[..., Any]
) -> None:
    await group(app.remote("t").si(number=number) for number in range(3)).adelay()
    await ask("workflows", "default")
    few = await commands_of("workflows", "default")
    await group(app.remote("t", queue="other").si(number=number) for number in range(3_000)).adelay()

    assert await commands_of("workflows", "other") == few
    assert await commands_of("workflow_counts", ["default", "other"]) == 2 * 3  # a script that counts two lists, twice


async def test_invalid_arguments_are_refused(ask: Ask, app: TaskQ) -> None:
    await chain(app.remote("t").si()).adelay()
    counts = await counts_of(ask, "default")

    for cursor in ("", "r", write_cursor(["r", "default"]), write_cursor(["r", "default", -1])):
        with pytest.raises(ConfigurationError, match="cursor must come from the previous call"):
            await searched(ask, counts, cursor)
    with pytest.raises(ConfigurationError, match="use search_workflows"):
        await listed(ask, counts, text="x")
    for wrong in ({"skip": -1}, {"count": 0}, {"count": 1_001}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must be between"):
            await listed(ask, counts, **wrong)
    with pytest.raises(ConfigurationError, match="scan must be between 1 and 2000"):
        await searched(ask, counts, scan=2_001)


def test_a_search_covers_id_name_and_home_queue() -> None:
    row = WorkflowRow(queue="mail", id="17", name="Order", state=WorkflowState.RUNNING, created_at=None, ended_at=None)

    assert [WorkflowFilter(text=text).fits(row) for text in ("MAIL", "order", "7", "x")] == [True, True, True, False]
