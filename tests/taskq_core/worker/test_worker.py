"""The life of a worker: start, signals, stop, burst mode."""

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from taskq_core import ConfigurationError, RateLimit, TaskQ, TaskSequence, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Dequeued
from taskq_core.broker.pipelines import Pipeline
from taskq_core.errors import BrokerUnavailableError, TaskInterrupted
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.burst import LONGEST_PAUSE_S, Burst
from taskq_core.worker.leadership import Leadership
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    STEADY,
    Ends,
    Runner,
    state_of,
    texts,
    until,
    until_released,
)

# --- configuration ----------------------------------------------------------------------------------------------------


def test_invalid_settings_are_refused(subtests: pytest.Subtests) -> None:
    """The refusal names the field, the value and what was expected."""
    for values, message in [
        ({"concurrency": 0}, "concurrency must be between 1 and 100000, got 0"),
        ({"queues": {}}, "queue"),
        ({"queues": {"a": 0}}, "must be between 1 and 1000000, got 0"),
        ({"lease": 2.5}, "lease must be whole seconds from 1 to 3600, got 2.5"),
        ({"lease": 3601}, "lease must be whole seconds from 1 to 3600, got 3601"),
        ({"lease": 3, "heartbeat": 2}, "heartbeat must be at most a third of the lease, got 2.0 of 3.0 s"),
        ({"shutdown_grace": -1}, "shutdown_grace"),
        ({"unknown_task_timeout": -1}, "unknown_task_timeout"),
        ({"safety_net": 0}, "safety_net"),
    ]:
        with subtests.test(values=values, message=message), pytest.raises(ConfigurationError, match=message):
            WorkerConfig(**values)


# --- start ------------------------------------------------------------------------------------------------------------


async def test_a_worker_runs_once(start: Runner) -> None:
    """A second run is refused, also after the first has ended."""
    worker = await start()

    with pytest.raises(RuntimeError, match="a worker can run only once, and this worker is already active"):
        await worker.arun()
    assert await start.stop(worker) == 0
    with pytest.raises(RuntimeError, match="a worker can run only once, and this worker is already closed"):
        await worker.arun()


async def test_a_worker_stopped_before_its_start_ends_at_once(app: TaskQ) -> None:
    """The worker fetches no task."""

    @app.task
    async def work() -> None: ...

    handle = await work.adelay()
    worker = Worker(app, WorkerConfig(**STEADY))
    worker.stop()

    assert await asyncio.wait_for(worker.arun(), PATIENCE_S) == 0
    assert (await handle.arefresh()).state == "pending"
    await app.aclose()


async def test_stopping_a_worker_that_has_ended_does_nothing(app: TaskQ) -> None:
    """This holds for any thread and any time, even when the loop of the worker is closed."""
    worker = Worker(app, WorkerConfig(**STEADY))
    running = threading.Thread(target=worker.run)
    running.start()
    await until(lambda: worker.status == "active")
    worker.stop()
    await asyncio.to_thread(running.join)

    worker.stop()
    worker.abort()
    assert worker.status == "closed"


def test_a_wrong_password_ends_the_worker_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """The exit status is 1, and one log line reports the error without the password."""
    with RedisServer(tcp=True, password="right") as server:
        app = TaskQ(f"redis://:canary@127.0.0.1:{server.port}/0")
        status = Worker(app).run()
        app.close()

    assert status == 1
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "the worker cannot start: " in record.getMessage()
    assert "password" in record.getMessage()
    assert "canary" not in caplog.text


