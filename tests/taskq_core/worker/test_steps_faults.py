"""Durable tasks whose steps run concurrently, whose worker stops, or whose sub-tasks cannot be enqueued at once."""

import asyncio
from typing import Any

import pytest

from taskq_core import OnConflict, SkipRetry, TaskContext, TaskHandle, TaskQ, TaskState, Unique, group
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import steps
from taskq_core.errors import (
    BrokerReplyError,
    BrokerUnavailableError,
    DuplicateTaskError,
    EnqueueError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStateError,
)
from taskq_core.wire import QueueKeys
from taskq_core.worker import step_store
from taskq_core.workflow.aio import AsyncWorkflowClient
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, receives_cancels, until

pytestmark = pytest.mark.redis


def queue_of(app: TaskQ) -> QueueKeys:
    return app.runtime.keys.queue("default")


async def some_requests(app: TaskQ) -> None:
    """Let Redis answer so often that a worker could settle a run meanwhile."""
    for _ in range(20):
        await asyncio.to_thread(app.runtime.runner.run, steps.read_steps(queue_of(app), "unknown"))


def state(handle: TaskHandle[Any]) -> TaskState:
    return handle.refresh().state


@pytest.mark.parametrize("way", ["gather", "task group"])
async def test_the_results_of_concurrent_steps_are_stored_when_one_fails(
    app: TaskQ, start: Runner, clock: Clock, way: str
) -> None:
    calls: list[str] = []
    has_failed = asyncio.Event()

    async def fail() -> str:
        calls.append("fail")
        if calls.count("fail") == 1:
            has_failed.set()
            raise ValueError("once")
        return "second time"

    async def finish() -> str:
        calls.append("finish")
        await has_failed.wait()
        await some_requests(app)
        return "first time"

    @app.task(retention=60, retry_delay=1)
    async def both(context: TaskContext) -> list[str]:
        works = [context.astep("fail", fail), context.astep("finish", finish)]
        if way == "gather":
            return list(await asyncio.gather(*works))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in works]
        return [each.result() for each in tasks]

    await start()
    handle = await both.adelay()
    await until(lambda: state(handle) is TaskState.RETRY)
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == ["second time", "first time"]
    assert calls == ["fail", "finish", "fail"]


@pytest.mark.parametrize("way", ["gather", "task group"])
async def test_a_run_waits_after_its_concurrent_steps_have_ended(
    app: TaskQ, start: Runner, clock: Clock, way: str
) -> None:
    calls: list[str] = []

    async def finish() -> str:
        calls.append("begin")
        await some_requests(app)
        calls.append("end")
        return "done"

    @app.task(retention=600, max_retry=0)
    async def both(context: TaskContext) -> str:
        works = [context.astep("finish", finish), context.asleep(60), context.areceive("go")]
        if way == "gather":
            return str((await asyncio.gather(*works))[0])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in works]
        return str(tasks[0].result())

    await start()
    handle = await both.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    assert calls == ["begin", "end"]
    await clock.advance(61)
    await handle.asignal("go")
    await clock.advance(61)

    assert await handle.aresult(timeout=30) == "done"
    assert calls == ["begin", "end"]


@pytest.mark.parametrize("pauses", [False, True])
async def test_consecutive_steps_beside_a_wait_run_once(app: TaskQ, start: Runner, pauses: bool) -> None:
    """With a pause between them, the second step begins in the run after the wait."""
    calls: list[str] = []
    is_scheduled = asyncio.Event()

    async def work(name: str) -> str:
        calls.append(name)
        await some_requests(app)
        return name

    @app.task(retention=600, max_retry=0)
    async def both(context: TaskContext) -> list[str]:
        async def pipe() -> list[str]:
            first = await context.astep("a", work, "a")
            if pauses:
                await is_scheduled.wait()
            return [first, await context.astep("b", work, "b")]

        return (await asyncio.gather(pipe(), context.areceive("go")))[0]

    await start()
    handle = await both.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    assert calls == (["a"] if pauses else ["a", "b"])
    is_scheduled.set()
    await some_requests(app)
    await handle.asignal("go")

    assert await handle.aresult(timeout=30) == ["a", "b"]
    assert calls == ["a", "b"]


