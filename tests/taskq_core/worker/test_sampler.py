"""Test how a running worker records samples of its queues over time."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import samples as sample_ops
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import Keys, QueueKeys, ServerInfo
from taskq_core.wire.samples import LEVELS, SAMPLE_S, QueueSample
from taskq_core.worker.sampler import Sampler
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, context_of, unled, until

BEGUN_S = 1_999_998_005
"""When `Hurried` begins: five seconds after a full hour."""


class Hurried:
    """Send operations, but report a time other than Redis's, which advances only through `ahead_s`."""

    def __init__(self, runner: AsyncRunner) -> None:
        self.runner = runner
        self.ahead_s = 0
        self.asked: list[str] = []

    async def run(self, operation: Any, **more: Any) -> Any:
        self.asked.append(operation.name)
        answer = await self.runner.run(operation, **more)
        if operation.name == "count_tasks":
            answer.now_ns = (BEGUN_S + self.ahead_s) * 1_000_000_000
        return answer


@pytest.fixture
async def hurried(app: TaskQ) -> AsyncIterator[Hurried]:
    runner = AsyncRunner(app.runtime.endpoint)
    yield Hurried(runner)
    await runner.aclose()


def sampler_of(app: TaskQ, hurried: Hurried, queue: QueueKeys) -> Sampler:
    context = context_of(app, hurried)
    return Sampler(context, queue, unled())


def samples(server: RedisServer, queue: QueueKeys, number: int = 0) -> list[QueueSample]:
    """Samples of a resolution, the oldest first."""
    stored: Any = server.client.lrange(queue.samples(LEVELS[number].step_s), 0, -1)
    found = [QueueSample.decode(each) for each in reversed(stored)]
    assert None not in found
    return [each for each in found if each is not None]