def test_an_unreachable_redis_ends_a_worker_that_must_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    """The exit status is 1, and the log has the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        port = taken.getsockname()[1]
        app = TaskQ(f"redis://127.0.0.1:{port}/0")
        worker = Worker(app, WorkerConfig(wait_for_redis=False))
        status = worker.run()
        app.close()

    assert status == 1
    assert worker.status == "closed"
    assert (worker.ended_count, worker.running_count, worker.ignored_fields) == (0, 0, 0)
    assert not worker.repairs
    assert not worker.runs
    assert f"the worker cannot start: cannot reach redis://127.0.0.1:{port}/0" in caplog.text
    assert "is Redis running? --url, TASKQ_URL or in Django TASKQ['URL'] sets its address" in caplog.text


async def test_a_worker_registers_its_queues(start: Runner, redis_server: RedisServer) -> None:
    """Tools see the queues before a task is enqueued."""
    await start(queues={"one": 1, "two": 2})
    await until(lambda: redis_server.client.smembers("asynq:queues") == {b"one", b"two"})


# --- stop -------------------------------------------------------------------------------------------------------------


async def test_stop_waits_for_running_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Running tasks finish and are settled. Pending tasks stay pending."""
    release = threading.Event()

    @app.task
    def plain() -> str:
        release.wait(60)
        return "plain"

    @app.task
    async def coroutine() -> str:
        await until(release.is_set)
        return "coroutine"

    worker = await start(concurrency=2)
    handles = [await plain.adelay(), await coroutine.adelay()]
    await until(lambda: worker.running_count == 2)
    waiting = await coroutine.adelay()
    worker.stop()
    await until(lambda: worker.status == "stopped")
    release.set()

    assert await start.ending(worker) == 0
    assert [await handle.aresult(PATIENCE_S) for handle in handles] == ["plain", "coroutine"]
    assert state_of(redis_server, queue, waiting.id) == "pending"
    assert not redis_server.client.exists(queue.active, queue.lease)


async def test_a_task_that_outlives_the_grace_returns_to_the_head_of_its_queue(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The task returns unchanged, uses no attempt, and is next to run. Its function is interrupted."""
    begun: list[str] = []
    ended: list[str] = []

    @app.task
    def plain() -> None:
        try:
            begun.append("plain")
            until_released()
        except TaskInterrupted:
            ended.append("plain")
            raise

    @app.task
    async def coroutine() -> None:
        begun.append("coroutine")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("coroutine")
            raise

    ends = Ends()
    worker = await start(concurrency=2, shutdown_grace=0.1, listener=ends)
    handles = [await plain.adelay(), await coroutine.adelay()]
    await until(lambda: len(begun) == 2)
    before = [redis_server.client.hget(queue.task(handle.id), "msg") for handle in handles]
    waiting = await coroutine.adelay()

    assert await start.stop(worker) == 0
    assert sorted(ended) == ["coroutine", "plain"]
    pending = texts(redis_server.client.lrange(queue.pending, 0, -1))
    assert pending[0] == waiting.id  # the left end is last to run
    assert set(pending[1:]) == {handle.id for handle in handles}
    assert [redis_server.client.hget(queue.task(handle.id), "msg") for handle in handles] == before
    assert {ends.of(handle.id)[0] for handle in handles} == {"requeued"}
    assert redis_server.client.get(queue.processed) is None
    assert not redis_server.client.exists(queue.active, queue.lease)


async def test_abort_does_not_wait_for_the_grace(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The grace is over at once."""

    @app.task
    async def hold() -> None:
        await asyncio.Event().wait()

    worker = await start(shutdown_grace=600)
    handle = await hold.adelay()
    await until(lambda: worker.running_count == 1)
    worker.stop()
    await until(lambda: worker.status == "stopped")
    worker.abort()

    assert await asyncio.wait_for(start.ending(worker), PATIENCE_S) == 0
    assert state_of(redis_server, queue, handle.id) == "pending"


async def test_a_cancelled_worker_requeues_its_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A caller that runs the worker on its own event loop may cancel it."""

    @app.task
    async def hold() -> None:
        await asyncio.Event().wait()

    worker = Worker(app, WorkerConfig(**STEADY))
    running = asyncio.create_task(worker.arun())
    handle = await hold.adelay()
    await until(lambda: worker.status == "active" and worker.running_count == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert worker.status == "closed"
    assert state_of(redis_server, queue, handle.id) == "pending"
    assert not redis_server.client.exists(queue.active, queue.lease)


async def test_a_worker_cancelled_during_its_shutdown_completes_the_shutdown(
    app: TaskQ, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its thread would continue and announce a stopped worker until the process ends."""
    resigning, go_on = asyncio.Event(), asyncio.Event()
    resign = Leadership.resign

    async def held(leadership: Leadership) -> None:
        resigning.set()
        await go_on.wait()
        await resign(leadership)

    monkeypatch.setattr(Leadership, "resign", held)
    before = set(threading.enumerate())
    worker = Worker(app, WorkerConfig(**STEADY))
    running = asyncio.create_task(worker.arun())
    await until(lambda: worker.status == "active")
    worker.stop()
    await resigning.wait()
    running.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    await until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("taskq")])
    assert redis_server.client.keys("asynq:servers:*") == []


