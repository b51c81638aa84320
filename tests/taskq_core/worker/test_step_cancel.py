"""A cancelled task with steps ends by its own code: it may compensate with further steps."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import SignalTimeoutError, TaskContext, TaskHandle, TaskInterrupted, TaskQ, TaskState
from taskq_core.broker.operations.steps import read_steps
from taskq_core.errors import TaskCancelledError, TaskFailedError, TaskNotFoundError, TaskStateError
from taskq_core.inspector import AsyncInspector
from taskq_core.testing import capture, eager
from taskq_core.views.aio import AsyncDashboard
from tests.clock import Clock
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis


def state(handle: TaskHandle[Any]) -> TaskState:
    return handle.refresh().state


class Shop:
    """Effects of orders: what was reserved and released."""

    def __init__(self, app: TaskQ, kind: str, **options: Any) -> None:
        self.done: list[str] = []
        self.fails = 0

        @app.task(name="order", retention=60, retry_delay=1, **options)
        def plain(context: TaskContext, seconds: int) -> str:
            context.step("reserve", self.do, "reserve")
            try:
                context.receive("paid", bool) if seconds == 0 else context.sleep(seconds)
                context.step("ship", self.do, "ship")
            except TaskInterrupted:
                context.step("release", self.do, "release")
                context.step("mail", self.do, "mail")
                raise
            return "shipped"

        @app.task(name="aorder", retention=60, retry_delay=1, **options)
        async def coroutine(context: TaskContext, seconds: int) -> str:
            await context.astep("reserve", self.do, "reserve")
            try:
                await context.areceive("paid", bool) if seconds == 0 else await context.asleep(seconds)
                await context.astep("ship", self.do, "ship")
            except asyncio.CancelledError:
                await context.astep("release", self.do, "release")
                await context.astep("mail", self.do, "mail")
                raise
            return "shipped"

        self.order = plain if kind == "plain" else coroutine

    def do(self, what: str) -> None:
        if what == "mail" and self.fails:
            self.fails -= 1
            raise ConnectionError
        self.done.append(what)


kinds = pytest.mark.parametrize("kind", ["plain", "coroutine"])


@kinds
@pytest.mark.parametrize("seconds", [0, 600])
async def test_a_waiting_task_that_is_cancelled_compensates_with_steps(
    app: TaskQ, start: Runner, kind: str, seconds: int
) -> None:
    shop = Shop(app, kind)
    await start()
    handle = await shop.order.adelay(seconds)
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    if seconds:
        assert await AsyncInspector(app).cancel_task(handle.id) == 1
    else:
        assert await handle.acancel() is True
    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(timeout=30)

    assert shop.done == ["reserve", "release", "mail"]
    info = handle.refresh()
    assert (info.state, info.last_error, info.retried) == (TaskState.ARCHIVED, "context canceled", 0)
    assert await handle.acancel() is False


@kinds
async def test_a_failed_step_of_the_compensation_is_tried_again(
    app: TaskQ, start: Runner, clock: Clock, kind: str
) -> None:
    shop = Shop(app, kind)
    shop.fails = 2
    await start()
    handle = await shop.order.adelay(0)
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.acancel()
    await until(lambda: state(handle) is TaskState.RETRY)
    assert await handle.acancel(keep=False) is True, "the first request decides, and the next attempt starts now"
    await until(lambda: state(handle) is TaskState.RETRY and shop.fails == 0)
    await clock.advance(5)
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert shop.done == ["reserve", "release", "mail"]
    assert handle.refresh().last_error == "context canceled"


@kinds
async def test_a_deploy_during_the_compensation_loses_no_step(app: TaskQ, start: Runner, kind: str) -> None:
    shop = Shop(app, kind)
    shop.fails = 1
    worker = await start()
    handle = await shop.order.adelay(0)
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await start.stop(worker)
    await handle.acancel()
    assert state(handle) is TaskState.PENDING
    await start()
    await until(lambda: state(handle) is TaskState.RETRY)
    await handle.acancel()
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert shop.done == ["reserve", "release", "mail"]


@kinds
async def test_a_task_between_two_attempts_of_a_step_is_cancelled(app: TaskQ, start: Runner, kind: str) -> None:
    shop = Shop(app, kind)
    shop.fails = 1

    @app.task(retention=60)
    def plain(context: TaskContext) -> None:
        try:
            context.using(max_retry=3, retry_delay=600).step("mail", shop.do, "mail")
        except TaskInterrupted:
            context.step("undo", shop.do, "undo")

    @app.task(retention=60)
    async def coroutine(context: TaskContext) -> None:
        try:
            await context.using(max_retry=3, retry_delay=600).astep("mail", shop.do, "mail")
        except asyncio.CancelledError:
            await context.astep("undo", shop.do, "undo")

    await start()
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.acancel()
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert shop.done == ["undo"]
    assert handle.refresh().last_error == "context canceled", "a function that returns normally was cancelled too"


@kinds
async def test_a_running_step_is_interrupted_and_compensated(app: TaskQ, start: Runner, kind: str) -> None:
    done: list[str] = []

    def forever() -> None:
        done.append("begun")
        while True:
            pass

    @app.task(retention=60)
    def plain(context: TaskContext) -> None:
        try:
            context.step("ship", forever)
        finally:
            context.step("undo", done.append, "undo")

    @app.task(retention=60)
    async def coroutine(context: TaskContext) -> None:
        try:
            await asyncio.gather(*(context.astep(f"ship {each}", asyncio.Event().wait) for each in range(3)))
        finally:
            await context.astep("undo", done.append, "undo")

    await start()
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await until(lambda: state(handle) is TaskState.ACTIVE and (done or kind != "plain"))
    queue = app.runtime.keys.queue("default")
    await until(lambda: "try" in app.runtime.runner.run(read_steps(queue, handle.id)))
    assert await handle.acancel() is True
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert done[-1] == "undo"
    assert handle.refresh().last_error == "context canceled"


async def test_a_cancellation_reaches_steps_in_nested_task_groups(app: TaskQ, start: Runner) -> None:
    done: list[int] = []

    async def inner(context: TaskContext, name: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(2):
                tasks.create_task(context.areceive(f"{name} {number}", bool))

    @app.task(retention=60)
    async def order(context: TaskContext) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for name in ("a", "b"):
                    tasks.create_task(inner(context, name))
        except asyncio.CancelledError:
            await asyncio.gather(*(context.astep(f"undo {each}", done.append, each) for each in range(3)))
            raise

    await start()
    handle = await order.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.acancel()
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert done == [0, 1, 2]
    assert handle.refresh().last_error == "context canceled"


async def test_a_cancelled_task_is_deleted_after_its_code_if_it_is_not_kept(app: TaskQ, start: Runner) -> None:
    shop = Shop(app, "coroutine")
    await start()
    handle = await shop.order.adelay(0)
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    assert await handle.acancel(keep=False) is True
    await until(lambda: "mail" in shop.done)

    with pytest.raises(TaskNotFoundError):
        await handle.aresult(timeout=30)


async def test_a_cancelled_task_must_not_wait(app: TaskQ, start: Runner) -> None:
    @app.task(retention=60)
    async def order(context: TaskContext) -> None:
        try:
            await context.areceive("paid", bool)
        finally:
            await context.areceive("refunded", bool)

    await start()
    handle = await order.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.acancel()
    with pytest.raises(TaskFailedError, match=r"receive 'refunded#1' cannot wait, because the task was cancelled"):
        await handle.aresult(timeout=30)


async def test_a_task_that_has_not_begun_a_step_is_cancelled_without_a_run(app: TaskQ, start: Runner) -> None:
    shop = Shop(app, "coroutine")
    handle = await shop.order.using(run_after=600).adelay(0)
    await handle.asignal("paid", True)
    assert await handle.acancel(keep=True) is True

    assert state(handle) is TaskState.ARCHIVED
    assert shop.done == []


@kinds
def test_eager_tasks_compensate_at_once(app: TaskQ, kind: str) -> None:
    shop = Shop(app, kind)
    with eager(app, raises=False):
        handle = shop.order.delay(0)
        assert handle.cancel() is True
        assert state(handle) is TaskState.ARCHIVED

    assert shop.done == ["reserve", "release", "mail"]


@kinds
def test_cancelled_tasks_compensate_in_tests_too(app: TaskQ, kind: str) -> None:
    shop = Shop(app, kind)
    with capture(app) as tasks:
        handle = shop.order.delay(0)
        tasks.run()
        assert handle.cancel() is True
        with pytest.raises(TaskCancelledError):
            tasks.run()
        assert state(handle) is TaskState.ARCHIVED

    assert shop.done == ["reserve", "release", "mail"]


@pytest.mark.parametrize("wait", ["receive", "receive_any", "ask", "sleep"])
async def test_what_happens_after_the_request_does_not_change_the_way_of_the_code(
    app: TaskQ, start: Runner, clock: Clock, wait: str
) -> None:
    shop = Shop(app, "coroutine")
    shop.fails = 1
    ways: list[str] = []

    @app.task(retention=60, retry_delay=1)
    async def order(context: TaskContext) -> None:
        try:
            match wait:
                case "receive":
                    await context.areceive("paid", bool, timeout=60)
                case "receive_any":
                    await context.areceive_any({"paid": bool, "late": bool}, timeout=60)
                case "ask":
                    await context.areceive("paid", bool, timeout=60, ask={"order": 1})
                case "sleep":
                    await context.asleep(60)
            ways.append("went on")
        except asyncio.CancelledError:
            ways.append("cancelled")
            await context.astep("mail", shop.do, "mail")
            raise
        except SignalTimeoutError:
            ways.append("timed out")

    await start()
    handle = await order.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    question = await handle.aquestion()
    await handle.acancel()
    await until(lambda: state(handle) is TaskState.RETRY)
    if question is not None:
        with pytest.raises(TaskStateError):
            await handle.aanswer(question.number, True)
        assert (await handle.aquestion(), await AsyncInspector(app).questions()) == (None, [])
    else:
        await handle.asignal("paid", True)
    await clock.advance(90)
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert ways == ["cancelled", "cancelled"]
    assert handle.refresh().last_error == "context canceled"
    first = (await AsyncDashboard(AsyncInspector(app)).timeline("default", handle.id))[0]
    assert first.kind == {"sleep": "sleep", "ask": "question"}.get(wait, "signal")
    assert first.duration is not None
    assert first.duration < timedelta(seconds=60), "the cancellation ended the wait"


async def test_a_task_that_waits_for_its_sub_tasks_is_cancelled_with_them(app: TaskQ, start: Runner) -> None:
    done: list[str] = []

    @app.task
    async def child() -> None:
        await asyncio.Event().wait()

    @app.task(retention=60)
    async def parent(context: TaskContext) -> None:
        try:
            await context.acall(child.s(), child.s())
        except asyncio.CancelledError:
            await context.astep("undo", done.append, "undo")
            raise

    worker = await start()
    handle = await parent.adelay()
    await until(lambda: worker.running_count == 2 and state(handle) is TaskState.SCHEDULED)
    assert await handle.acancel(children=True) is True
    await until(lambda: state(handle) is TaskState.ARCHIVED and worker.running_count == 0)

    assert done == ["undo"]
    assert handle.refresh().last_error == "context canceled"


async def test_a_task_is_deleted_without_a_run_of_its_code(app: TaskQ, start: Runner) -> None:
    shop = Shop(app, "coroutine")
    worker = await start()
    waiting, ended = await shop.order.adelay(0), await shop.order.adelay(0)
    await until(lambda: state(waiting) is state(ended) is TaskState.SCHEDULED)
    await ended.acancel()
    await until(lambda: state(ended) is TaskState.ARCHIVED and worker.running_count == 0)

    for handle in (waiting, ended):
        assert await handle.adelete() is True
        assert await handle.adelete() is False
        assert handle.delete() is False
    assert sorted(shop.done) == ["mail", "release", "reserve", "reserve"]
