"""What a task waits for, and the timeline of its steps."""

from datetime import timedelta
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ, TaskState
from taskq_core.errors import StepError, TaskActiveError, TaskNotFoundError, TaskStateError
from taskq_core.inspector import AsyncInspector
from taskq_core.testing import adrain
from taskq_core.views.labels import wait_text
from tests.publishing import publish_task
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


async def test_a_timeline_has_the_position_of_loops(ask: Ask, app: TaskQ) -> None:
    @app.task(name="go", max_retry=0)
    async def go(context: TaskContext) -> None:
        async for number in context.iterate(["a", "b"], name="letters"):
            if number == "b":
                raise LookupError

    handle = await go.adelay()
    await adrain(app, raises=False)

    (position,) = await ask("timeline", "default", handle.id)
    assert (position.kind, position.name, position.result) == ("position", "iterate", b'{"/letters":[1,1,false]}')
    assert position.started_at <= position.ended_at
    assert await AsyncInspector(app).forget_step("default", handle.id, "iterate")
    assert await ask("timeline", "default", handle.id) == []


async def test_a_timeline_has_steps_sub_tasks_and_signals(ask: Ask, app: TaskQ) -> None:
    inspector = AsyncInspector(app)
    handle = await publish_task(app).adelay(photo_id=7)
    await adrain(app)

    info = await inspector.task("default", handle.id)
    step, children, review = await ask("timeline", "default", handle.id)

    assert info.wait == (await inspector.tasks("default", TaskState.SCHEDULED)).tasks[0].wait
    assert (info.wait.kind, info.wait.name, info.wait.number) == ("signal", "review", 1)
    assert info.wait.until == info.next_run_at
    assert (
        wait_text(info.wait, lambda left: f"{round(left / timedelta(days=1))} days")
        == "waiting for review, 7 days left"
    )
    assert (step.kind, step.name, step.result) == ("step", "moderate", b'{"photo":7}')
    assert step.started_at <= step.ended_at <= children.started_at <= children.ended_at <= review.started_at
    assert (children.kind, children.name, children.result) == ("sub-tasks", "call", b"[320]")
    assert children.workflow_id.startswith(f"{handle.id}.call.")
    assert (review.kind, review.name, review.ended_at) == ("signal", "review", None)
    assert timedelta(0) <= info.wait.until - review.until < timedelta(seconds=1)

    await inspector.signal_task("default", handle.id, "review", {"approved": True}, number=1)
    with pytest.raises(TaskStateError, match="is answered: the task no longer waits for this value"):
        await inspector.signal_task("default", handle.id, "review", {"approved": False}, number=1)
    await adrain(app)
    [*_, first, second] = await ask("timeline", "default", handle.id)
    assert (first.result, first.duration is not None, second.name) == (b'{"approved":true}', True, "review#2")

    await adrain(app, advance=timedelta(days=8), raises=False)
    assert (await ask("timeline", "default", handle.id))[-1].has_timed_out
    assert (await inspector.task("default", handle.id)).wait is None


async def test_failed_sub_tasks_have_no_result(ask: Ask, app: TaskQ) -> None:
    @app.task(name="part", max_retry=0)
    def part() -> None:
        raise ValueError("broken")

    @app.task(name="whole", retention=600, max_retry=0)
    def whole(context: TaskContext) -> None:
        context.call(part.s())

    handle = await whole.adelay()
    await adrain(app, raises=False)

    (children,) = await ask("timeline", "default", handle.id)
    assert (children.kind, children.has_failed, children.result) == ("sub-tasks", True, b"")


async def test_a_wait_without_a_limit_and_a_sleep(ask: Ask, app: TaskQ) -> None:
    @app.task(name="sleeper")
    def sleeper(context: TaskContext) -> None:
        context.sleep(60)
        context.receive("go")

    inspector = AsyncInspector(app)
    handle = await sleeper.adelay()
    await adrain(app)
    sleeping: Any = await inspector.task("default", handle.id)
    assert wait_text(sleeping.wait, lambda left: "1 min") == "sleeping, 1 min left"

    for advance in (60, 90_000):
        await adrain(app, advance=advance)
        waiting: Any = await inspector.task("default", handle.id)
        assert (waiting.state, waiting.wait.until) == ("scheduled", None)
        assert wait_text(waiting.wait) == "waiting for go"
    sleep, wait = await ask("timeline", "default", handle.id)
    assert (sleep.kind, sleep.ended_at is not None, wait.until, wait.ended_at) == ("sleep", True, None, None)


async def test_a_step_can_be_deleted(ask: Ask, app: TaskQ) -> None:
    inspector = AsyncInspector(app)
    handle = await publish_task(app).adelay(photo_id=7)
    await adrain(app)

    assert await inspector.forget_step("default", handle.id, "moderate") is True
    assert await inspector.forget_step("default", handle.id, "moderate") is False
    assert [each.name for each in await ask("timeline", "default", handle.id)] == ["call", "review"]
    with pytest.raises(TaskNotFoundError):
        await inspector.forget_step("default", "unknown", "moderate")
    with pytest.raises(TaskNotFoundError):
        await inspector.signal_task("default", "unknown", "review")
    for name, value, problem in (
        ("reviw", {"approved": True}, "did you mean 'review'"),
        ("review", {"approved": "yes"}, "does not fit: expected bool, got str at .approved; nothing was sent"),
    ):
        with pytest.raises(StepError, match=problem):
            await inspector.signal_task("default", handle.id, name, value)
    with pytest.raises(StepError, match="name of a signal"):
        await inspector.signal_task("default", handle.id, "a:b")

    @app.task(name="running")
    async def running(context: TaskContext) -> None:
        with pytest.raises(TaskActiveError):
            await inspector.forget_step("default", context.id, "moderate")

    await running.adelay()
    await adrain(app)
