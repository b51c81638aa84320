"""Due tasks: never before their second, soon after it, many at once."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Ends, Runner, until


def redis_time(server: RedisServer) -> float:
    seconds, micros = server.client.time()
    return float(seconds) + float(micros) / 1e6


async def test_a_scheduled_task_never_starts_early(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """By Redis's clock, whether it was put off by a time or until a moment."""
    started: dict[str, float] = {}

    @app.task
    async def work(name: str) -> None:
        started[name] = redis_time(redis_server)

    await start(safety_net=600)
    due: dict[str, float] = {}
    for number, after in enumerate((0.05, 0.3, 0.9, 1.2)):
        due[f"after {number}"] = redis_time(redis_server) + after
        await work.using(run_after=after).adelay(f"after {number}")
        moment = datetime.now(UTC) + timedelta(seconds=after)
        due[f"at {number}"] = moment.timestamp()
        await work.using(run_after=moment).adelay(f"at {number}")
    await until(lambda: len(started) == len(due))

    assert {name: started[name] >= due[name] for name in due} == dict.fromkeys(due, True)


async def test_a_task_whose_time_is_past_starts_at_once(app: TaskQ, start: Runner) -> None:
    """Negative and past times mean now."""

    @app.task
    async def work() -> str:
        return "ran"

    await start(safety_net=600)

    assert await (await work.using(run_after=-5).adelay()).aresult(10) == "ran"
    assert await (await work.using(run_after=datetime(2001, 1, 1, tzinfo=UTC)).adelay()).aresult(10) == "ran"


async def test_retried_tasks_come_back(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Not before their delay is over."""
    runs: list[float] = []

    @app.task(retry_delay=0.4, max_retry=2)
    def work() -> str:
        runs.append(redis_time(redis_server))
        if len(runs) < 3:
            raise ValueError
        return "ran"

    await start(safety_net=600)

    assert await (await work.adelay()).aresult(15) == "ran"
    assert runs[1] - runs[0] >= 0.4
    assert runs[2] - runs[1] >= 0.4


async def test_a_thousand_due_at_once_all_run(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """In batches of a hundred, once each."""
    moment = datetime.fromtimestamp(int(time.time()) + 2, UTC)

    @app.task(retention=0)
    async def work(number: int) -> None: ...

    ends = Ends()
    await start(safety_net=600, concurrency=50, listener=ends)
    await app.async_client.enqueue_many(work.using(run_after=moment).s(number) for number in range(1000))
    assert redis_server.client.zcard(queue.scheduled) == 1000 or redis_time(redis_server) >= moment.timestamp()
    await until(lambda: len(ends.ends) == 1000)

    assert len({task_id for task_id, _ in ends.ends}) == 1000
    assert redis_server.client.zcard(queue.scheduled) == 0


async def test_ten_thousand_due_at_once_keep_no_other_queue_waiting(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """They are moved in bounded steps, and slots go to both queues in turn."""
    count = 10_000

    @app.task(retention=0)
    async def work(number: int) -> None: ...

    @app.task
    async def other() -> int:
        return len(ends.ends)

    ends = Ends()
    result = await app.async_client.enqueue_many(work.using(run_after=600).s(number) for number in range(count))
    server: Any = redis_server.client
    server.zadd(queue.scheduled, dict.fromkeys(result.ids, 1))
    await start(safety_net=600, concurrency=10, listener=ends, queues={"default": 1, "other": 1})
    seen = [await (await other.using(queue="other").adelay()).aresult(30) for _ in range(10)]
    await until(lambda: len(ends.ends) == count + 10, within=60)

    assert seen[-1] < count, "all of the other queue ran before the ten thousand had"
    assert len({task_id for task_id, _ in ends.ends}) == count + 10
    assert redis_server.client.zcard(queue.scheduled) == 0


async def test_a_thousand_that_fail_at_once_come_back_apart(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """By Asynq's own delay: over half a minute, so that what they asked too much of is not asked at once again."""
    count = 1000

    @app.task(retention=0)
    async def work(number: int) -> None:
        raise ConnectionError

    ends = Ends()
    await start(concurrency=50, listener=ends)
    await app.async_client.enqueue_many(work.s(number) for number in range(count))
    await until(lambda: redis_server.client.zcard(queue.retry) == count)
    per_second = Counter(int(score) for _, score in redis_server.client.zrange(queue.retry, 0, -1, withscores=True))

    assert max(per_second.values()) < count / 10
    assert len(per_second) >= 25


async def test_due_ids_without_a_task_are_dropped(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """They stop no other."""

    @app.task
    async def work() -> str:
        return "ran"

    redis_server.client.zadd(queue.scheduled, {f"ghost{number}": 1 for number in range(250)})
    handle = await work.using(run_after=0.1).adelay()
    await start(safety_net=600)

    assert await handle.aresult(10) == "ran"
    assert redis_server.client.zcard(queue.scheduled) == 0
    assert "had no task and were dropped" in caplog.text


async def test_another_worker_forwards_when_the_leader_is_gone(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """A leader that stops gives the lead up; one that dies loses it with its lease."""

    @app.task
    async def work() -> str:
        return "ran"

    first = await start(safety_net=600, leader_lease=0.3)
    await until(lambda: redis_server.client.keys("taskq:*lookout*"))
    await start(safety_net=600, leader_lease=0.3)
    await start.stop(first)

    assert await (await work.using(run_after=0.5).adelay()).aresult(10) == "ran"
