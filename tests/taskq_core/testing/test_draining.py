"""`drain`: a real worker, on a store in memory and on a real server."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core import (
    BrokerUnavailableError,
    Signature,
    TaskFailedError,
    TaskQ,
    TaskState,
    UnknownTaskError,
    current_task,
)
from taskq_core.inspector import Inspector
from taskq_core.tasks.aggregation import GroupedTask
from taskq_core.testing import adrain, capture, drain
from tests.redis_server import RedisServer


@pytest.fixture(params=["memory", pytest.param("server", marks=pytest.mark.redis)])
def app(request: pytest.FixtureRequest) -> Iterator[TaskQ]:
    """An application with an empty store."""
    if request.param == "memory":
        app = TaskQ("redis://127.0.0.1:1/0", defaults={"retention": 60})
        with capture(app):
            yield app
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        app = TaskQ(server.unix_url, defaults={"retention": 60}, enqueue_timeout=30)
        yield app
    app.close()


def test_drain_runs_pending_tasks(app: TaskQ) -> None:
    """Plain functions run in the worker's threads, coroutines on its loop."""

    @app.task(name="plain")
    def plain(n: int) -> list[Any]:
        return [n, threading.current_thread() is threading.main_thread(), current_task().local]

    @app.task(name="coroutine")
    async def coroutine(n: int) -> int:
        await asyncio.sleep(0)
        return n

    handles = [plain.delay(1), coroutine.delay(2)]

    runs = drain(app)

    assert sorted((run.name, run.outcome, run.attempt) for run in runs) == [
        ("coroutine", "completed", 1),
        ("plain", "completed", 1),
    ]
    assert [handle.result(timeout=60) for handle in handles] == [[1, False, False], 2]


def test_tasks_with_limits_run_one_after_the_other(app: TaskQ) -> None:
    """A drain keeps places and sequences; each end lets the next in."""
    ran: list[int] = []

    @app.task(name="in_order", sequence="key", concurrency=1)
    def in_order(key: str, n: int) -> None:
        ran.append(n)

    for n in range(5):
        in_order.delay("k", n)

    assert len(drain(app)) == 5
    assert ran == [0, 1, 2, 3, 4]


def test_drain_runs_tasks_enqueued_by_tasks(app: TaskQ) -> None:
    @app.task(name="count_down")
    def count_down(n: int) -> None:
        if n:
            count_down.delay(n - 1)

    count_down.delay(5)

    assert len(drain(app)) == 6


async def test_adrain_works_in_coroutines(app: TaskQ) -> None:
    @app.task(name="count_down")
    async def count_down(n: int) -> int:
        if n:
            await count_down.adelay(n - 1)
        return n

    handle = await count_down.adelay(5)

    assert len(await adrain(app)) == 6
    assert await handle.aresult(timeout=60) == 5
    await app.aclose()


async def test_drain_in_a_coroutine_is_refused_with_a_hint(app: TaskQ) -> None:
    with pytest.raises(RuntimeError, match="await adrain"):
        drain(app)


def test_failures_are_raised(app: TaskQ) -> None:
    @app.task(name="fail", max_retry=0)
    def fail() -> None:
        raise ValueError("no")

    handle = fail.delay()

    with pytest.raises(ValueError, match="no"):
        drain(app)

    with pytest.raises(TaskFailedError, match="no"):
        handle.result()


def test_without_advance_scheduled_tasks_stay_scheduled(app: TaskQ) -> None:
    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    fail.delay()
    app.task(name="note", run_after=60)(lambda: None).delay()

    assert [run.outcome for run in drain(app, raises=False)] == ["retried"]
    assert drain(app) == []


def test_advance_runs_scheduled_tasks_without_waiting(app: TaskQ) -> None:
    """Starts and attempts come in their order; the rest of the time passes as well."""
    ran: list[str] = []

    @app.task(name="note", retry_delay=3600, max_retry=1)
    def note(word: str) -> None:
        attempt = current_task().attempt
        ran.append(f"{word} {attempt}")
        if word == "fail" and attempt == 1:
            raise ValueError

    note.delay("fail")
    note.using(run_after=7200).delay("two hours")
    note.using(run_after=1800).delay("half an hour")
    later = note.using(run_after=100_000).delay("later")

    runs = drain(app, advance=86_400)

    assert ran == ["fail 1", "half an hour 1", "fail 2", "two hours 1"]
    assert [run.outcome for run in runs] == ["retried", "completed", "completed", "completed"]
    info = later.refresh()
    assert info.next_run_at is not None
    assert drain(app, advance=100_000 - 86_400 + 1)[0].id == later.id


def test_groups_are_combined_after_their_time(app: TaskQ) -> None:
    @app.task(name="note")
    def note(n: int) -> None: ...

    @app.task(name="digest")
    def digest(numbers: list[int]) -> list[int]:
        return numbers

    @app.aggregator("news", grace=600)
    def combine(group: str, tasks: list[GroupedTask]) -> Signature[list[int]]:
        return digest.s(sorted(task.kwargs["n"] for task in tasks))

    for n in range(3):
        note.using(aggregate="news").delay(n)

    assert drain(app, advance=300) == []
    (run,) = drain(app, advance=301)
    assert run.name == "digest"
    assert Inspector(app).task("default", run.id).result == b"[0,1,2]"


def test_drain_uses_the_configured_queues_unless_named(app: TaskQ) -> None:
    app.task(name="note")(lambda: None).using(queue="reports").delay()

    assert drain(app) == []
    assert [run.queue for run in drain(app, queues=["reports"])] == ["reports"]


def test_an_unknown_task_is_a_failure(app: TaskQ) -> None:
    """No other worker comes, so it does not go back."""
    app.remote("go:task").delay()

    with pytest.raises(UnknownTaskError):
        drain(app)

    assert Inspector(app).queue_info("default").sizes[TaskState.ARCHIVED] == 1


def test_an_unreachable_redis_is_reported() -> None:
    app = TaskQ("redis://127.0.0.1:1/0")

    with pytest.raises(BrokerUnavailableError):
        drain(app)
