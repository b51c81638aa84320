"""Test that a message over the limit, which another program has enqueued, never reaches a worker."""

import logging
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.repair import for_a_person
from taskq_core.doctor.rules import diagnose
from taskq_core.wire import QueueKeys, build_message, encode_message
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis

LIMIT = 17 << 20
SIZE = LIMIT + 1


@pytest.fixture
async def app(redis_server: RedisServer) -> Any:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30, max_message_size=LIMIT)
    yield app
    await app.aclose()


def store(server: RedisServer, queue: QueueKeys, task_id: str, **fields: Any) -> None:
    """Store a task as another program does, with a message of `SIZE` bytes."""
    message = encode_message(build_message(type="work", id=task_id, queue=queue.name, payload=b"{}"))
    padding = b"\x12" + bytes([(SIZE & 127) | 128, (SIZE >> 7 & 127) | 128, (SIZE >> 14 & 127) | 128, SIZE >> 21])
    large = message + padding + bytes(SIZE)
    server.client.hset(queue.task(task_id), mapping={"msg": large, **fields})


async def test_a_worker_sets_a_large_message_aside_and_runs_the_others(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    @app.task(name="work")
    async def work() -> None:
        ran.append("small")

    await work.adelay()
    store(redis_server, queue, "large", state="pending", pending_since="1")
    redis_server.client.rpush(queue.pending, "large")

    with caplog.at_level(logging.ERROR):
        await start()
        await until(lambda: ran and redis_server.client.zcard(queue.quarantine))

    assert ran == ["small"]
    assert "moved 1 tasks of queue default to quarantine unread" in caplog.text
    facts = read_facts(app)
    size = redis_server.client.hstrlen(queue.quarantined("large"), "msg")
    (finding,) = [each for each in diagnose(facts) if each.check == "quarantine"]
    assert f"the largest message has {size:,} bytes" in finding.message
    (problem,) = for_a_person(facts)
    assert (problem.subject, f"{size:,} bytes" in problem.detail) == ("large", True)


async def test_a_large_message_of_a_dead_go_worker_is_set_aside(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    store(redis_server, queue, "large", state="active")
    redis_server.client.lpush(queue.active, "large")
    redis_server.client.zadd(queue.lease, {"large": 1_000_000_000})

    await start()
    await until(lambda: redis_server.client.zcard(queue.quarantine))

    assert not redis_server.client.exists(queue.active, queue.lease, queue.task("large"))


async def test_a_large_member_of_a_group_is_set_aside_and_the_others_are_combined(
    clock: Clock, app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    sizes: list[int] = []

    @app.task(name="work", aggregate="g")
    async def work() -> None: ...

    @app.task(name="many")
    async def many(count: int) -> None:
        sizes.append(count)

    @app.aggregator("g", grace=1)
    def combine(group: str, tasks: Any) -> Any:
        return many.s(len(tasks))

    await work.adelay()
    store(redis_server, queue, "large", state="aggregating", group="g")
    redis_server.client.zadd(queue.group("g"), {"large": 1})

    await start()
    await clock.advance(120)

    assert sizes == [1]
    assert redis_server.client.zrange(queue.quarantine, 0, -1) == [b"large"]
