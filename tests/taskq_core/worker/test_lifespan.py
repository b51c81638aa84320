"""Test lifespans, which a worker opens before its first task and closes after its last."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from taskq_core import TaskContext, TaskDefinitionError, TaskQ, current_task
from taskq_core.testing import adrain, capture, drain, eager
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import Clock
from tests.logged import logged_here
from tests.taskq_core.worker.conftest import until

pytestmark = pytest.mark.redis


@pytest.fixture
def app(redis_server: Any) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=60)
    yield app
    app.close()


def test_a_lifespan_opens_before_the_first_task_and_closes_after_the_last(app: TaskQ) -> None:
    """The first lifespan is the outermost. Later lifespans override the state of earlier ones."""
    happened: list[str] = []

    @app.worker_lifespan
    async def first() -> AsyncIterator[dict[str, str]]:
        happened.append("open first")
        yield {"a": "first", "b": "first"}
        happened.append("close first")

    @app.worker_lifespan
    def second() -> Iterator[dict[str, str]]:
        happened.append("open second")
        yield {"b": "second"}
        happened.append("close second")

    @app.worker_lifespan
    @contextlib.asynccontextmanager
    async def third() -> AsyncIterator[None]:
        yield

    @app.task(name="plain")
    def plain() -> None:
        happened.append(f"plain {dict(current_task().state)}")

    @app.task(name="coroutine")
    async def coroutine(context: TaskContext) -> None:
        happened.append(f"coroutine {context.state['a']} {context.state['b']}")

    plain.delay()
    drain(app)
    coroutine.delay()
    drain(app)

    opened, closed = ["open first", "open second"], ["close second", "close first"]
    assert happened == [
        *[*opened, "plain {'a': 'first', 'b': 'second'}", *closed],
        *[*opened, "coroutine first second", *closed],
    ]


def test_a_lifespan_may_contain_a_task_group(app: TaskQ) -> None:
    @app.worker_lifespan
    async def group() -> AsyncIterator[dict[str, Any]]:
        async with asyncio.TaskGroup() as group:
            yield {"group": group}

    done: list[str] = []

    @app.task(name="spawn")
    async def spawn(context: TaskContext) -> None:
        async def later() -> None:
            await asyncio.sleep(0)
            done.append(threading.current_thread().name)

        context.state["group"].create_task(later())

    spawn.delay()
    drain(app)

    assert len(done) == 1


async def _lives(worker: Worker) -> int:
    async with asyncio.timeout(30):
        return await worker.arun()


@pytest.mark.parametrize("how", ["raises", "yields a word", "returns nothing"])
async def test_a_worker_whose_lifespan_fails_does_not_start(
    app: TaskQ, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Open lifespans are closed, the worker fetches no task, and the log states the reason."""
    closed: list[str] = []

    @app.worker_lifespan
    async def first() -> AsyncIterator[None]:
        try:
            yield
        finally:
            closed.append("first")

    @app.worker_lifespan
    async def raises() -> AsyncIterator[Any]:
        if how == "raises":
            raise ConnectionError("no database")
        yield "word" if how == "yields a word" else None

    if how == "returns nothing":
        app.worker_lifespan(lambda: None)
    ran: list[int] = []
    await app.task(name="work")(lambda: ran.append(1)).adelay()

    with caplog.at_level(logging.ERROR, "taskq.worker"):
        assert await _lives(Worker(app, WorkerConfig(burst=True))) == 1

    assert (closed, ran) == (["first"], [])
    (record,) = logged_here(caplog)
    assert record.getMessage() == "the worker cannot start: its lifespan failed"
    assert record.exc_info is not None
    words = {
        "raises": "no database",
        "yields a word": "yield a mapping or nothing, but ",
        "returns nothing": "yield once or return a context manager, but ",
    }
    assert words[how] in str(record.exc_info[1])


async def test_a_worker_that_is_stopped_while_its_lifespan_opens_ends(app: TaskQ) -> None:
    opening = asyncio.Event()
    ended: list[str] = []

    @app.worker_lifespan
    async def hangs() -> AsyncIterator[None]:
        opening.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        yield

    worker = Worker(app, WorkerConfig())
    running = asyncio.create_task(_lives(worker))
    await opening.wait()
    worker.stop()

    assert await running == 0
    assert ended == ["cancelled"]


