"""A waiting worker has asked already: a task comes with its token, and none is lost with a wait that ends otherwise."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core import TaskQ, current_task
from taskq_core.broker.pipelines import Pipeline
from taskq_core.broker.scripts import load
from taskq_core.broker.stream import ReplyStream
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker
from taskq_core.worker.leadership import SERVICE
from taskq_core.worker.subscriber import PrimaryFollower
from taskq_core.worker.waker import Waker
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, state_of, stored, until

PATIENT: dict[str, Any] = {"lease": 3600, "heartbeat": 1, "safety_net": 600}
"""Settings of workers whose waits end only when a token arrives."""


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay before the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


@pytest.fixture(autouse=True)
def limiter(redis_server: RedisServer, queue: QueueKeys) -> None:
    """Keep workers from waiting for limits, so that a worker waiting in Redis waits for a token."""
    redis_server.client.set(queue.leader("limiter"), "nobody")


@pytest.fixture
def unwatched(redis_server: RedisServer, queue: QueueKeys) -> None:
    """Disable the watcher: a check between a token and its task would add a second token, which wakes in vain."""
    redis_server.client.set(queue.leader(SERVICE), "nobody")


def waiting(server: RedisServer) -> list[dict[str, Any]]:
    """The connections that wait for a token."""
    return [each for each in server.client.client_list() if each["cmd"] == "blpop"]


async def waits(server: RedisServer, count: int = 1) -> None:
    await until(lambda: len(waiting(server)) == count)


async def has_asked(worker: Worker, server: RedisServer) -> None:
    """Wait until a worker waits with its slots kept for what it has asked for."""
    await until(lambda: worker._fetcher.ahead > 0)
    await until(lambda: waiting(server))


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_dequeue_whose_reply_is_lost_after_its_script_was_reloaded_is_repeated(
    app: TaskQ, start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    """Redis has no cached scripts. The dequeue is sent again with its source and runs. Then the connection breaks."""
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    @app.task
    async def work() -> str:
        return "ran"

    lost: list[str] = []
    send, dequeue = ReplyStream.exchange, load("dequeue").text.encode()

    async def lose(stream: ReplyStream, packed: bytes, *args: Any, **options: Any) -> list[Any]:
        replies = await send(stream, packed, *args, **options)
        if not lost and dequeue in packed:
            lost.append("dequeue")
            stream.abort()
            raise ConnectionError("no answer")
        return replies

    worker = await start(concurrency=2, **PATIENT)  # loads the scripts
    monkeypatch.setattr(ReplyStream, "exchange", lose)
    if is_busy:  # no dequeue waits for a token, so one of the fetcher's is lost
        await hold.adelay()
        await until(lambda: worker.running_count == 1)
        await until(lambda: worker._fetcher.is_idle)
    else:
        await has_asked(worker, redis_server)
    redis_server.client.script_flush()
    handle = await work.adelay()

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert lost
    release.set()


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("workers", [1, 4])
async def test_a_waiting_dequeue_returns_the_task_with_its_token(
    app: TaskQ, start: Runner, redis_server: RedisServer, exchanges: list[list[tuple[str, Any]]], workers: int
) -> None:
    """Redis is asked once for it, before it is there; of many workers that wait one is woken, and none in vain."""

    @app.task
    async def work() -> str:
        return "ran"

    started = [await start(**PATIENT) for _ in range(workers)]
    await waits(redis_server, workers)

    def have_all_asked() -> bool:  # with no other connection's request on its way
        return all(each._fetcher.ahead and each._fetcher.free == each.config.concurrency for each in started)

    await until(have_all_asked)
    exchanges.clear()
    for _ in range(10):
        assert await (await work.adelay()).aresult(PATIENCE_S) == "ran"
        await until(have_all_asked)

    asked = [each for each in exchanges if each[-1][0] == "dequeue"]
    assert [[name for name, _ in each] for each in asked] == [["wait_for_wake", "dequeue"]] * 10
    assert [len(each[1][1].tasks) for each in asked] == [1] * 10


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_many_tasks_at_once_do_not_exceed_the_slots(
    app: TaskQ, start: Runner, redis_server: RedisServer, concurrency: int
) -> None:
    release = asyncio.Event()
    running = most = 0

    @app.task(retention=0)
    async def hold() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    worker = await start(concurrency=concurrency, **PATIENT)
    await has_asked(worker, redis_server)
    await app.async_client.enqueue_many(hold.s() for _ in range(9))
    await until(lambda: worker.running_count == concurrency)
    assert not worker._fetcher.ahead
    release.set()
    await until(lambda: worker._fetcher.free == concurrency and not worker.running_count)

    assert most == concurrency


@pytest.mark.usefixtures("unwatched")
async def test_a_worker_with_a_blocked_loop_does_not_block_the_tasks_of_other_workers(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """While it runs tasks, the worker waits only for a token and sends no dequeue in advance."""
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    worker = await start(**PATIENT)
    await has_asked(worker, redis_server)
    await hold.adelay()
    await until(lambda: worker.running_count == 1)
    await waits(redis_server)

    assert (worker._fetcher.ahead, worker._fetcher.in_doubt_count) == (0, 0)
    release.set()
    await until(lambda: not worker.running_count)
    for _ in range(2):  # the first comes by the wait that is under way
        await hold.adelay()
    await has_asked(worker, redis_server)


async def test_a_full_worker_takes_no_tokens(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Another worker can then take the token."""
    release = asyncio.Event()

    @app.task
    async def hold() -> str:
        await release.wait()
        return "held"

    @app.task
    async def work() -> str:
        return "ran"

    first = await start(concurrency=1, **PATIENT)
    held = await hold.adelay()
    await until(lambda: first.running_count == 1)
    await waits(redis_server, 0)
    await start(concurrency=1, **PATIENT)
    await waits(redis_server)

    assert await (await work.adelay()).aresult(PATIENCE_S) == "ran"
    release.set()
    assert await held.aresult(PATIENCE_S) == "held"


