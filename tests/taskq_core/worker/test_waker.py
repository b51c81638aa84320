"""How a waiting worker notices new tasks, and what it costs Redis while there are none.

The safety net is ten minutes here, so only tokens and the watcher can explain that a task starts.
"""

import asyncio
from functools import partial
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys, build_message
from taskq_core.worker import Worker
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, push_raw, state_of, until


async def settled_in(server: RedisServer, worker: Worker) -> None:
    """Wait until the worker is idle and waits for a token, and a watcher for tasks without one."""
    await until(lambda: worker._fetcher.is_idle)
    await until(lambda: "blpop" in {each["cmd"] for each in server.client.client_list()})


async def test_a_waiting_worker_starts_an_enqueued_task(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Each of several tasks wakes the worker by a token."""

    @app.task
    async def work(number: int) -> int:
        return number

    worker = await start(safety_net=600)
    for number in range(20):
        await settled_in(redis_server, worker)
        assert await (await work.adelay(number)).aresult(PATIENCE_S) == number


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_task_pushed_without_a_token_starts(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, concurrency: int
) -> None:
    """Go's client pushes tasks without a token, so the watcher wakes a worker."""

    @app.task(name="go")
    async def work() -> str:
        return "ran"

    def is_completed(task_id: str) -> bool:
        return state_of(redis_server, queue, task_id) == "completed"

    worker = await start(safety_net=600, concurrency=concurrency)
    for number in range(4):
        await settled_in(redis_server, worker)
        task_id = f"go{number}"
        message = build_message(type="go", payload=b"{}", id=task_id, queue="default", retry=0, retention=60)
        push_raw(redis_server, queue, task_id, message.SerializeToString())
        await until(partial(is_completed, task_id))


async def test_many_tasks_pushed_without_a_token_start_on_all_workers(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A worker that takes some passes a token on while tasks remain."""
    release = asyncio.Event()

    @app.task(name="go")
    async def work() -> None:
        await release.wait()

    workers = [await start(safety_net=600, concurrency=2) for _ in range(3)]
    for worker in workers:
        await settled_in(redis_server, worker)
    for number in range(6):
        message = build_message(type="go", payload=b"{}", id=f"{number}", queue="default", retry=0)
        push_raw(redis_server, queue, f"{number}", message.SerializeToString())
    await until(lambda: [worker.running_count for worker in workers] == [2, 2, 2])
    release.set()


async def test_another_worker_watches_when_the_watcher_stops(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """Another worker starts to watch soon."""

    @app.task(name="go")
    async def work() -> str:
        return "ran"

    first = await start(safety_net=600)
    await settled_in(redis_server, first)
    second = await start(safety_net=600)
    await until(lambda: second._fetcher.is_idle)
    await start.stop(first)
    message = build_message(type="go", payload=b"{}", id="x", queue="default", retry=0, retention=60)
    push_raw(redis_server, queue, "x", message.SerializeToString())
    await clock.advance(10)

    await until(lambda: state_of(redis_server, queue, "x") == "completed")


def without_watcher(server: RedisServer, queue: QueueKeys) -> None:
    """Disable the leader and its watcher, so that only tokens can wake a worker."""
    server.client.set(queue.leader("lookout"), "nobody")


async def test_a_task_runs_although_its_token_was_lost_with_a_connection(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """After a broken wait the worker queries its queues, because the lost reply may have been the token."""

    @app.task(name="work")
    async def work() -> None: ...

    without_watcher(redis_server, queue)
    worker = await start(safety_net=600)
    waiting: Any = await until(lambda: [each for each in redis_server.client.client_list() if each["cmd"] == "blpop"])
    await until(lambda: worker._fetcher.is_idle)
    message = build_message(type="work", payload=b"{}", id="x", queue="default", retry=0, retention=60)
    push_raw(redis_server, queue, "x", message.SerializeToString())
    redis_server.client.client_kill_filter(_id=waiting[0]["id"])

    await until(lambda: state_of(redis_server, queue, "x") == "completed")


async def test_a_paused_worker_passes_its_token_on(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A paused worker must not keep a task from the other workers."""

    @app.task
    async def work() -> str:
        return "ran"

    def waiting() -> int:
        return sum(each["cmd"] == "blpop" for each in redis_server.client.client_list())

    without_watcher(redis_server, queue)
    first = await start(safety_net=600, concurrency=1)
    await until(lambda: waiting() == 1)
    await start(safety_net=600)
    await until(lambda: waiting() == 2)
    first.pause()  # it is the first in line, and the token goes to it

    assert await (await work.adelay()).aresult(PATIENCE_S) == "ran"


async def test_a_stopping_worker_returns_its_token_although_its_counters_cannot_be_stored(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker cannot know whether it has taken a token during its shutdown."""
    monkeypatch.setattr("taskq_core.worker.run_counters.HAND_IN_S", 600)

    with Relay(redis_server.socket_path) as relay:
        far = TaskQ(relay.url)

        @far.task(name="work")
        async def work() -> None: ...

        without_watcher(redis_server, queue)
        worker = await start(app=far, safety_net=600)
        await app.remote("work").adelay()
        await until(lambda: worker.ended_count == 1)
        worker.pause()
        message = build_message(type="work", payload=b"{}", id="x", queue="default", retry=0, retention=60)
        push_raw(redis_server, queue, "x", message.SerializeToString())
        relay.drop_request(redis_server.load("count_runs"))
        await start.stop(worker)
        await far.aclose()

    assert relay.intercepted == 1
    assert redis_server.client.llen(queue.wake) == 1


async def test_requeued_tasks_wake_other_workers(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Tasks that a stopping worker returns start on the next worker at once."""
    release = asyncio.Event()

    @app.task
    async def hold() -> str:
        await release.wait()
        return "ran"

    ends = Ends()
    first = await start(safety_net=600, shutdown_grace=0, concurrency=1, listener=ends)
    handle = await hold.adelay()
    await until(lambda: first.running_count == 1)
    second = await start(safety_net=600)
    await until(lambda: second._fetcher.is_idle)
    await start.stop(first)
    await until(lambda: second.running_count == 1)
    release.set()

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert ends.of(handle.id) == ["requeued"]
