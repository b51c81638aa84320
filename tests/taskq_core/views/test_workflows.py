"""Workflows of a queue, as an operator sees them, and how one is drawn."""

import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, WorkflowNotFoundError
from taskq_core.errors import QueueNotFoundError
from taskq_core.views.graphs import BOX_HEIGHT, BOX_WIDTH, STEPS_MAX, GraphDrawing, drawing_of
from taskq_core.workflow import StepInfo, StepState, Workflow, WorkflowGraph, WorkflowInfo, WorkflowState
from tests.redis_server import RedisServer
from tests.taskq_core.views.conftest import Ask


def graph(**after: tuple[str, ...]) -> WorkflowGraph:
    """Return a workflow of these steps, each with what it comes after."""
    steps = tuple(
        StepInfo(
            name=name,
            task="t",
            queue="default",
            task_id=f"w.{name}",
            state=StepState.WAITING,
            after=dict.fromkeys(parents, "success"),
            is_callback=False,
            ended_at=None,
            error="",
        )
        for name, parents in after.items()
    )
    now = datetime.now(UTC)
    info = WorkflowInfo(
        id="w",
        queue="default",
        name="",
        state=WorkflowState.RUNNING,
        created_at=now,
        ended_at=None,
        total=len(steps),
        counts={},
    )
    return WorkflowGraph(info=info, steps=steps)


def drawn(**after: tuple[str, ...]) -> GraphDrawing:
    drawing = drawing_of(graph(**after))
    assert drawing is not None
    return drawing


def test_each_step_is_drawn_right_of_its_predecessors() -> None:
    drawing = drawn(a=(), b=("a",), c=("b",), d=("a", "c"), e=())
    layers = {box.step.name: box.layer for box in drawing.boxes}
    places = {box.step.name: box for box in drawing.boxes}

    assert layers == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 0}
    assert {(edge.source, edge.target) for edge in drawing.edges} == {
        *(("a", "b"), ("b", "c"), ("a", "d"), ("c", "d")),
    }
    for edge in drawing.edges:
        source, target = places[edge.source], places[edge.target]
        assert source.x + BOX_WIDTH < target.x
        assert edge.path.startswith(f"M{source.x + BOX_WIDTH} {source.y + BOX_HEIGHT // 2}C")
        assert f" {target.x} {target.y + BOX_HEIGHT // 2}M" in edge.path


def test_boxes_are_inside_the_drawing_and_do_not_overlap() -> None:
    parts = {f"p{number}": ("first",) for number in range(9)}
    drawing = drawn(first=(), **parts, last=tuple(parts))
    taken = sorted((box.x, box.y) for box in drawing.boxes)

    assert all(0 <= x <= drawing.width - BOX_WIDTH and 0 <= y <= drawing.height - BOX_HEIGHT for x, y in taken)
    assert all(x1 != x2 or y2 - y1 > BOX_HEIGHT for (x1, y1), (x2, y2) in pairwise(taken))


def test_avoidable_crossings_of_lines_are_avoided() -> None:
    drawing = drawn(a=(), b=(), c=(), x=("c",), y=("b",), z=("a",))
    rows = {box.step.name: box.row for box in drawing.boxes}

    assert (rows["x"], rows["y"], rows["z"]) == (rows["c"], rows["b"], rows["a"])


def test_lines_do_not_cross_boxes() -> None:
    """All lines that lead to one step share a lane."""
    chain = {f"s{number}": (f"s{number - 1}",) if number else () for number in range(9)}
    drawing = drawn(**chain, alarm=tuple(chain))
    boxes = [(box.x, box.y) for box in drawing.boxes]
    lanes = set()

    for edge in drawing.edges:
        for y1, x2 in re.findall(r" (\d+)H(\d+)", edge.path):
            lanes.add((int(x2), int(y1)))
            assert not [y for x, y in boxes if x == int(x2) - BOX_WIDTH and y <= int(y1) <= y + BOX_HEIGHT]
    assert len(lanes) == 8
    assert sum(len(edge.path) for edge in drawing.edges) < 100 * len(drawing.edges)
    assert drawing.height < 2 * BOX_HEIGHT