async def test_a_worker_with_more_queues_than_slots_runs_tasks_of_each_queue(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """A queue without a dequeue in advance is queried when its token arrives."""

    @app.task
    async def work() -> str:
        return "ran"

    names = [f"q{number}" for number in range(6)]
    worker = await start(queues=dict.fromkeys(names, 1), concurrency=2, **PATIENT)
    for name in names:
        await has_asked(worker, redis_server)
        assert worker._fetcher.in_doubt_count <= 2
        assert await (await work.using(queue=name).adelay()).aresult(PATIENCE_S) == "ran"


async def test_a_stop_ends_the_wait_for_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Later tasks stay pending with their token."""
    worker = await start(**PATIENT)
    await has_asked(worker, redis_server)

    assert await start.stop(worker) == 0

    handle = await app.remote("work").adelay()
    assert not waiting(redis_server)
    assert state_of(redis_server, queue, handle.id) == "pending"
    assert redis_server.client.llen(queue.wake) == 1
    assert not redis_server.client.exists(queue.active, queue.lease)


async def test_a_stopping_worker_returns_a_task_that_arrives_late(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    """Before the worker ends, the task returns to the head of its queue without using an attempt."""
    far = TaskQ(relay.url)
    runs: list[int] = []

    @far.task(name="work")
    async def work() -> None:
        runs.append(1)

    worker = await start(app=far, **PATIENT)
    await has_asked(worker, redis_server)
    relay.hold("replies")
    handle = await app.remote("work").adelay()
    await until(lambda: state_of(redis_server, queue, handle.id) == "active")
    worker.stop()
    await until(lambda: not worker._fetcher.is_fetching)
    relay.forward()
    assert await start.ending(worker) == 0
    await far.aclose()

    assert state_of(redis_server, queue, handle.id) == "pending"
    assert stored(redis_server, queue, handle.id).retried == 0
    assert redis_server.client.llen(queue.wake) == 1
    assert not redis_server.client.exists(queue.active, queue.lease)
    assert runs == []


async def test_a_worker_stops_although_it_cannot_cancel_its_dequeue(
    start: Runner, redis_server: RedisServer, relay: Relay
) -> None:
    far = TaskQ(relay.url)
    worker = await start(app=far, **{**PATIENT, "shutdown_grace": 600})
    await has_asked(worker, redis_server)
    relay.refuse()

    assert await start.stop(worker) == 0
    await far.aclose()


async def test_a_task_in_a_lost_reply_runs_once(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    """The worker calls its request off, learns what that had handed out, and gives it back."""
    far = TaskQ(relay.url, defaults={"retention": 600})
    attempts: list[int] = []

    @far.task(name="work")
    async def work() -> str:
        attempts.append(current_task().retried)
        return "ran"

    relay.drop_reply_to(b"-ahead")
    await start(app=far, **PATIENT)
    await until(lambda: relay.intercepted)
    await waits(redis_server)
    handle = await app.remote("work", retention=600).adelay()
    await until(lambda: state_of(redis_server, queue, handle.id) == "completed")
    await far.aclose()

    assert attempts == [0]
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


async def test_a_killed_connection_loses_no_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The test kills the connection many times while tasks arrive."""
    runs: Counter[int] = Counter()

    @app.task(name="work", retention=0)
    async def work(number: int) -> None:
        runs[number] += 1

    worker = await start(**PATIENT)
    for number in range(20):
        for each in waiting(redis_server):
            redis_server.client.client_kill_filter(_id=each["id"])
        await work.adelay(number)
    await until(lambda: len(runs) == 20)
    await until(lambda: not worker.running_count)

    assert set(runs.values()) == {1}
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


async def test_a_wait_ends_when_its_server_is_no_longer_the_primary(
    app: TaskQ, start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the old server would hand out tasks that the new primary hands out too."""
    worker = await start(**PATIENT)
    await has_asked(worker, redis_server)
    before = {each["id"] for each in waiting(redis_server)}

    async def another() -> float:
        worker._context.runner.endpoint.takeovers += 1
        return 1.0

    monkeypatch.setattr(worker._context.runner, "follow_primary", another)
    await PrimaryFollower(worker._context, worker._call_off).work()

    await until(lambda: waiting(redis_server) and not before & {each["id"] for each in waiting(redis_server)})


@pytest.mark.parametrize("is_capped", [False, True])
async def test_no_dequeue_is_sent_in_advance_in_burst_mode_or_under_a_limit(
    redis_server: RedisServer, start: Runner, is_capped: bool
) -> None:
    """In burst mode the worker could not notice its end. Under a limit the end of a task admits the next one."""
    limits: dict[str, Any] = {"default": {"WORKER_CONCURRENCY": 1}} if is_capped else {}
    app = TaskQ(redis_server.url, limits=limits, enqueue_timeout=60)
    ran: list[int] = []

    @app.task(name="work", retention=0)
    async def work(number: int) -> None:
        ran.append(number)

    await app.async_client.enqueue_many(work.s(number) for number in range(5))
    worker = await start(app=app, burst=not is_capped, **PATIENT)
    await until(lambda: len(ran) == 5)
    if is_capped:
        await waits(redis_server)
        assert not worker._fetcher.ahead
    else:
        assert await start.ending(worker) == 0
    await app.aclose()


async def test_a_worker_that_cannot_wait_for_tokens_polls(
    app: TaskQ, start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example is a password change, after which only older connections work."""

    @app.task
    async def work() -> str:
        return "ran"

    connect = Pipeline._connect

    async def refuse(self: Pipeline, timeout_s: float) -> None:
        if self in [waker._pipeline for waker in worker._services.of(Waker)]:
            raise BrokerAuthenticationError("refused the user or password")
        await connect(self, timeout_s)

    worker = await start(**PATIENT)
    await has_asked(worker, redis_server)
    monkeypatch.setattr(Pipeline, "_connect", refuse)
    for each in waiting(redis_server):
        redis_server.client.client_kill_filter(_id=each["id"])
    await waits(redis_server, 0)

    for _ in range(3):
        assert await (await work.adelay()).aresult(30) == "ran"


async def test_a_refused_wait_is_logged_and_releases_its_slots(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """An example is a key of another type. After its repair the worker continues."""

    @app.task
    async def work() -> str:
        return "ran"

    redis_server.client.set(queue.wake, "no list")
    worker = await start(**PATIENT)
    await until(lambda: "waker: " in caplog.text)
    assert (worker._fetcher.ahead, worker._fetcher.in_doubt_count) == (0, 0)
    redis_server.client.delete(queue.wake)

    assert await (await work.adelay()).aresult(PATIENCE_S) == "ran"