async def test_output_after_an_interruption_replaces_the_output_before_it(app: TaskQ, start: Runner) -> None:
    release = asyncio.Event()

    @app.task(retention=60)
    async def describe(context: TaskContext) -> None:
        await context.aemit("a")
        await context.areceive("go")
        await context.aemit("b")
        await release.wait()

    worker = await start(shutdown_grace=0)
    handle = await describe.adelay()
    await handle.asignal("go")
    items = aiter(handle.stream())
    seen = [await anext(items), await anext(items)]
    await start.stop(worker)
    assert state(handle) is TaskState.PENDING, "a stop uses no attempt"
    release.set()
    await start()
    seen += [each async for each in items]

    assert [(each.value, each.attempt) for each in seen] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


async def test_steps_and_output_after_an_interrupt_are_stored(app: TaskQ, start: Runner) -> None:
    """The step ends, and emits, after the worker has interrupted it."""
    calls: list[str] = []

    @app.task(retention=60)
    async def work(context: TaskContext) -> str:
        async def finish() -> str:
            calls.append("begin")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await context.aemit("interrupted")
            return "done"

        result = await context.astep("finish", finish)
        if len(calls) == 1:
            calls.append("again")
            raise asyncio.CancelledError
        return result

    worker = await start(shutdown_grace=0)
    handle = await work.adelay()
    await until(lambda: bool(calls))
    await start.stop(worker)
    await start()

    assert await handle.aresult(timeout=30) == "done"
    assert calls == ["begin", "again"]
    assert [each.value async for each in handle.stream()] == ["interrupted"]