def test_a_workflow_that_is_too_large_is_not_drawn() -> None:
    assert drawn(**{f"s{number}": () for number in range(STEPS_MAX)}).boxes
    assert drawing_of(graph(**{f"s{number}": () for number in range(STEPS_MAX + 1)})) is None
    rope = {f"s{number}": (f"s{number - 1}", "first") for number in range(1, 200)}
    rope = {"first": (), "s0": ("first",), **rope}
    assert drawing_of(graph(**rope)) is None
    crowd = {f"s{number}": () for number in range(100)}
    assert drawing_of(graph(**crowd, **{f"t{number}": tuple(crowd) for number in range(40)})) is None


def test_an_empty_and_a_long_name_are_drawn() -> None:
    assert drawn() == GraphDrawing(boxes=[], edges=[], width=8, height=8)
    assert drawn(**{"n" * 80: ()}).boxes[0].label == "n" * 21 + "…"


# --- reads ------------------------------------------------------------------------------------------------------------


async def enqueued(app: TaskQ, name: str) -> Any:
    """Enqueue a workflow of two steps."""
    steps = (
        Workflow(name)
        .step("load", app.remote("load").s(), max_retry=0)
        .step("save", app.remote("save").s(), after="load")
    )
    return await app.aenqueue_workflow(steps)


@pytest.mark.redis
async def test_workflows_are_listed_running_first(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    handles = [await enqueued(app, f"w{number}") for number in range(5)]
    keys = app.runtime.keys.queue("default")
    for number, handle in enumerate(handles):
        redis_server.client.zadd(keys.workflows_running, {handle.id: number})
    await handles[1].acancel()
    await handles[3].acancel()
    redis_server.client.zincrby(keys.workflows_ended, 60, handles[3].id)

    page = await ask("workflows", "default")

    assert [(row.name, row.state) for row in page.rows] == [
        *(("w4", "running"), ("w2", "running"), ("w0", "running")),
        *(("w3", "cancelled"), ("w1", "cancelled")),
    ]
    assert (page.running, page.ended, page.total) == (3, 2, 5)
    assert page.rows[0].ended_at is None
    assert page.rows[3].ended_at >= page.rows[3].created_at
    for skip in range(6):
        part = await ask("workflows", "default", skip=skip, count=2)
        assert part.rows == page.rows[skip : skip + 2]


@pytest.mark.redis
async def test_a_deleted_workflow_is_omitted(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    first, second = await enqueued(app, "a"), await enqueued(app, "b")
    redis_server.client.delete(app.runtime.keys.queue("default").workflow(first.id))

    assert [row.id for row in (await ask("workflows", "default")).rows] == [second.id]


@pytest.mark.redis
async def test_a_damaged_workflow_does_not_hide_others(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    whole, *damaged = [await enqueued(app, f"w{number}") for number in range(4)]
    keys = app.runtime.keys.queue("default")
    redis_server.client.hset(keys.workflow(damaged[0].id), "state", "odd")
    redis_server.client.hdel(keys.workflow(damaged[1].id), "created")
    redis_server.client.delete(keys.workflow(damaged[2].id))
    redis_server.client.set(keys.workflow(damaged[2].id), "no hash")

    found = {row.id: (row.name, row.state, row.created_at is None) for row in (await ask("workflows", "default")).rows}

    assert found == {
        whole.id: ("w0", "running", False),
        damaged[0].id: ("w1", "damaged", True),
        damaged[1].id: ("w2", "damaged", True),
        damaged[2].id: ("", "damaged", True),
    }


@pytest.mark.redis
async def test_a_workflow_is_returned_with_its_drawing(ask: Ask, app: TaskQ) -> None:
    handle = await enqueued(app, "a")

    detail = await ask("workflow", "default", handle.id)

    assert detail.graph == await handle.agraph()
    assert [box.step.name for box in detail.drawing.boxes] == ["load", "save"]
    assert detail.failures == 0
    with pytest.raises(WorkflowNotFoundError):
        await ask("workflow", "default", "none")


@pytest.mark.redis
async def test_invalid_arguments_are_refused(ask: Ask, app: TaskQ) -> None:
    await enqueued(app, "a")

    for method, *args in (("workflows", "defaul"), ("workflow", "defaul", "x")):
        with pytest.raises(QueueNotFoundError, match="did you mean 'default'"):
            await ask(method, *args)
    for wrong in ({"skip": -1}, {"count": 0}, {"count": 1001}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must be .*, got"):
            await ask("workflows", "default", **wrong)
