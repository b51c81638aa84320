"""Test which tasks a worker fetches and how many: weights, strict order, free slots, paused queues."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Dequeued
from taskq_core.broker.pipelines import Pipeline
from taskq_core.errors import BrokerUnavailableError
from taskq_core.wire import QueueKeys, build_message
from taskq_core.worker import Worker, WorkerConfig, fetcher
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.leadership import SERVICE
from taskq_core.worker.settler import SettleBatch
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, STEADY, Ends, Runner, push_raw, state_of, until


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay before the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


async def fill(app: TaskQ, sizes: dict[str, int]) -> list[str]:
    """Enqueue tasks that append their queue to a list when they run, and return that list."""
    order: list[str] = []

    @app.task(name="note", retention=0)
    async def note(queue: str) -> None:
        order.append(queue)

    for queue, size in sizes.items():
        await app.async_client.enqueue_many(note.using(queue=queue).s(queue) for _ in range(size))
    return order


async def test_strict_order_empties_the_first_queue_first(app: TaskQ, start: Runner) -> None:
    """A queue is served only while those of larger weight are empty."""
    order = await fill(app, {"low": 20, "high": 20, "middle": 20})
    await start(queues={"low": 1, "middle": 2, "high": 3}, strict_priority=True, concurrency=1)
    await until(lambda: len(order) == 60)

    assert order == ["high"] * 20 + ["middle"] * 20 + ["low"] * 20


async def test_weighted_queues_share_the_slots(app: TaskQ, start: Runner) -> None:
    """While all queues are full, each is tried first in proportion to its weight."""
    order = await fill(app, {"low": 400, "high": 400})
    await start(queues={"low": 1, "high": 3}, concurrency=1)
    await until(lambda: len(order) == 800)

    # Of the first 200 three quarters are expected from high, with a standard deviation of 6.1; 8 of those are allowed.
    assert 101 <= Counter(order[:200])["high"] <= 199
    assert Counter(order) == {"low": 400, "high": 400}


async def test_a_queue_with_a_small_weight_is_not_starved(app: TaskQ, start: Runner) -> None:
    """Its tasks run before a queue of large weight is empty."""
    order = await fill(app, {"low": 5, "high": 600})
    await start(queues={"low": 1, "high": 9}, concurrency=1)
    await until(lambda: len(order) == 605)

    assert order[-1] == "high"


@pytest.mark.parametrize(("kind", "concurrency"), [("coroutine", 1), ("coroutine", 25), ("plain", 3)])
async def test_concurrency_is_never_exceeded(
    app: TaskQ, start: Runner, redis_server: RedisServer, concurrency: int, kind: str
) -> None:
    """Neither running functions nor active tasks in Redis exceed the concurrency, and all slots are used."""
    lock = threading.Lock()
    running = most = ended = 0
    active: list[int] = []
    keys = app.runtime.keys

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # Count the tasks of both queues that are fetched and not settled, in one transaction.
        with redis_server.client.pipeline(transaction=True) as at_once:
            for name in ("one", "two"):
                at_once.llen(keys.queue(name).active)
            active.append(sum(at_once.execute()))

    def leave() -> None:
        nonlocal running, ended
        with lock:
            running -= 1
            ended += 1

    full = threading.Event()

    @app.task(name="coroutine", retention=0)
    async def coroutine(number: int) -> None:
        enter()
        while number < concurrency and running < concurrency and not full.is_set():  # noqa: ASYNC110 - takes turns
            await asyncio.sleep(0)
        full.set()
        leave()

    @app.task(name="plain", retention=0)
    def plain(number: int) -> None:
        enter()
        if number < concurrency:
            if running >= concurrency:
                full.set()
            full.wait(PATIENCE_S)
        leave()

    task: Any = coroutine if kind == "coroutine" else plain
    count = 40 * concurrency
    # The first fill all slots before any of them ends.
    await app.async_client.enqueue_many(task.using(queue="one").s(number) for number in range(concurrency))
    await app.async_client.enqueue_many(
        task.using(queue=("one", "two")[number % 2]).s(number) for number in range(concurrency, count)
    )
    worker = await start(queues={"one": 2, "two": 1}, strict_priority=True, concurrency=concurrency)
    await until(lambda: ended == count)

    assert most == concurrency
    assert max(active) <= concurrency
    await until(lambda: worker._fetcher.free == concurrency)


async def test_a_worker_fetches_tasks_only_for_free_slots(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """When all slots are taken, the other tasks stay pending for other workers."""
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    worker = await start(concurrency=2)
    await app.async_client.enqueue_many(hold.s() for _ in range(10))
    await until(lambda: worker.running_count == 2)

    assert redis_server.client.llen(queue.active) == 2
    assert redis_server.client.llen(queue.pending) == 8
    other = await start(concurrency=5)
    await until(lambda: other.running_count == 5)
    assert redis_server.client.llen(queue.pending) == 3
    release.set()
    await until(lambda: not redis_server.client.exists(queue.pending, queue.active, queue.lease))


async def test_the_end_of_a_run_wakes_one_of_several_connections(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 slots have three connections. One ended run wakes one of them, and a backlog is shared by all."""
    looks: Counter[str] = Counter()
    serve_once, take_turn = Fetcher._serve_once, Fetcher._take_turn

    async def noted_look(self: Fetcher, turn: fetcher.Turn) -> bool:
        looks["all"] += 1
        return await serve_once(self, turn)

    async def noted_turn(self: Fetcher, turn: fetcher.Turn) -> None:
        looks[turn.name] += 1
        await take_turn(self, turn)

    monkeypatch.setattr(Fetcher, "_serve_once", noted_look)
    monkeypatch.setattr(Fetcher, "_take_turn", noted_turn)
    release = asyncio.Event()

    @app.task(name="hold")
    async def hold(wait: bool) -> None:
        if wait:
            await release.wait()

    worker = await start(concurrency=50)
    await until(lambda: worker._fetcher.is_idle)
    looks.clear()
    for _ in range(20):
        await hold.adelay(False)
        await until(lambda: worker._fetcher.is_idle and not worker.running_count)
    few = looks.copy()
    looks.clear()
    await app.async_client.enqueue_many(hold.s(True) for _ in range(50))
    await until(lambda: worker.running_count == 50)
    release.set()
    await until(lambda: worker.ended_count == 70)

    assert few["all"] <= 20 * 4
    assert sum(name != "all" for name in looks) == 3