async def test_many_short_values_are_sent_in_bounded_batches(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    emit = steps.emit

    def noted(queue: QueueKeys, task_id: str, output: steps.Output, **more: Any) -> Any:
        sizes.append(len(output.values))
        return emit(queue, task_id, output, **more)

    monkeypatch.setattr(steps, "emit", noted)

    @app.task(retention=60)
    async def count(context: TaskContext) -> None:
        for number in range(2_500):
            await context.aemit(number)

    await start()
    handle = await count.adelay()
    values = [each.value async for each in handle.stream()]

    assert values == list(range(2_500))
    assert max(sizes) <= 1_000


class Requests:
    """The requests for steps and output, as the worker sends them. Some of them get no answer.

    Attributes:
        sent: Names of the requests that Redis has answered, in order.
        unanswered: Names of requests that fail until they are removed from this set.
        tried: Set once an unanswered request was tried.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        self.unanswered: set[str] = set()
        self.tried = asyncio.Event()
        run = AsyncRunner.run

        async def noted(runner: AsyncRunner, operation: Any, **more: Any) -> Any:
            if operation.name in self.unanswered:
                self.tried.set()
                raise BrokerUnavailableError("no answer")
            answer = await run(runner, operation, **more)
            if operation.name in ("emit", "store_step"):
                self.sent.append(operation.name)
            return answer

        monkeypatch.setattr(AsyncRunner, "run", noted)


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_step_stores_its_output_and_its_result_in_one_request(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    requests = Requests(monkeypatch)

    def count(context: TaskContext) -> None:
        for number in range(3):
            context.emit(number)

    async def acount(context: TaskContext) -> None:
        for number in range(3):
            await context.aemit(number)

    @app.task(name="plain", retention=60)
    def plain(context: TaskContext) -> None:
        context.step("count", count, context)
        context.step("nothing", int)

    @app.task(name="coroutine", retention=60)
    async def coroutine(context: TaskContext) -> None:
        await context.astep("count", acount, context)
        await context.astep("nothing", int)

    await start()
    monkeypatch.setattr(step_store, "EMIT_EVERY_S", 60.0)
    handle = await (plain if blocking else coroutine).adelay()
    await handle.aresult(timeout=30)

    assert requests.sent == ["store_step", "store_step"]
    assert [each.value async for each in handle.stream()] == [0, 1, 2]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_result_does_not_overtake_output_that_redis_has_not_answered(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """This holds even if the caller stops waiting for the step."""
    requests = Requests(monkeypatch)
    requests.unanswered.add("emit")
    ended = asyncio.Event()

    async def count(context: TaskContext) -> str:
        await context.aemit(1)
        await requests.tried.wait()
        await context.aemit(2)
        ended.set()
        return "counted"

    @app.task(retention=60)
    async def task(context: TaskContext) -> str:
        step = asyncio.create_task(context.astep("count", count, context))
        await ended.wait()
        await some_requests(app)
        assert requests.sent == []
        if cancelled:
            step.cancel()
            await asyncio.wait([step])
        requests.unanswered.clear()
        return "cancelled" if cancelled else await step

    await start()
    handle = await task.adelay()

    assert await handle.aresult(timeout=30) == ("cancelled" if cancelled else "counted")
    assert requests.sent == ["emit", "store_step"]
    assert [each.value async for each in handle.stream()] == [1, 2]


@pytest.mark.parametrize("then", ["result", "wait"])
async def test_output_that_cannot_be_stored_fails_its_step_or_its_run(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Otherwise a later run would neither repeat the step nor emit the values that precede a wait."""
    run, refused = AsyncRunner.run, asyncio.Event()

    async def refuse_once(runner: AsyncRunner, operation: Any, **more: Any) -> Any:
        if operation.name == "emit" and not refused.is_set():
            refused.set()
            raise BrokerReplyError("refused once")
        return await run(runner, operation, **more)

    monkeypatch.setattr(AsyncRunner, "run", refuse_once)

    async def count(context: TaskContext) -> None:
        await context.aemit("a")
        await refused.wait()

    @app.task(retention=60, retry_delay=0)
    async def task(context: TaskContext) -> None:
        if then == "result":
            await context.astep("count", count, context)
        else:
            await context.aemit("a")
            await context.areceive("go")

    await start()
    handle = await task.adelay()
    if then == "wait":
        await until(lambda: state(handle) is TaskState.SCHEDULED)
        await handle.asignal("go")
    await handle.aresult(timeout=30)

    assert handle.refresh().retried == 1
    assert [(each.value, each.attempt) async for each in handle.stream()] == [("a", 2)]


@pytest.mark.parametrize("is_last", [False, True])
async def test_output_fails_the_task_if_the_record_is_lost(
    app: TaskQ, start: Runner, redis_server: RedisServer, is_last: bool
) -> None:
    emitted = asyncio.Event()

    @app.task(retention=60, max_retry=0)
    async def describe(context: TaskContext) -> None:
        await context.astep("begin", int)
        redis_server.client.delete(queue_of(app).steps_of(context.id))
        emitted.set()
        await context.aemit(1)
        while not is_last:
            await context.aemit(1)
            await some_requests(app)

    await start()
    handle = await describe.adelay()
    await emitted.wait()

    with pytest.raises(TaskFailedError, match="the stored steps of this task are lost"):
        await handle.aresult(timeout=30)


async def test_sub_tasks_are_enqueued_once_redis_answers_again(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This uses no attempt, and enqueues once although Redis had received the first request."""
    runs: list[int] = []
    failures = 0
    enqueue = AsyncWorkflowClient.enqueue_children

    async def unreliable(self: Any, *args: Any, **more: Any) -> None:
        nonlocal failures
        await enqueue(self, *args, **more)
        failures += 1
        if failures < 3:
            raise EnqueueError("a workflow", "default", "id", "no answer") from BrokerUnavailableError("no answer")

    monkeypatch.setattr(AsyncWorkflowClient, "enqueue_children", unreliable)

    @app.task
    def child(number: int) -> int:
        runs.append(number)
        return number

    @app.task(retention=60, max_retry=0)
    async def parent(context: TaskContext) -> list[int]:
        return await context.acall(child.s(1), child.s(2))

    await start()
    handle = await parent.adelay()

    assert await handle.aresult(timeout=30) == [1, 2]
    assert sorted(runs) == [1, 2]


@pytest.mark.parametrize(("suspended_s", "taken_over", "run_of_step"), [(40, False, 1), (100, True, 2)])
async def test_a_worker_that_was_suspended_starts_a_step_only_if_it_still_has_the_task(
    app: TaskQ,
    start: Runner,
    clock: Clock,
    redis_server: RedisServer,
    suspended_s: int,
    taken_over: bool,
    run_of_step: int,
) -> None:
    """The function goes on at once, before the worker has noticed that the lease has ended."""
    runs, calls = 0, []

    @app.task(retention=60, retry_delay=0)
    async def task(context: TaskContext) -> None:
        nonlocal runs
        runs += 1
        run = runs
        await context.astep("before", int)
        if run == 1:
            if taken_over:
                redis_server.client.hset(queue_of(app).task(context.id), "taskq_owner", "another.1:1")
            clock.skip(suspended_s)
        await context.astep("after", calls.append, run)

    await start()
    handle = await task.adelay()
    await handle.aresult(timeout=300)

    assert calls == [run_of_step]


async def test_a_full_redis_accepts_the_sub_tasks_of_a_running_task(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    started, is_full = asyncio.Event(), asyncio.Event()

    @app.task(max_retry=0)
    def child(number: int) -> int:
        return number

    @app.task(queue="other", max_retry=0)
    def elsewhere(number: int) -> int:
        return number

    @app.task(retention=60, max_retry=0)
    async def parent(context: TaskContext) -> list[int]:
        started.set()
        await is_full.wait()
        return await context.acall(child.s(1), elsewhere.s(2))

    await start(queues={"default": 1, "other": 1})
    handle = await parent.adelay()
    await started.wait()
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        is_full.set()

        assert await handle.aresult(timeout=30) == [1, 2]
        with pytest.raises(EnqueueError, match="is over its memory limit"):
            await group(child.s(3)).adelay()
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")


async def test_a_later_task_with_the_same_id_gets_its_own_sub_tasks(app: TaskQ, start: Runner) -> None:
    @app.task
    def child(number: int) -> int:
        return number

    @app.task(task_id="same", max_retry=0, retention=0)
    async def parent(context: TaskContext, number: int) -> None:
        results.append(await context.acall(child.s(number)))

    results: list[list[int]] = []
    await start()
    await parent.adelay(1)
    await until(lambda: len(results) == 1)
    await until(lambda: not app.runtime.runner.run(steps.read_steps(queue_of(app), "same")))
    await parent.adelay(2)
    await until(lambda: len(results) == 2)

    assert results == [[1], [2]]


async def test_steps_and_waits_have_a_maximum(app: TaskQ, start: Runner) -> None:
    @app.task(max_retry=0, retention=60)
    async def endless(context: TaskContext) -> None:
        while True:
            await context.areceive("never", timeout=0, default=None)

    await start()
    handle = await endless.adelay()

    with pytest.raises(TaskFailedError, match="a task has at most 1,000 steps and waits"):
        await handle.aresult(timeout=30)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("then", ["return", "raise", "skip retry"])
async def test_a_run_that_suppresses_its_wait_fails(app: TaskQ, start: Runner, kind: str, then: str) -> None:
    def go_on() -> None:
        if then != "return":
            raise SkipRetry if then == "skip retry" else ValueError

    @app.task
    def plain(context: TaskContext) -> None:
        try:
            context.receive("review", timeout=60)
        except:  # noqa: E722 - the mistake that is tested
            go_on()

    @app.task
    async def coroutine(context: TaskContext) -> None:
        try:
            await context.areceive("review", timeout=60)
        except:  # noqa: E722 - the mistake that is tested
            go_on()

    await start()
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await until(lambda: state(handle) is TaskState.RETRY)

    how = {"return": "returned", "raise": "raised ValueError", "skip retry": "raised SkipRetry"}[then]
    assert handle.refresh().last_error == (
        f"StepError: the function {how} after receive 'review#1' had begun to wait; let TaskWaiting pass, which ends "
        "the run: `except Exception` does not catch it, but `except:` and `except BaseException` do"
    )


@pytest.mark.parametrize(
    "way", ["name", "nested", "coroutine", "no JSON", "one result", "all results", "number of steps"]
)
async def test_a_task_is_archived_at_once_if_its_steps_can_never_be_stored(app: TaskQ, start: Runner, way: str) -> None:
    @app.task
    async def work(context: TaskContext) -> None:
        if way == "name":
            await context.astep("a#b", int)
        if way == "nested":
            await context.astep("outer", context.astep, "inner", int)
        if way == "coroutine":
            await context.astep("called", asyncio.sleep(0))  # type: ignore[call-overload]  # the mistake that is tested
        if way == "no JSON":
            await context.astep("object", object)
        if way == "one result":
            await context.astep("large", lambda: "x" * 1_100_000)
        for _ in range(5 if way == "all results" else 1_001):
            await context.astep("many", lambda: "x" * 1_000_000 if way == "all results" else "x")

    await start()
    handle = await work.adelay()
    await until(lambda: handle.refresh().is_final)

    assert handle.refresh().last_error.startswith("StepError: ")
    assert handle.refresh().attempts_made == 1


async def test_a_task_is_retried_if_a_stored_result_does_not_fit(app: TaskQ, start: Runner) -> None:
    def count() -> int:
        return "three"  # type: ignore[return-value]  # the mistake that is tested

    @app.task
    async def work(context: TaskContext) -> None:
        await context.astep("count", count)

    await start()
    handle = await work.adelay()
    await until(lambda: state(handle) is TaskState.RETRY)

    assert "the stored result of step 'count' does not fit" in handle.refresh().last_error


async def test_a_run_whose_step_fails_beside_a_wait_fails_with_the_error_of_the_step(app: TaskQ, start: Runner) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise SkipRetry("rejected")

    @app.task
    async def work(context: TaskContext) -> None:
        await asyncio.gather(context.areceive("review", timeout=60), context.astep("fail", fail))

    await start()
    handle = await work.adelay()
    await until(lambda: state(handle) is TaskState.ARCHIVED)

    assert handle.refresh().last_error == "rejected"


async def test_cancelling_a_task_that_waits_or_runs_a_step(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """A cancelled task that is not kept leaves nothing behind."""
    begun = asyncio.Event()

    async def long() -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.task
    async def waits(context: TaskContext) -> None:
        await context.areceive("go")

    @app.task
    async def works(context: TaskContext) -> None:
        await context.astep("long", long)

    worker = await start()
    await until(lambda: receives_cancels(redis_server))
    waiting, working = await waits.adelay(), await works.adelay()
    await until(lambda: state(waiting) is TaskState.SCHEDULED)
    await begun.wait()

    assert await waiting.acancel(keep=False)
    assert await working.acancel(keep=False)

    await until(lambda: worker.running_count == 0)
    await until(lambda: redis_server.client.keys("asynq:{default}:t:*") == [])
    assert redis_server.client.keys("taskq:{default}:steps:*") == []
    with pytest.raises(TaskNotFoundError):
        await waiting.asignal("go")


async def test_a_task_with_steps_is_not_moved_or_replaced(app: TaskQ, start: Runner) -> None:
    seen: list[int] = []

    @app.task(unique=Unique(args=(), on_conflict=OnConflict.REPLACE))
    async def waits(context: TaskContext, number: int) -> None:
        await context.areceive("go")
        seen.append(number)

    await start()
    handle = await waits.adelay(1)
    await until(lambda: state(handle) is TaskState.SCHEDULED)

    with pytest.raises(TaskStateError, match="the task has stored steps, signals or a position, which stay"):
        handle.move("other")
    with pytest.raises(DuplicateTaskError):
        await waits.adelay(2)
    await handle.asignal("go")
    await until(lambda: seen == [1])


async def test_a_task_that_waits_beyond_its_expiry_continues(app: TaskQ, start: Runner, clock: Clock) -> None:
    @app.task(retention=600, expires=60)
    async def sleeps(context: TaskContext) -> str:
        await context.asleep(120)
        return "awake"

    await start()
    handle = await sleeps.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await clock.advance(125)

    assert await handle.aresult(timeout=30) == "awake"


async def test_a_step_without_a_stored_record_is_an_error(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock
) -> None:
    @app.task(max_retry=0, retention=60)
    async def sleeps(context: TaskContext) -> None:
        await context.asleep(60)

    await start()
    handle = await sleeps.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    redis_server.client.delete(f"taskq:{{default}}:steps:{handle.id}")
    await clock.advance(65)

    with pytest.raises(TaskFailedError, match="the stored steps of this task are lost"):
        await handle.aresult(timeout=30)