async def test_a_worker_cancelled_twice_requeues_its_tasks(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The worker interrupts its running tasks and waits for them, however often it is cancelled."""
    cleaning, go_on = asyncio.Event(), asyncio.Event()

    @app.task
    async def hold() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await go_on.wait()

    worker = Worker(app, WorkerConfig(**STEADY, interrupt_grace=60))
    running = asyncio.create_task(worker.arun())
    handle = await hold.adelay()
    await until(lambda: worker.status == "active" and worker.running_count == 1)
    running.cancel()
    await cleaning.wait()
    for _ in range(2):
        running.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert worker.status == "stopped"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert state_of(redis_server, queue, handle.id) == "pending"
    assert not redis_server.client.exists(queue.active, queue.lease)


async def test_a_worker_ends_although_all_threads_of_its_loop_hang(app: TaskQ, redis_server: RedisServer) -> None:
    """These are the threads of `asyncio.to_thread`."""
    gate = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    worker = Worker(app, WorkerConfig(**STEADY))
    running = asyncio.create_task(worker.arun())
    await until(lambda: worker.status == "active")
    hanging = loop.run_in_executor(None, gate.wait, 600)
    try:
        worker.stop()

        assert await asyncio.wait_for(asyncio.shield(running), 60) == 0
        assert not hanging.done()
        await until(lambda: not redis_server.client.keys("asynq:servers:*"))
    finally:
        gate.set()


async def test_the_presence_of_a_worker_is_deleted_although_its_shutdown_fails(
    app: TaskQ, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(leadership: Leadership) -> None:
        raise RuntimeError("cannot resign")

    monkeypatch.setattr(Leadership, "resign", fail)
    worker = Worker(app, WorkerConfig(**STEADY))
    running = asyncio.create_task(worker.arun())
    await until(lambda: worker.status == "active" and redis_server.client.keys("asynq:servers:*"))
    worker.stop()
    with pytest.raises(RuntimeError, match="cannot resign"):
        await running

    await until(lambda: not redis_server.client.keys("asynq:servers:*"), "it is no longer shown")
    await worker._services.disconnect()  # as the rest of the ending would have done
    await worker._context.runner.aclose()


@pytest.mark.parametrize("concurrency", [1, 30])
async def test_a_stop_at_any_moment_leaves_no_active_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, concurrency: int
) -> None:
    """This includes a fetch in flight: its tasks run or are returned."""
    ran: list[int] = []

    @app.task(retention=0)
    async def work(number: int) -> None:
        ran.append(number)
        await asyncio.sleep(0)

    def has_taken(worker: Worker, turns: int) -> bool:
        return worker._fetcher.turns >= turns or worker._fetcher.is_idle

    count = 400
    await app.async_client.enqueue_many(work.s(number) for number in range(count))
    for turns in (0, 1, 2, 3, 5, 8, 13):
        worker = await start(concurrency=concurrency)
        await until(partial(has_taken, worker, turns))
        assert await start.stop(worker) == 0
        assert not redis_server.client.exists(queue.active, queue.lease)
    await start(concurrency=concurrency)
    await until(lambda: len(ran) >= count)
    await until(lambda: not redis_server.client.exists(queue.active, queue.pending))

    assert sorted(ran) == list(range(count))


# --- signals ----------------------------------------------------------------------------------------------------------


def enqueue(app: TaskQ, task: str, **arguments: Any) -> Any:
    return app.remote(task, retention=600, max_retry=3).delay(**arguments)


async def test_a_stopping_worker_requeues_tasks_of_a_lost_reply(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker repeats the dequeue before it ends. Otherwise the task would wait until its lease ends."""
    exchange = Pipeline.exchange

    async def loses(lane: Pipeline, operations: Sequence[Operation[Any]], **options: Any) -> list[Any]:
        answers = await exchange(lane, operations, **options)
        if any(isinstance(answer, Dequeued) and answer.tasks for answer in answers):
            monkeypatch.setattr(Pipeline, "exchange", exchange)
            await lane.close()
            worker.stop()
            raise BrokerUnavailableError("the answer is lost")
        return answers

    monkeypatch.setattr(Pipeline, "exchange", loses)
    handle = await app.remote("work").adelay()
    worker = Worker(app, WorkerConfig(**STEADY, concurrency=2))
    assert await asyncio.wait_for(worker.arun(), PATIENCE_S) == 0

    assert state_of(redis_server, queue, handle.id) == "pending"
    assert not redis_server.client.exists(queue.active, queue.lease)
    await app.aclose()


# --- burst ------------------------------------------------------------------------------------------------------------


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Let a worker in burst mode check often whether it is done. Return a list that grows with each check."""
    looks: list[None] = []
    look = Burst.work

    async def counted(burst: Burst) -> float:
        await look(burst)
        looks.append(None)
        return 0.001

    monkeypatch.setattr(Burst, "work", counted)
    return looks


async def test_burst_mode_ends_when_all_due_tasks_are_done(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The worker runs pending tasks, due tasks and tasks enqueued by tasks, but no tasks that are due later."""
    ran: list[str] = []

    @app.task(retention=0)
    async def work(name: str) -> None:
        await asyncio.sleep(0)
        ran.append(name)
        if name == "parent":
            await work.adelay("child")

    @app.task(retention=0)
    def plain(name: str) -> None:
        ran.append(name)

    await work.adelay("parent")
    await plain.adelay("plain")
    overdue = await work.using(run_after=600).adelay("overdue")
    later = await work.using(run_after=600).adelay("later")
    failed = await work.using(run_after=600).adelay("failed")
    redis_server.client.zrem(queue.scheduled, failed.id)
    redis_server.client.zadd(queue.retry, {failed.id: 1})
    redis_server.client.zadd(queue.scheduled, {overdue.id: 1})

    status = await asyncio.wait_for(Worker(app, WorkerConfig(**STEADY, burst=True, concurrency=2)).arun(), PATIENCE_S)
    await app.aclose()

    assert status == 0
    assert sorted(ran) == ["child", "failed", "overdue", "parent", "plain"]
    assert state_of(redis_server, queue, later.id) == "scheduled"


async def test_burst_mode_waits_for_due_tasks_that_are_not_forwarded_yet(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow forwarder elsewhere does not make it end too early."""
    looks = count_looks(monkeypatch)

    @app.task
    async def work() -> str:
        return "ran"

    handle = await work.using(run_after=600).adelay()
    redis_server.client.zadd(queue.scheduled, {handle.id: 1})
    redis_server.client.set(queue.leader("forwarder"), "somebody else")
    worker = await start(burst=True)
    await until(lambda: len(looks) >= 20)
    assert worker.status == "active"
    redis_server.client.delete(queue.leader("forwarder"))

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert await asyncio.wait_for(start.ending(worker), PATIENCE_S) == 0


async def test_burst_mode_ends_without_a_delay(app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker waits for events, and polls less often only if none arrive."""
    pauses_s: list[float] = []
    look = Burst.work

    async def noted(burst: Burst) -> float:
        pauses_s.append(await look(burst))
        return pauses_s[-1]

    monkeypatch.setattr(Burst, "work", noted)
    release = asyncio.Event()

    @app.task
    async def work() -> None: ...

    @app.task
    async def hold() -> None:
        await release.wait()

    await app.async_client.enqueue_many(work.s() for _ in range(100))
    await Worker(app, WorkerConfig(**STEADY, burst=True, concurrency=4)).arun()
    assert sum(pauses_s) < LONGEST_PAUSE_S

    await hold.adelay()
    held = Worker(app, WorkerConfig(**STEADY, burst=True))
    ending = asyncio.create_task(held.arun())
    await until(lambda: pauses_s[-1] == LONGEST_PAUSE_S)
    release.set()
    await ending
    assert held.ended_count == 1
    await app.aclose()


async def test_burst_mode_waits_for_tasks_of_a_lost_reply(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has a task without knowing it yet."""
    exchange = Pipeline.exchange
    ran: list[str] = []

    @app.task(retention=0)
    async def work() -> None:
        ran.append("work")

    async def loses_first(lane: Pipeline, operations: Sequence[Operation[Any]], **options: Any) -> list[Any]:
        answers = await exchange(lane, operations, **options)
        if any(isinstance(answer, Dequeued) and answer.tasks for answer in answers):
            monkeypatch.setattr(Pipeline, "exchange", exchange)
            for _ in range(100):
                await asyncio.sleep(0)
            await lane.close()
            raise BrokerUnavailableError("the answer is lost")
        return answers

    await work.adelay()
    monkeypatch.setattr(Pipeline, "exchange", loses_first)
    worker = Worker(app, WorkerConfig(**STEADY, burst=True, concurrency=6))
    assert await asyncio.wait_for(worker.arun(), PATIENCE_S) == 0
    await app.aclose()

    assert ran == ["work"]
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


async def test_burst_mode_ends_with_empty_or_paused_queues(app: TaskQ, redis_server: RedisServer) -> None:
    """No task can run in such queues."""

    @app.task
    async def work() -> None: ...

    keys = app.runtime.keys
    redis_server.client.set(keys.queue("paused").paused, "1")
    handle = await work.using(queue="paused").adelay()
    config = WorkerConfig(**STEADY, burst=True, queues={"default": 1, "paused": 1})

    assert await asyncio.wait_for(Worker(app, config).arun(), PATIENCE_S) == 0
    assert state_of(redis_server, keys.queue("paused"), handle.id) == "pending"
    await app.aclose()


async def test_burst_mode_runs_tasks_that_limits_delay(app: TaskQ, redis_server: RedisServer) -> None:
    """This covers rates, concurrency and sequences, except tasks behind a failed one and in a paused queue."""
    ran: list[str] = []

    @app.task(retention=0, rate_limit=RateLimit("10/s", burst=1))
    async def rated(name: str) -> None:
        ran.append(name)

    @app.task(retention=0, concurrency=1)
    async def placed(name: str) -> None:
        await asyncio.sleep(0)
        ran.append(name)

    @app.task(retention=0, max_retry=0, sequence=TaskSequence("key", on_failure="block"))
    async def ordered(key: str, name: str) -> None:
        ran.append(name)
        if name == "failed":
            raise ValueError(name)

    for number in range(4):
        await rated.adelay(f"rated {number}")
        await placed.adelay(f"placed {number}")
        await ordered.adelay("fine", f"ordered {number}")
    await ordered.adelay("stuck", "failed")
    stuck = await ordered.adelay("stuck", "never")
    redis_server.client.set(app.runtime.keys.queue("paused").paused, "1")
    paused = [await rated.using(queue="paused").adelay("paused") for _ in range(2)]
    config = WorkerConfig(**STEADY, burst=True, queues={"default": 1, "paused": 1})

    status = await asyncio.wait_for(Worker(app, config).arun(), 60)
    left = [await handle.arefresh() for handle in (stuck, *paused)]
    await app.aclose()

    assert status == 0
    assert sorted(ran) == sorted(
        ["failed", *(f"{kind} {number}" for kind in ("rated", "placed", "ordered") for number in range(4))]
    )
    assert {each.state for each in left} <= {TaskState.SCHEDULED, TaskState.PENDING}


async def test_burst_mode_waits_for_running_tasks(app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds however often the worker checks."""
    release = asyncio.Event()
    looks = count_looks(monkeypatch)

    @app.task
    async def hold() -> str:
        await release.wait()
        return "ran"

    handle = await hold.adelay()
    worker = await start(burst=True)
    await until(lambda: worker.running_count == 1)
    seen = len(looks)
    await until(lambda: len(looks) >= seen + 20)
    assert worker.status == "active"
    release.set()

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert await asyncio.wait_for(start.ending(worker), PATIENCE_S) == 0


async def test_a_worker_and_its_thread_leave_nothing_behind(app: TaskQ, start: Runner) -> None:
    """After the end no threads and connections are left."""

    @app.task
    def plain() -> str:
        return "ran"

    before = set(threading.enumerate())
    worker = await start(concurrency=3)
    for _ in range(5):
        await (await plain.adelay()).aresult(PATIENCE_S)
    await start.stop(worker)

    await until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("taskq")])