async def test_a_token_wakes_one_connection_and_a_backlog_wakes_the_others(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy worker sends no dequeue in advance. One task should not make all three connections send a request."""
    asking: Counter[str] = Counter()
    exchange = Fetcher._exchange

    async def noted(self: Fetcher, turn: fetcher.Turn, batches: list[SettleBatch], carried: int) -> bool:
        asking[turn.name] += turn.in_doubt is not None
        return await exchange(self, turn, batches, carried)

    monkeypatch.setattr(Fetcher, "_exchange", noted)
    redis_server.client.set(queue.leader(SERVICE), "nobody")  # no watcher, which might put an additional token
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    @app.task
    async def quick() -> None: ...

    await hold.adelay()
    worker = await start(concurrency=10, safety_net=600, lease=3600, heartbeat=1)
    await until(lambda: worker.running_count == 1 and worker._fetcher.is_idle)
    for number in range(11):
        before = worker.ended_count
        await quick.adelay()
        await until(lambda: worker.ended_count > before and worker._fetcher.is_idle)  # noqa: B023 - awaited in the loop
        if number == 0:  # one connection may have found nothing, and that was asked ahead, before another had the first
            asking.clear()
    assert asking.total() == 10

    asking.clear()
    await app.async_client.enqueue_many(hold.s() for _ in range(9))
    await until(lambda: worker.running_count == 10)
    release.set()
    assert len(asking) > 1


async def test_runs_that_end_together_are_settled_by_all_connections(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection settles its part and fetches as many tasks in the same request."""
    exchanges: list[tuple[int, int]] = []
    exchange = Fetcher._exchange

    async def noted(self: Fetcher, turn: fetcher.Turn, batches: list[SettleBatch], carried: int) -> bool:
        exchanges.append((carried, 0 if turn.in_doubt is None else turn.asked))
        return await exchange(self, turn, batches, carried)

    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    await app.async_client.enqueue_many(hold.s() for _ in range(12))
    worker = await start(concurrency=6)
    await until(lambda: worker.running_count == 6 and len(worker._fetcher._asleep) == 3)  # all connections wait
    monkeypatch.setattr(Fetcher, "_exchange", noted)
    release.set()
    await until(lambda: worker.ended_count == 12)

    assert exchanges[:3] == [(2, 2)] * 3


async def test_one_request_fills_all_free_slots_while_the_other_connections_wait_for_replies(
    start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    """Slots beyond the connection's share would otherwise wait for the next reply, a whole round trip."""
    far = TaskQ(relay.url)
    may_end = [asyncio.Event() for _ in range(24)]

    @far.task(name="hold")
    async def hold(number: int) -> None:
        await may_end[number].wait()

    await far.async_client.enqueue_many(hold.s(number) for number in range(24))
    worker = await start(app=far, concurrency=6, lease=3600)
    await until(lambda: worker.running_count == 6 and len(worker._fetcher._asleep) == 3)  # all connections wait
    for event in may_end[:6]:
        event.set()  # all connections are open afterwards
    await until(lambda: worker.ended_count == 6 and worker.running_count == 6 and len(worker._fetcher._asleep) == 3)
    relay.hold("replies")
    for ended, pending in ((7, 11), (8, 10), (12, 6)):
        for event in may_end[:ended]:
            event.set()
        await until(lambda: redis_server.client.llen(queue.pending) == pending)  # noqa: B023 - awaited here
        assert redis_server.client.llen(queue.active) == 6
    relay.forward()
    for event in may_end:
        event.set()
    await until(lambda: worker.ended_count == 24)


async def test_a_paused_queue_hands_out_no_tasks(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Tasks of other queues run. After the pause its own tasks run too."""
    keys = app.runtime.keys

    @app.task
    async def work() -> str:
        return "ran"

    redis_server.client.set(keys.queue("one").paused, "1")
    await start(queues={"one": 1, "two": 1}, safety_net=0.2)
    waiting = await work.using(queue="one").adelay()
    for _ in range(5):
        assert await (await work.using(queue="two").adelay()).aresult(PATIENCE_S) == "ran"

    assert state_of(redis_server, keys.queue("one"), waiting.id) == "pending"
    redis_server.client.delete(keys.queue("one").paused)
    assert await waiting.aresult(PATIENCE_S) == "ran"


async def test_a_damaged_queue_does_not_stop_the_other_queues(
    app: TaskQ, start: Runner, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A key of a wrong type is an error of its queue alone, also where that queue goes first."""
    keys = app.runtime.keys

    @app.task
    async def work() -> str:
        return "ran"

    redis_server.client.set(keys.queue("bad").pending, "no list")
    await start(queues={"bad": 9, "good": 1}, strict_priority=True)
    for _ in range(20):
        assert await (await work.using(queue="good").adelay()).aresult(PATIENCE_S) == "ran"

    assert "tasks cannot be fetched from queue bad" in caplog.text


async def test_a_queue_is_queried_again_after_a_refused_request(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes a queue that seemed empty and is only checked: no other worker fetches tasks without a token."""
    exchange = Pipeline.exchange

    async def refuses(lane: Pipeline, operations: Sequence[Operation[Any]], **options: Any) -> list[Any]:
        if [operation.name for operation in operations] != ["dequeue"]:
            return await exchange(lane, operations, **options)
        monkeypatch.setattr(Pipeline, "exchange", exchange)
        return [BrokerUnavailableError.unchanged("LOADING")]

    redis_server.client.set(queue.leader(SERVICE), "nobody")  # no watcher, which would put a token
    order = await fill(app, {})
    worker = await start(safety_net=600, lease=3600, heartbeat=1)  # keeps the request sent ahead waiting
    await until(lambda: worker._fetcher.ahead)
    monkeypatch.setattr(Pipeline, "exchange", refuses)
    message = build_message(type="note", payload=b'{"queue": "default"}', id="quiet", queue="default")
    push_raw(redis_server, queue, "quiet", message.SerializeToString())
    worker._fetcher.probe()

    await until(lambda: order == ["default"])


async def test_large_messages_are_fetched_in_several_batches(app: TaskQ, start: Runner) -> None:
    """A batch is bounded by bytes; what does not fit comes with the next."""
    ended: list[int] = []

    @app.task(retention=0)
    async def work(number: int, text: str) -> None:
        ended.append(number)

    await app.async_client.enqueue_many(work.s(number, "x" * 300_000) for number in range(40))
    await start(concurrency=50, safety_net=600)
    await until(lambda: len(ended) == 40)

    assert sorted(ended) == list(range(40))


@pytest.mark.slow
async def test_two_workers_run_each_task_once(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """With thousands of tasks, two workers and three queues, no task is lost, duplicated or left in Redis."""
    runs: Counter[int] = Counter()

    @app.task(name="plain", retention=0)
    def plain(number: int) -> None:
        runs[number] += 1

    @app.task(name="coroutine", retention=0)
    async def coroutine(number: int) -> None:
        runs[number] += 1

    queues = {"a": 3, "b": 2, "c": 1}
    ends = Ends()
    await start(queues=queues, concurrency=30, listener=ends)
    await start(queues=queues, concurrency=7, listener=ends)
    count = 1200
    await app.async_client.enqueue_many(
        (plain, coroutine)[number % 2].using(queue="abc"[number % 3]).s(number) for number in range(count)
    )
    await until(lambda: len(ends.ends) == count)

    assert set(runs.values()) == {1}
    assert len(runs) == count
    client: Any = redis_server.client
    keys = [app.runtime.keys.queue(name) for name in queues]
    await until(lambda: not client.exists(*[each.active for each in keys], *[each.lease for each in keys]))
    assert sum(int(client.get(each.processed)) for each in keys) == count


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_task_received_after_the_end_of_its_lease_does_not_run(
    app: TaskQ,
    queue: QueueKeys,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    taken_over: bool,
) -> None:
    """The worker was suspended before it read the reply, so another worker may have the task."""
    attempts: list[int] = []
    reported: list[BaseException] = []
    app.on_error(lambda error, context: reported.append(error))

    @app.task
    async def work(context: TaskContext) -> None:
        attempts.append(context.retried)

    class Sleeper:
        slept_s = 0.0
        time = staticmethod(time.time)
        wait = staticmethod(threading.Event.wait)

        def monotonic(self) -> float:
            return time.monotonic() + self.slept_s

    clock = Sleeper()
    accept = Fetcher._accept

    def accept_late(self: Fetcher, turn: Any, answer: Dequeued, sent_at: float) -> bool:
        if answer.tasks and not clock.slept_s:
            clock.slept_s = 31  # longer than the lease
            if taken_over:
                redis_server.client.hset(queue.task(handle.id), "taskq_owner", "another:1")
        return accept(self, turn, answer, sent_at)

    monkeypatch.setattr(Fetcher, "_accept", accept_late)
    handle = await work.adelay()
    worker = Worker(app, WorkerConfig(**{**STEADY, "recover_every": 600, "reconcile_every": 600}), clock=clock)
    running = asyncio.create_task(worker.arun())

    if taken_over:
        await until(lambda: "was refused: another worker has the task" in caplog.text)
    else:
        await until(lambda: attempts)
    worker.stop()
    await running

    assert attempts == ([] if taken_over else [0]), "given back, without using an attempt"
    assert reported == []
    assert "arrived after its lease had ended; it returns to its queue" in caplog.text


async def test_a_connection_keeps_fetching_after_a_failure_that_cannot_be_logged(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await fill(app, {"default": 5})
    take_turn = Fetcher._take_turn
    turns = 0

    async def fails_first(self: Fetcher, turn: Any) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise ValueError
        await take_turn(self, turn)

    def no_memory(*words: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Fetcher, "_take_turn", fails_first)
    monkeypatch.setattr(fetcher.logger, "exception", no_memory)
    await start(concurrency=1)

    await until(lambda: len(order) == 5)