async def test_a_worker_samples_the_counts_of_its_queue(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    for _ in range(3):
        await app.remote("work", run_after=600).adelay()
    redis_server.client.set(queue.paused, 1)
    await app.remote("work").adelay()
    redis_server.client.set(queue.processed, 70)
    redis_server.client.set(queue.failed, 7)

    await start(clean_every=0.05, concurrency=4)
    await until(lambda: samples(redis_server, queue))

    noted = samples(redis_server, queue)[0]
    assert (noted.scheduled, noted.pending, noted.active) == (3, 1, 0)
    assert (noted.processed, noted.failed, noted.is_paused) == (70, 7, 1)
    assert noted.latency_ms is not None
    assert noted.memory_kib is not None
    now: Any = redis_server.client.time()
    assert 0 <= now[0] - noted.at_s <= SAMPLE_S
    for number in range(len(LEVELS)):
        assert samples(redis_server, queue, number)[0] == noted


async def test_samples_contain_the_load_of_the_workers_of_the_queue(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    keys = app.runtime.keys
    expiry_s = int(time.time()) + 60
    for pid, names, active in ((1, {"default": 1, "low": 2}, 3), (2, {"default": 1}, 10), (3, {"other": 1}, 5)):
        info = ServerInfo(
            host="h", pid=pid, server_id=str(pid), concurrency=10, queues=names, active_worker_count=active
        )
        server = keys.server("h", pid, str(pid))
        redis_server.client.set(server, info.encode())
        redis_server.client.zadd(keys.servers, {server: expiry_s})
    redis_server.client.set(keys.server("h", 4, "4"), b"\xff\xff")
    redis_server.client.zadd(keys.servers, {keys.server("h", 4, "4"): expiry_s})
    redis_server.client.sadd(keys.queues, "default")

    await sampler_of(app, hurried, queue).sample()

    (noted,) = samples(redis_server, queue)
    assert (noted.busy, noted.slots) == (13, 20)


async def test_presence_is_read_once_for_all_queues_of_a_worker(
    app: TaskQ, redis_server: RedisServer, hurried: Hurried
) -> None:
    keys = app.runtime.keys
    redis_server.client.sadd(keys.queues, "a", "b", "c")
    context = context_of(app, hurried)

    for name in ("a", "b", "c"):
        await Sampler(context, keys.queue(name), unled()).sample()

    assert hurried.asked.count("list_alive") == 1
    assert hurried.asked.count("sample") == 3


async def test_a_sample_is_stored_every_ten_seconds(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    """In between, two reads are sent and nothing is written."""
    redis_server.client.sadd("asynq:queues", "default")
    sampler = sampler_of(app, hurried, queue)

    await sampler.sample()
    first = samples(redis_server, queue)
    hurried.asked.clear()
    hurried.ahead_s = 4
    await sampler.sample()
    assert "sample" not in hurried.asked
    for ahead_s in (20, 40, 3600):
        hurried.ahead_s = ahead_s
        await sampler.sample()

    assert [each.at_s for each in first] == [BEGUN_S]
    assert [each.at_s - BEGUN_S for each in samples(redis_server, queue)] == [0, 20, 40, 3600]
    assert len(samples(redis_server, queue, 3)) == 2, "an hour has begun"


async def test_the_longest_wait_is_stored_at_every_resolution(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    """A task that waited long, between two samples of a coarse resolution, is seen there."""
    sampler = sampler_of(app, hurried, queue)
    handle = await app.remote("work").adelay()
    await sampler.sample()
    redis_server.client.hset(queue.task(handle.id), "pending_since", int((time.time() - 500) * 1e9))
    hurried.ahead_s = 20
    await sampler.sample()
    redis_server.client.delete(queue.pending, queue.task(handle.id))
    hurried.ahead_s = 3620
    await sampler.sample()
    hurried.ahead_s = 7240
    await sampler.sample()

    fine, coarse = samples(redis_server, queue), samples(redis_server, queue, 3)
    assert [each.latency_ms is not None and each.latency_ms > 400_000 for each in fine] == [False, True, False, False]
    assert [each.latency_ms is not None and each.latency_ms > 400_000 for each in coarse] == [False, True, False]


async def test_a_removed_queue_is_not_sampled(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    """Its samples are deleted, and a worker that still serves it stores no new ones."""
    await app.remote("work").adelay()
    sampler = sampler_of(app, hurried, queue)
    await sampler.sample()
    assert redis_server.client.keys("taskq:{default}:samples:*")

    await AsyncInspector(app).remove_queue("default", force=True)
    assert not redis_server.client.keys("*{default}*")
    hurried.ahead_s = 60
    await sampler.sample()
    assert not redis_server.client.keys("*{default}*")

    redis_server.client.sadd("asynq:queues", "default")
    hurried.ahead_s = 80
    await sampler.sample()
    assert len(samples(redis_server, queue)) == 1


async def test_sampling_continues_after_redis_lost_its_data(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    redis_server.client.set(queue.processed, 70)
    sampler = sampler_of(app, hurried, queue)
    await sampler.sample()
    redis_server.client.flushall()
    redis_server.client.sadd("asynq:queues", "default")
    hurried.ahead_s = 20

    await sampler.sample()

    assert [each.processed for each in samples(redis_server, queue)] == [0]


async def test_a_sample_without_permission_for_memory_has_the_other_values(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    await app.remote("work").adelay()
    redis_server.client.execute_command("ACL", "SETUSER", "default", "-memory")
    try:
        await sampler_of(app, hurried, queue).sample()
    finally:
        redis_server.client.execute_command("ACL", "SETUSER", "default", "+@all")

    (noted,) = samples(redis_server, queue)
    assert (noted.pending, noted.memory_kib) == (1, None)


async def test_memory_is_estimated_once_a_minute(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    sampler = sampler_of(app, hurried, queue)

    for ahead_s in range(0, 130, 10):
        hurried.ahead_s = ahead_s
        await sampler.sample()

    assert hurried.asked.count("estimate_memory") == 3
    assert hurried.asked.count("sample") == 13


async def test_samples_in_a_key_of_another_type_are_logged(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, hurried: Hurried, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    redis_server.client.set(queue.samples(10), "x")

    await sampler_of(app, hurried, queue).sample()

    assert "the key taskq:{default}:samples:10 has a wrong type" in caplog.text
    assert len(samples(redis_server, queue, 1)) == 1


async def test_two_prefixes_on_one_redis_are_sampled_separately(redis_server: RedisServer, hurried: Hurried) -> None:
    for prefix in ("asynq", "shop"):
        keys = Keys(prefix)
        redis_server.client.sadd(keys.queues, "default")
        redis_server.client.set(keys.queue("default").processed, len(prefix))
        await sampler_of(TaskQ(redis_server.url, prefix=prefix), hurried, keys.queue("default")).sample()

    assert [samples(redis_server, Keys(prefix).queue("default"))[0].processed for prefix in ("asynq", "shop")] == [5, 4]


async def test_a_full_ring_of_samples_takes_the_documented_memory(
    redis_server: RedisServer, queue: QueueKeys, hurried: Hurried
) -> None:
    """The samples are of a busy queue, where every number is large."""
    busy = dict.fromkeys(("active", "pending", "retry", "archived", "completed", "latency_ms"), 5000000)
    for level in LEVELS:
        pipeline = redis_server.client.pipeline(transaction=False)
        for number in range(level.most):
            sample = QueueSample(
                at_s=2_000_000_000 + number * level.step_s,
                processed=10**10 + number,
                failed=10**7,
                memory_kib=10**7,
                busy=800,
                slots=1000,
                **busy,
            )
            pipeline.lpush(queue.samples(level.step_s), sample.encode())
        pipeline.execute()

    used = sum(int(redis_server.client.memory_usage(queue.samples(level.step_s)) or 0) for level in LEVELS)

    assert used < 200 * 1024
    before: Any = redis_server.client.llen(queue.samples(10))
    await hurried.run(sample_ops.sample(queue, {LEVELS[0]: QueueSample(at_s=2_100_000_000)}))
    assert redis_server.client.llen(queue.samples(10)) == before == LEVELS[0].most
