"""Tests of a project can run tasks with steps: sleeps are skipped, signals arrive, and sub-tasks run."""

from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import TaskContext, TaskHandle, TaskQ, TaskState
from taskq_core.errors import StepError, TaskCancelledError, TaskFailedError
from taskq_core.testing import capture, drain, eager


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def publish(taskq: TaskQ, calls: list[str]) -> Any:
    @taskq.task(name="resize")
    def resize(width: int) -> int:
        calls.append(f"resize {width}")
        return width

    def moderate(photo: int) -> str:
        calls.append(f"moderate {photo}")
        return f"photo {photo}"

    @taskq.task(name="publish", retention=60)
    def publish(context: TaskContext, photo: int) -> str:
        title = context.step("moderate", moderate, photo)
        if not context.receive("review", bool, timeout=timedelta(days=7), default=False):
            return "rejected"
        sizes = context.call(resize.s(320), resize.s(800))
        context.sleep(timedelta(hours=1))
        context.emit(f"{title} is online")
        return f"{title}: {sizes}"

    return publish


def seen(handle: TaskHandle[Any]) -> list[Any]:
    return [item.value for item in handle.stream()]


def test_durable_tasks_work_with_eager(taskq: TaskQ, publish: Any, calls: list[str]) -> None:
    with eager(taskq):
        handle = publish.delay(7)
        assert handle.refresh().state is TaskState.SCHEDULED
        handle.signal("review", True)

        assert handle.result(timeout=0) == "photo 7: [320, 800]"
        assert seen(handle) == ["photo 7 is online"]
    assert calls == ["moderate 7", "resize 320", "resize 800"]


async def test_durable_tasks_work_with_eager_in_coroutines(taskq: TaskQ, calls: list[str]) -> None:
    @taskq.task(retention=60)
    async def ask(context: TaskContext) -> list[int]:
        answers = [await context.areceive("answer", int, timeout=60) for _ in range(2)]
        await context.asleep(60)
        return answers

    with eager(taskq):
        handle = await ask.adelay()
        await handle.asignal("answer", 1)
        await handle.asignal("answer", 2)

        assert await handle.aresult(timeout=0) == [1, 2]


@pytest.mark.parametrize("advance", [None, timedelta(days=8)])
def test_durable_tasks_work_with_capture(
    taskq: TaskQ, publish: Any, calls: list[str], advance: timedelta | None
) -> None:
    with capture(taskq) as tasks:
        handle = publish.delay(7)
        tasks.run()
        if advance is None:
            handle.signal("review", True)
            tasks.run(advance=3600)
            assert handle.result(timeout=0) == "photo 7: [320, 800]"
        else:
            tasks.run(advance=advance)
            assert handle.result(timeout=0) == "rejected"
    assert calls.count("moderate 7") == 1


def test_durable_tasks_work_with_drain(taskq: TaskQ, publish: Any, calls: list[str]) -> None:
    with capture(taskq):
        handle = publish.delay(7)
        handle.signal("review", True)
        drain(taskq, advance=3600)

        assert handle.result(timeout=0) == "photo 7: [320, 800]"
    assert calls == ["moderate 7", "resize 320", "resize 800"]


async def test_a_blocking_step_in_a_coroutine_is_refused(taskq: TaskQ) -> None:
    """A worker refuses the step too, so a test finds the mistake."""

    @taskq.task(retention=60, max_retry=0)
    async def wrong(context: TaskContext) -> None:
        context.step("one", int)

    with eager(taskq, raises=False):
        handle = await wrong.adelay()
        with pytest.raises(
            TaskFailedError, match=r"would block the event loop; in a coroutine, use .* the method with the prefix"
        ):
            await handle.aresult(timeout=0)


def test_a_direct_call_runs_the_steps(taskq: TaskQ, calls: list[str]) -> None:
    context = TaskContext(id="1", name="n", queue="default", local=True)

    assert context.step("one", calls.append, "ran") is None
    context.sleep(3600)
    context.emit("nothing")
    assert calls == ["ran"]
    with pytest.raises(StepError, match="receive needs a worker, or the eager or inline mode in tests"):
        context.receive("review")


@pytest.mark.parametrize(("keep", "outcome"), [(True, "archived"), (False, "discarded")])
def test_a_task_that_cancels_itself_does_not_wait(taskq: TaskQ, keep: bool, outcome: str) -> None:
    @taskq.task
    def stop(context: TaskContext) -> None:
        taskq.get(context.id).cancel(keep=keep)
        context.receive("go")

    with capture(taskq) as captured:
        handle = stop.delay()
        with pytest.raises(TaskCancelledError) if keep else nullcontext():
            captured.run()

        assert [run.outcome for run in captured.runs] == [outcome]
        assert not keep or handle.refresh().state is TaskState.ARCHIVED


def test_a_run_that_suppresses_its_wait_fails(taskq: TaskQ) -> None:
    @taskq.task
    def work(context: TaskContext) -> None:
        with suppress(BaseException):
            context.sleep(60)

    with capture(taskq) as captured:
        work.delay()
        with pytest.raises(StepError, match="the function returned after sleep 'sleep' had begun to wait"):
            captured.run()

        assert [run.outcome for run in captured.runs] == ["retried"]
