"""Tasks with steps, sleeps, signals and sub-tasks: each step runs once after its result was stored."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from taskq_core import (
    Answer,
    ConfigurationError,
    SignalTimeoutError,
    TaskContext,
    TaskHandle,
    TaskInfo,
    TaskInterrupted,
    TaskQ,
    TaskState,
    WorkflowFailedError,
    chain,
    group,
)
from taskq_core.broker.operations.services import CancelOutcome, ask_cancel
from taskq_core.broker.plans import ask
from taskq_core.errors import StepError, TaskFailedError, TaskNotFoundError, TaskStateError
from taskq_core.inspector import AsyncInspector
from taskq_core.testing import capture
from taskq_core.views.aio import AsyncDashboard
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Ends, Runner, until

pytestmark = pytest.mark.redis


def state(handle: TaskHandle[Any]) -> TaskState:
    return handle.refresh().state


def wait_of(handle: TaskHandle[Any]) -> str:
    wait = handle.refresh().wait
    return "" if wait is None else wait.name


@dataclass
class Review:
    approved: bool
    note: str = ""


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_step_runs_once_although_the_task_fails_twice(
    app: TaskQ, start: Runner, clock: Clock, kind: str
) -> None:
    calls: list[Any] = []

    def fetch(number: int) -> Review:
        calls.append(number)
        return Review(True, f"n{number}")

    async def afetch(number: int) -> Review:
        return fetch(number)

    @app.task(retention=60, retry_delay=1)
    def plain(context: TaskContext) -> list[str]:
        reviews = [context.step("fetch", fetch, number) for number in range(3)]
        assert all(type(each) is Review for each in reviews)
        context.step(f"fail{context.attempt}", calls.append, f"attempt {context.attempt}")
        if context.attempt < 3:
            raise ValueError("again")
        return [each.note for each in reviews]

    @app.task(retention=60, retry_delay=1)
    async def coroutine(context: TaskContext) -> list[str]:
        reviews = await asyncio.gather(*(context.astep("fetch", afetch, number) for number in range(3)))
        await context.astep(f"fail{context.attempt}", calls.append, f"attempt {context.attempt}")
        if context.attempt < 3:
            raise ValueError("again")
        return [each.note for each in reviews]

    await start()
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await clock.advance(10)

    assert await handle.aresult(timeout=30) == ["n0", "n1", "n2"]
    assert calls == [0, 1, 2, "attempt 1", "attempt 2", "attempt 3"]


async def test_a_task_that_is_cancelled_before_its_wait_is_stored_does_not_wait(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[tuple[str, str | None]] = []
    archived: list[str] = []
    app.on_error(lambda error, context: errors.append((type(error).__name__, context.outcome)))
    app.on_archived(lambda task: archived.append(task.id))

    @app.task(name="work")
    async def work(context: TaskContext) -> None:
        queue = app.runtime.keys.queue(context.queue)
        await app.runtime.source.arun(
            ask(ask_cancel(queue, "no worker", context.id, CancelOutcome.ARCHIVE))
        )  # the worker hears nothing
        await context.areceive("go")

    worker = await start(dead_letters_every=60)
    handle = await work.adelay()
    await until(lambda: archived == [handle.id] and worker.running_count == 0)

    assert (await handle.arefresh()).last_error == "context canceled"
    assert errors == [("TaskCancelledError", "archived")]
    assert [each.message.partition(":")[0] for each in caplog.records if "work" in each.message] == ["task failed"]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_finally_has_its_steps_and_output_after_the_last_wait(app: TaskQ, start: Runner, kind: str) -> None:
    calls: list[str] = []

    async def clean() -> None:
        calls.append("clean")

    @app.task
    def plain(context: TaskContext) -> str:
        try:
            try:
                try:
                    return context.receive("go", str) + context.receive("go", str)
                finally:
                    context.step("clean", calls.append, "clean")
            finally:
                context.emit("ready")
        finally:
            context.sleep(0.001)
            calls.append("end")

    @app.task
    async def coroutine(context: TaskContext) -> str:
        try:
            try:
                try:
                    return await context.areceive("go", str) + await context.areceive("go", str)
                finally:
                    await context.astep("clean", clean)
            finally:
                await context.aemit("ready")
        finally:
            await context.asleep(0.001)
            calls.append("end")

    ends = Ends()
    await start(listener=ends)
    handle = await (plain if kind == "plain" else coroutine).adelay()
    for count, value in enumerate("ab", 1):
        await until(partial(lambda count: len(ends.ends) == count, count))
        assert not calls
        await handle.asignal("go", value)

    assert await handle.aresult(timeout=30) == "ab"
    assert calls == ["clean", "end"]
    assert [item.value async for item in handle.stream()] == ["ready"]
    assert ends.of(handle.id) == ["waiting", "waiting", "waiting", "completed"]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_sleep_frees_the_slot_and_uses_no_attempt(
    app: TaskQ, start: Runner, clock: Clock, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level("INFO", "taskq.worker")
    runs: list[tuple[int, float]] = []

    @app.task(retention=60, max_retry=0)
    def plain(context: TaskContext) -> str:
        runs.append((context.attempt, clock.time()))
        context.sleep(timedelta(minutes=10))
        context.sleep(60)
        return "awake"

    @app.task(retention=60, max_retry=0)
    async def coroutine(context: TaskContext) -> str:
        runs.append((context.attempt, clock.time()))
        await context.asleep(timedelta(minutes=10))
        await context.asleep(60)
        return "awake"

    worker = await start(concurrency=1)
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await until(lambda: worker.running_count == 0 and state(handle) is TaskState.SCHEDULED)
    await clock.advance(500)
    assert len(runs) == 1
    await clock.advance(180)

    assert await handle.aresult(timeout=30) == "awake"
    assert [attempt for attempt, _ in runs] == [1, 1, 1]
    assert 600 <= runs[1][1] - runs[0][1] < 620
    assert 60 <= runs[2][1] - runs[1][1] < 80
    waits = [each.message.rpartition(" waits_for=")[2] for each in caplog.records if "task waits" in each.message]
    assert waits == ["sleep 'sleep'", "sleep 'sleep#2'"]


async def test_a_task_held_by_a_limit_after_a_sleep_shows_the_limit_instead_of_the_sleep(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    holds, may_end = asyncio.Event(), asyncio.Event()

    @app.task(concurrency=1, retention=60)
    async def nap(context: TaskContext, seconds: int) -> None:
        if seconds:
            await context.asleep(seconds)
        else:
            holds.set()
            await may_end.wait()

    await start()
    sleeper = await nap.adelay(60)
    await until(lambda: state(sleeper) is TaskState.SCHEDULED)
    assert wait_of(sleeper) == "sleep"
    await nap.adelay(0)
    await holds.wait()
    await clock.advance(80)
    await until(lambda: sleeper.refresh().waits_for_limit)

    [listed] = (await AsyncInspector(app).find_tasks("default", TaskState.SCHEDULED)).tasks
    for info in (sleeper.refresh(), listed):
        assert isinstance(info, TaskInfo)
        assert (info.wait, info.next_run_at) == (None, None)
    may_end.set()
    await sleeper.aresult(timeout=30)


async def test_a_loop_continues_after_a_wait_inside_it(app: TaskQ, start: Runner, clock: Clock) -> None:
    items: list[int] = []

    @app.task(retention=60)
    async def loop(context: TaskContext) -> None:
        async for number in context.iterate(range(4)):
            items.append(number)
            await context.astep("store", int)  # so that the first cursor is written before the others exist
            if number == 2:
                await context.asleep(5)

    await start()
    handle = await loop.adelay()
    await clock.advance(10)

    await handle.aresult(timeout=30)
    assert items == [0, 1, 2, 2, 3]


async def test_signals_arrive_in_order_even_before_the_wait(app: TaskQ, start: Runner, clock: Clock) -> None:
    @app.task(retention=60)
    async def collect(context: TaskContext) -> list[str]:
        return [(await context.areceive("review", Review, timeout=timedelta(days=7))).note for _ in range(3)]

    handle = await collect.adelay()
    await handle.asignal("review", Review(True, "before the first run"))
    await start()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.asignal("review", Review(True, "while it waits"))
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await clock.advance(60)
    assert state(handle) is TaskState.SCHEDULED
    await handle.asignal("review", Review(False, "later"))

    assert await handle.aresult(timeout=30) == ["before the first run", "while it waits", "later"]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_task_receives_the_first_of_several_signals(app: TaskQ, start: Runner, clock: Clock, kind: str) -> None:
    signals = {"paid": Review, "cancelled": str}

    @app.task(retention=60)
    def plain(context: TaskContext) -> list[Any]:
        first = context.receive_any(signals)
        second = context.receive_any(signals, timeout=60)
        return [first, second, context.receive("paid", Review)]

    @app.task(retention=60)
    async def coroutine(context: TaskContext) -> list[Any]:
        first = await context.areceive_any(signals)
        second = await context.areceive_any(signals, timeout=60)
        return [first, second, await context.areceive("paid", Review)]

    handle = await (plain if kind == "plain" else coroutine).adelay()
    await handle.asignal("paid", Review(True, "before the first run"))
    await start()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    wait = handle.refresh().wait
    assert wait is not None
    assert (wait.kind, wait.name, dict(wait.signals)) == ("signal", "paid | cancelled", {"paid": 2, "cancelled": 1})
    await handle.asignal("cancelled", "too late")
    await until(lambda: wait_of(handle) == "paid")
    await handle.asignal("paid", Review(True, "after all"))

    paid, after = ({"approved": True, "note": note} for note in ("before the first run", "after all"))
    assert await handle.aresult(timeout=30) == [["paid", paid], ["cancelled", "too late"], after]
    timeline = await AsyncDashboard(AsyncInspector(app)).timeline("default", handle.id)
    assert [(each.kind, each.name, each.started_at is not None) for each in timeline] == [
        ("signal", "paid", False),
        ("signal", "cancelled", True),
        ("signal", "paid#2", True),
    ]


async def test_the_oldest_of_several_signals_counts_and_the_others_stay(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    @app.task(retention=60)
    async def collect(context: TaskContext) -> list[Any]:
        return [await context.areceive_any({"b": int, "a": int, "c": int}) for _ in range(3)]

    handle = await collect.adelay()
    for name, value in (("a", 1), ("c", 2), ("b", 3)):
        await handle.asignal(name, value)
        await clock.advance(1)
    await start()

    assert await handle.aresult(timeout=30) == [["a", 1], ["c", 2], ["b", 3]]


async def test_a_wait_for_several_signals_times_out_and_is_repeated(app: TaskQ, start: Runner, clock: Clock) -> None:
    runs: list[int] = []

    @app.task(retention=600)
    async def remind(context: TaskContext) -> list[Any]:
        runs.append(1)
        reminders = 0
        while True:
            try:
                return [reminders, await context.areceive_any({"paid": int, "cancelled": int}, timeout=60)]
            except SignalTimeoutError as error:
                reminders += error.name == "paid | cancelled"

    await start()
    handle = await remind.adelay()
    for runs_so_far in (1, 2):
        await until(lambda expected=runs_so_far: len(runs) == expected and state(handle) is TaskState.SCHEDULED)
        await clock.advance(70)
    await until(lambda: len(runs) == 3 and state(handle) is TaskState.SCHEDULED)
    await handle.asignal("cancelled", 7)

    assert await handle.aresult(timeout=30) == [2, ["cancelled", 7]]
    timeline = await AsyncDashboard(AsyncInspector(app)).timeline("default", handle.id)
    assert [(each.name, each.has_timed_out) for each in timeline] == [
        ("paid | cancelled", True),
        ("paid | cancelled", True),
        ("cancelled", False),
    ]


async def test_a_task_chooses_again_between_several_signals_after_forget_step(app: TaskQ, start: Runner) -> None:
    @app.task(retention=60, max_retry=0)
    async def choose(context: TaskContext) -> Any:
        name, value = await context.areceive_any({"paid": int, "cancelled": str})
        if name == "paid" and value < 0:
            raise ValueError("negative")
        return [name, value]

    handle = await choose.adelay()
    await handle.asignal("paid", -1)
    await start()
    await until(lambda: state(handle) is TaskState.ARCHIVED)
    inspector = AsyncInspector(app)
    assert await inspector.forget_step("default", handle.id, "paid#1") is True
    await inspector.run_task("default", handle.id)
    await until(lambda: wait_of(handle) == "paid | cancelled")
    await handle.asignal("cancelled", "sorry")

    assert await handle.aresult(timeout=30) == ["cancelled", "sorry"]


@pytest.mark.parametrize(
    ("signals", "problem"),
    [
        ({}, r"receive_any takes names of signals with the types of their values.*got \{\}"),
        (["paid"], r"got \['paid'\]"),
        ({"paid|late": int}, r"without '\|', got 'paid\|late'"),
        ({"paid": int, "a#b": int}, "name of a signal must be"),
        ({"paid": int, "other": int}, "unknown signal 'other'"),
        ({"paid": Answer[bool]}, "the type Answer needs `ask`"),
    ],
)
async def test_signals_that_cannot_be_received_together_are_refused(
    app: TaskQ, start: Runner, signals: Any, problem: str
) -> None:
    @app.task(retention=60, max_retry=0, signals={"paid": Any, "paid|late": Any})
    async def choose(context: TaskContext) -> None:
        await context.areceive_any(signals)

    await start()
    with pytest.raises(TaskFailedError, match=problem):
        await (await choose.adelay()).aresult(timeout=30)


async def test_a_signal_with_the_id_of_an_earlier_one_is_not_sent_again(app: TaskQ, start: Runner) -> None:
    @app.task(retention=60)
    async def collect(context: TaskContext) -> list[str]:
        return [await context.areceive("name", str) for _ in range(2)]

    handle = await collect.adelay()
    for name in ("first", "repeat"):
        await handle.asignal("name", name, signal_id="payment:7")
    await start()
    await handle.asignal("name", "second", signal_id="payment:8")

    assert await handle.aresult(timeout=30) == ["first", "second"]
    await handle.asignal("name", "a repeat after the end", signal_id="payment:8")
    for wrong in ("", "x" * 65, "\ud800", 7):
        with pytest.raises(StepError, match="signal_id must be 1 to 64 characters of text, got "):
            await handle.asignal("name", signal_id=wrong)


async def test_a_wait_for_a_signal_times_out(app: TaskQ, start: Runner, clock: Clock) -> None:
    outcomes: list[Any] = []

    @app.task(retention=60, max_retry=0)
    async def wait(context: TaskContext) -> list[Any]:
        first = await context.areceive("review", Review, timeout=60, default=None)
        second = await context.areceive("review", Review, timeout=60, default=None)
        outcomes.append((first, second))
        await context.areceive("review", Review, timeout=60)
        return []

    await start()
    handle = await wait.adelay()
    await clock.advance(65)
    await handle.asignal("review", Review(True))  # for the second wait, because the first is over
    await until(lambda: bool(outcomes))
    await clock.advance(65)

    assert outcomes[0] == (None, Review(True))
    with pytest.raises(TaskFailedError, match="SignalTimeoutError: no signal 'review' has arrived"):
        await handle.aresult(timeout=30)
    with pytest.raises(TaskStateError, match="has ended and receives no signals"):
        await handle.asignal("review")
    handle.id = "unknown"
    with pytest.raises(TaskNotFoundError):
        await handle.asignal("review")


async def test_sub_tasks_run_once_and_return_typed_results(app: TaskQ, start: Runner, clock: Clock) -> None:
    widths: list[int] = []

    @app.task
    def resize(width: int) -> Review:
        widths.append(width)
        return Review(True, str(width))

    @app.task(retention=60, retry_delay=1)
    async def publish(context: TaskContext) -> list[str]:
        resized = await context.acall(*(resize.s(width) for width in (320, 800)))
        more = await context.acall(resize.s(1600))
        if context.attempt == 1:
            raise ValueError("once")
        return [each.note for each in (*resized, *more)]

    await start(concurrency=1)
    handle = await publish.adelay()
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == ["320", "800", "1600"]
    assert widths == [320, 800, 1600]


@pytest.mark.parametrize("kind", ["coroutine", "plain", "capture"])
async def test_a_call_can_return_the_errors_of_failed_sub_tasks_with_the_results_of_the_others(
    app: TaskQ, start: Runner, kind: str
) -> None:
    @app.task(max_retry=0)
    def half(number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    parts = (half.s(4), half.s(3), chain(half.s(8), half.s()), chain(half.s(6), half.s()), group(half.s(2), half.s(0)))

    @app.task(retention=60)
    async def coroutine(context: TaskContext) -> list[str]:
        few = await context.acall((half.s(number) for number in range(3)), return_exceptions=True)
        return texts_of([*few, *await context.acall(*parts, return_exceptions=True)])

    @app.task(retention=60)
    def plain(context: TaskContext) -> list[str]:
        few = context.call((half.s(number) for number in range(3)), return_exceptions=True)
        return texts_of([*few, *context.call(*parts, return_exceptions=True)])

    def texts_of(found: list[Any]) -> list[str]:
        for each in found:
            assert isinstance(each, int | list | WorkflowFailedError)
        return [each.reason if isinstance(each, WorkflowFailedError) else repr(each) for each in found]

    if kind == "capture":
        with capture(app) as tasks:
            handle = plain.delay()
            for _ in range(9):
                tasks.run(raises=False)
            found = handle.result(timeout=0)
    else:
        await start()
        found = await (await (plain if kind == "plain" else coroutine).adelay()).aresult(timeout=30)
    assert [found[at] for at in (0, 2, 3, 5, 7)] == ["0", "1", "2", "2", "[1, 0]"]
    assert [found[at].endswith(f"ValueError: {number} is odd") for at, number in ((1, 1), (4, 3), (6, 3))] == [True] * 3


@pytest.mark.parametrize("option", ["on_failure", "named", "at_home", "kept"])
async def test_a_call_refuses_options_without_effect(app: TaskQ, start: Runner, option: str) -> None:
    @app.task
    def part() -> None: ...

    @app.task
    async def whole(context: TaskContext) -> None:
        both: Any = group(part.s(), part.s(), **({"on_failure": "continue"} if option == "on_failure" else {}))
        value = {"named": "x", "at_home": "default", "kept": 60}.get(option)
        await context.acall(both if value is None else getattr(both, option)(value))

    await start()
    handle = await whole.adelay()
    with pytest.raises(TaskFailedError, match=rf"{option}.* no effect on a part of `call`"):
        await handle.aresult(timeout=30)


async def test_a_failed_sub_task_raises_its_error_after_the_others_have_ended(app: TaskQ, start: Runner) -> None:
    ended: list[int] = []

    @app.task(max_retry=0)
    def part(number: int) -> int:
        ended.append(number)
        if number == 0:
            raise ValueError("broken")
        return number

    @app.task(retention=60, max_retry=0)
    async def whole(context: TaskContext) -> None:
        await context.acall(part.s(0), part.s(1))

    await start()
    handle = await whole.adelay()

    with pytest.raises(TaskFailedError, match="ValueError: broken"):
        await handle.aresult(timeout=30)
    assert sorted(ended) == [0, 1]


async def test_emitted_values_are_read_while_the_task_runs(app: TaskQ, start: Runner, clock: Clock) -> None:
    @app.task(retention=60, retry_delay=1)
    async def describe(context: TaskContext) -> None:
        await context.aemit({"line": 1})
        await context.asleep(60)
        await context.aemit({"line": 2})

        async def inside() -> None:
            await context.aemit({"line": 3})

        await context.astep("inside", inside)
        if context.attempt == 1:
            raise ValueError("once")

    await start()
    handle = await describe.adelay()
    found: list[Any] = []

    async def read() -> None:
        async for item in handle.stream():
            found.append((item.value["line"], item.attempt, item.step))  # noqa: PERF401 - watched while it grows

    reading = asyncio.create_task(read())
    await until(lambda: found == [(1, 1, "")])
    await clock.advance(65)
    await asyncio.wait_for(reading, 30)

    assert found == [(1, 1, ""), (2, 1, ""), (3, 1, "inside"), (1, 2, ""), (2, 2, "")]
    assert [item.value["line"] for item in await asyncio.to_thread(lambda: list(handle.stream()))] == [1, 2, 3, 1, 2]


async def test_readers_of_one_task_share_its_subscription_and_reads(
    app: TaskQ, start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()

    @app.task(retention=60)
    async def count(context: TaskContext) -> None:
        await context.aemit(0)
        await go.wait()
        for number in range(1, 11):
            await context.aemit(number)

    await start()
    handle = await count.adelay()
    found: list[list[int]] = [[] for _ in range(100)]

    async def read(into: list[int]) -> None:
        async for item in handle.stream(value_type=int):
            into.append(item.value)  # noqa: PERF401 - watched while it grows

    reads: list[str] = []
    run = type(app.runtime.async_runner).run

    async def counted(self: Any, operation: Any, **options: Any) -> Any:
        reads.append(operation.name)
        return await run(self, operation, **options)

    readers = [asyncio.create_task(read(each)) for each in found]
    await until(lambda: all(found) and redis_server.client.pubsub_numsub("taskq:{default}:done")[0][1])
    monkeypatch.setattr(type(app.runtime.async_runner), "run", counted)
    (channel,) = redis_server.client.pubsub_numsub("taskq:{default}:done")
    go.set()
    await asyncio.wait_for(asyncio.gather(*readers), 30)

    assert channel[1] == 1
    assert all(each == list(range(11)) for each in found)
    assert reads.count("read_stream") < 50


async def test_a_signal_that_the_task_does_not_declare_is_refused(app: TaskQ) -> None:
    @app.task(signals={"review": Review})
    async def publish(context: TaskContext) -> None:
        await context.areceive("review", Review, timeout=60)

    handle = await publish.adelay()
    with pytest.raises(StepError, match="unknown signal 'reveiw'; did you mean 'review'"):
        await handle.asignal("reveiw", Review(True))
    for each in (handle, await app.aget(handle.id)):
        with pytest.raises(StepError, match=r"the value of signal 'review' does not fit: .*; nothing was sent"):
            await each.asignal("review", {"approved": "maybe"})
    await handle.asignal("review", Review(True))
    with pytest.raises(ConfigurationError, match="signals"):
        publish.using(signals={})


async def test_a_task_receives_only_the_signals_that_it_declares(app: TaskQ, start: Runner) -> None:
    """Nobody could send another one."""

    @app.task(signals={"review": Review}, max_retry=0)
    async def publish(context: TaskContext) -> None:
        await context.areceive("reveiw", Review)

    await start()
    handle = await publish.adelay()

    with pytest.raises(TaskFailedError, match="unknown signal 'reveiw'; did you mean 'review'"):
        await handle.aresult(timeout=30)


async def test_sub_tasks_are_cancelled_on_request(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    @app.task
    def part(number: int) -> int:
        return number

    @app.task
    async def whole(context: TaskContext) -> None:
        await context.acall(*(part.using(queue="other").s(number) for number in range(3)))

    worker = await start()
    handle = await whole.adelay()
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await start.stop(worker)

    assert await handle.acancel(children=True)
    (workflow,) = redis_server.client.zrange("taskq:{default}:wf-ended", 0, -1)
    assert redis_server.client.hget(f"taskq:{{default}}:wf:{workflow.decode()}", "state") == b"cancelled"


@pytest.mark.parametrize("duration", [-5, timedelta(days=-1), datetime(2020, 1, 1, tzinfo=UTC)], ids=str)
async def test_a_sleep_into_the_past_ends_at_once(app: TaskQ, start: Runner, duration: Any) -> None:
    @app.task(retention=60)
    async def late(context: TaskContext) -> int:
        await context.asleep(duration)
        return context.attempt

    worker = await start()
    assert await (await late.adelay()).aresult(timeout=30) == 1
    assert worker.running_count == 0


async def test_a_refused_step_call_stores_only_the_failure_of_its_step(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    problems: list[str] = []

    @app.task(retention=60)
    async def wrong(context: TaskContext) -> None:
        async def nested() -> None:
            await context.asleep(1)

        for work in (
            lambda: context.astep("a#b", int),
            lambda: context.astep("object", object),
            lambda: context.astep("large", lambda: "x" * 2_000_000),
            lambda: context.astep("nested", nested),
            lambda: context.astep("called", nested()),  # type: ignore[call-overload]  # the mistake that is tested
            lambda: context.areceive("a:b"),
            lambda: context.areceive("\ud800"),
            lambda: context.aemit(object()),
        ):
            with pytest.raises(StepError) as caught:
                await work()
            problems.append(str(caught.value))

    await start()
    handle = await wrong.adelay()
    await handle.aresult(timeout=30)

    assert problems == [
        "name of a step must be 1 to 100 characters of text without '#' and ':', got 'a#b'",
        "the result of step 'object': object has no JSON form",
        "the result of step 'large' must be at most 1,048,576 bytes of JSON, got 2,000,002",
        "name of a sleep 'sleep' is inside step 'nested'; steps cannot be nested: "
        "begin it in the function of the task, before or after the step",
        "step 'called' got a coroutine instead of a function; pass the function and its arguments, such as "
        "astep('mail', send, address)",
        "name of a signal must be 1 to 100 characters of text without '#' and ':', got 'a:b'",
        "name of a signal must be 1 to 100 characters of text without '#' and ':', got '\\ud800'",
        "an emitted value: object has no JSON form",
    ]
    stored = redis_server.client.hkeys(f"taskq:{{default}}:steps:{handle.id}")
    assert {each for each in stored if each[1:2] == b":"} == {
        *(b"a:object", b"a:large", b"a:nested"),
        *(b"s:object", b"s:large"),  # the last failure ends in a success of the task, so it is not stored
    }
    assert not redis_server.client.exists(f"taskq:{{default}}:stream:{handle.id}")


async def test_a_failure_of_sub_tasks_stays_when_they_run_again(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """The task has acted on the failure, so a later run must not see a success."""
    attempts: list[int] = []

    @app.task(max_retry=0)
    def part() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("broken")
        return 1

    @app.task(retention=60, max_retry=0)
    async def whole(context: TaskContext) -> str:
        try:
            await context.acall(part.s())
        except WorkflowFailedError as error:
            await context.astep("refund", int)
            await context.areceive("go", timeout=600)
            return str(error)
        return "success"

    await start()
    handle = await whole.adelay()
    await until(lambda: (wait := handle.refresh().wait) is not None and wait.name == "go")
    (workflow,) = redis_server.client.zrange("taskq:{default}:wf-ended", 0, -1)
    await app.workflow(workflow.decode(), "default").aretry()
    await until(lambda: len(attempts) == 2)
    await handle.asignal("go")

    assert "ValueError: broken" in await handle.aresult(timeout=30)


@pytest.mark.parametrize(("type_", "sent", "got"), [(bool, {"approved": True}, True), (Review, False, Review(False))])
async def test_a_signal_may_be_a_bool_or_a_class(app: TaskQ, start: Runner, type_: Any, sent: Any, got: Any) -> None:
    answers: list[Any] = []

    @app.task(retention=60, signals={"review": type_})
    async def ask(context: TaskContext) -> None:
        answers.append(await context.areceive("review", type_, timeout=600))

    await start()
    handle = await ask.adelay()
    await handle.asignal("review", sent)
    await handle.aresult(timeout=30)

    assert answers == [got]


async def test_an_invalid_signal_can_be_deleted(app: TaskQ, start: Runner) -> None:
    answers: list[Any] = []

    @app.task(retention=60, max_retry=0)
    async def ask(context: TaskContext) -> None:
        answers.extend([await context.areceive("number", int, timeout=600) for _ in range(2)])

    worker = await start()
    handle = await ask.adelay()
    await handle.asignal("number", "one")
    await handle.asignal("number", 2)
    command = f"taskq task forget-step --queue default {handle.id} 'number#1'"
    with pytest.raises(TaskFailedError, match=f"to delete it, run `{command}`"):
        await handle.aresult(timeout=30)
    inspector = AsyncInspector(app)
    assert await inspector.forget_step("default", handle.id, "number#1") is True
    await inspector.run_task("default", handle.id)
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.asignal("number", 3)
    await until(lambda: bool(answers))
    await start.stop(worker)

    assert answers == [2, 3]


async def test_a_wait_that_timed_out_begins_again_after_forget_step(app: TaskQ, start: Runner, clock: Clock) -> None:
    @app.task(retention=60, max_retry=0)
    async def ask(context: TaskContext) -> int:
        return await context.areceive("number", int, timeout=60)

    worker = await start()
    handle = await ask.adelay()
    await clock.advance(65)
    with pytest.raises(TaskFailedError, match="no signal 'number' has arrived"):
        await handle.aresult(timeout=30)
    inspector = AsyncInspector(app)
    assert await inspector.forget_step("default", handle.id, "number#1") is True
    await inspector.run_task("default", handle.id)
    await until(lambda: state(handle) is TaskState.SCHEDULED)
    await handle.asignal("number", 3)
    assert await handle.aresult(timeout=30) == 3
    await start.stop(worker)


async def test_a_task_does_not_miss_a_signal_after_forget_step(app: TaskQ, start: Runner) -> None:
    @app.task(retention=60)
    async def collect(context: TaskContext) -> list[int]:
        return [await context.areceive("number", int) for _ in range(2)]

    def number_of_wait(handle: TaskHandle[Any]) -> int | None:
        wait = handle.refresh().wait
        return None if wait is None else wait.number

    await start()
    handle = await collect.adelay()
    await handle.asignal("number", 1)
    await until(lambda: number_of_wait(handle) == 2)

    assert await AsyncInspector(app).forget_step("default", handle.id, "number#1") is True
    await until(lambda: number_of_wait(handle) == 1)
    await handle.asignal("number", 2)
    await until(lambda: number_of_wait(handle) == 2)
    await handle.asignal("number", 3)

    assert await handle.aresult(timeout=30) == [2, 3]


async def test_code_that_outlives_its_task_cannot_emit(app: TaskQ, start: Runner) -> None:
    leftover: list[asyncio.Task[None]] = []

    @app.task(retention=60)
    async def leave(context: TaskContext) -> str:
        async def produce() -> None:
            while True:
                await context.aemit("x" * 1000)
                await asyncio.sleep(0)

        leftover.append(asyncio.create_task(produce()))
        for _ in range(20):
            await asyncio.sleep(0)
        return "done"

    await start()
    handle = await leave.adelay()

    assert await handle.aresult(timeout=30) == "done"
    with pytest.raises(TaskInterrupted):
        await leftover[0]


async def test_a_reader_is_told_how_many_values_were_deleted(app: TaskQ, start: Runner) -> None:
    """Also a reader that continues after an item, over several pages, and for values of several requests."""

    @app.task(retention=60, max_emitted=300)
    async def count(context: TaskContext) -> None:
        for number in range(1, 1001):
            await context.aemit(number)
            if number % 150 == 0:
                await context.astep(f"to {number}", asyncio.sleep, 0)

    await start()
    handle = await count.adelay()
    await handle.aresult(timeout=30)

    found = [item async for item in handle.stream()]
    assert [item.value for item in found] == list(range(found[0].value, 1001))
    assert found[0].gap == found[0].value - 1 >= 1000 - 300 - 100
    assert {item.gap for item in found[1:]} == {0}
    assert [item async for item in handle.stream(after=found[99].id)] == found[100:]
    millisecond, number = found[0].id.split("-")
    [missed, *_] = await asyncio.to_thread(lambda: list(handle.stream(after=f"{millisecond}-{int(number) - 5}")))
    assert (missed.value, missed.gap) == (found[0].value, 4)


async def test_an_unknown_position_of_a_stream_is_refused(app: TaskQ) -> None:
    handle = await app.remote("note").adelay()
    with pytest.raises(StepError, match="after must be the id of an item of the stream, got 'x'"):
        handle.stream(after="x")