async def test_a_worker_whose_lifespan_ends_early_stops_and_logs_it(
    app: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    """Further tasks would only fail, so the worker ends and its process manager starts another one."""

    @app.worker_lifespan
    async def breaks() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:

            async def refresh() -> None:
                raise ConnectionError("the pool is gone")

            group.create_task(refresh())
            yield

    with caplog.at_level(logging.ERROR, "taskq.worker"):
        assert await _lives(Worker(app, WorkerConfig())) == 1

    assert [record.getMessage() for record in logged_here(caplog)] == ["the worker's lifespan failed"]


async def test_a_lifespan_that_does_not_close_is_cancelled(
    app: TaskQ, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    lingering = asyncio.Event()

    @app.worker_lifespan
    async def lingers() -> AsyncIterator[None]:
        yield
        lingering.set()
        await asyncio.Event().wait()

    worker = Worker(app, WorkerConfig(shutdown_grace=20))
    living = asyncio.create_task(worker.arun())
    await until(lambda: worker.status == "active")
    worker.stop()
    await lingering.wait()
    with caplog.at_level(logging.ERROR, "taskq.worker"):
        await clock.advance(21)
        assert await living == 1

    assert "did not end within 20 s" in str(caplog.records[0].exc_info[1])  # type: ignore[index]


@pytest.mark.parametrize("while_it", ["opens", "closes"])
async def test_a_lifespan_that_ignores_its_cancellation_is_abandoned(
    app: TaskQ, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, while_it: str
) -> None:
    """A worker that is aborted does not wait for it."""
    monkeypatch.setattr("taskq_core.execution.lifespan.CANCELLED_S", 0.01)
    is_there, go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        is_there.set()
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    @app.worker_lifespan
    async def hangs() -> AsyncIterator[None]:
        if while_it == "opens":
            await stubborn()
        yield
        await stubborn()

    worker = Worker(app, WorkerConfig(shutdown_grace=60))
    living = asyncio.create_task(_lives(worker))
    if while_it == "closes":
        await until(lambda: worker.status == "active")
        worker.stop()
    await is_there.wait()
    with caplog.at_level(logging.ERROR, "taskq.worker"):
        worker.abort()
        assert await living == 1
    go.set()

    assert "did not end within" in str(caplog.records[-1].exc_info)


async def test_captured_tasks_use_the_lifespan_state_of_the_test(app: TaskQ) -> None:
    """No lifespan runs there; outside a worker the state is empty."""
    found: list[object] = []

    @app.worker_lifespan
    async def never() -> AsyncIterator[None]:
        raise AssertionError("it runs")
        yield

    @app.task(name="look")
    async def look(context: TaskContext) -> None:
        found.append(dict(context.state))

    with capture(app, state={"a": 1}) as tasks:
        await look.adelay()
        await tasks.arun()
    with eager(app, state={"a": 2}):
        await look.adelay()
    await look()

    assert found == [{"a": 1}, {"a": 2}, {}]


def test_an_invalid_lifespan_is_refused(app: TaskQ) -> None:
    with pytest.raises(TaskDefinitionError, match="must be a function that yields once, got 7"):
        app.worker_lifespan(7)  # type: ignore[type-var]
    with pytest.raises(TaskDefinitionError, match=r"cannot call the lifespan .* without arguments"):
        app.worker_lifespan(lambda app: None)  # type: ignore[misc,arg-type]


async def test_progress_is_published_while_the_task_runs(app: TaskQ) -> None:
    seen = asyncio.Event()
    is_published = asyncio.Event()

    @app.task(name="work", retention=60)
    async def work(context: TaskContext) -> str:
        context.progress(3, 10)
        is_published.set()
        await seen.wait()
        return "all"

    handle = await work.adelay()
    draining = asyncio.create_task(adrain(app))
    await is_published.wait()

    async def is_told() -> bool:
        return (await handle.arefresh()).progress is not None

    await until(is_told)
    progress = (await handle.arefresh()).progress
    seen.set()
    await draining

    assert progress is not None
    assert (progress.done, progress.total) == (3, 10)
    assert await handle.aresult() == "all"
