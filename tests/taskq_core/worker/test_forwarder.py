"""Due tasks: never before their second, soon after it, many at once."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, until


async def test_a_scheduled_task_never_starts_early(app: TaskQ, start: Runner, clock: Clock) -> None:
    """This holds for a delay and for a start time."""
    started: dict[str, float] = {}

    @app.task
    async def work(name: str) -> None:
        started[name] = clock.time()

    await start(safety_net=600)
    due: dict[str, float] = {}
    for number, after in enumerate((0.05, 7.3, 20.9, 21.2)):
        due[f"after {number}"] = clock.time() + after
        await work.using(run_after=after).adelay(f"after {number}")
        moment = datetime.now(UTC) + timedelta(seconds=after)
        due[f"at {number}"] = moment.timestamp()
        await work.using(run_after=moment).adelay(f"at {number}")
    await clock.advance(24)
    await until(lambda: len(started) == len(due))

    assert {name: started[name] >= due[name] for name in due} == dict.fromkeys(due, True)


async def test_a_task_whose_time_is_past_starts_at_once(app: TaskQ, start: Runner) -> None:
    """Negative and past times mean now."""

    @app.task
    async def work() -> str:
        return "ran"

    await start(safety_net=600)

    assert await (await work.using(run_after=-5).adelay()).aresult(PATIENCE_S) == "ran"
    assert await (await work.using(run_after=datetime(2001, 1, 1, tzinfo=UTC)).adelay()).aresult(PATIENCE_S) == "ran"


async def test_a_retried_task_runs_after_its_delay(app: TaskQ, start: Runner, clock: Clock) -> None:
    """The task does not run before its delay is over."""
    runs: list[float] = []

    @app.task(retry_delay=20, max_retry=2)
    def work() -> str:
        runs.append(clock.time())
        if len(runs) < 3:
            raise ValueError
        return "ran"

    await start(safety_net=600)

    handle = await work.adelay()
    await until(lambda: len(runs) == 1)
    await clock.advance(22)
    await clock.advance(22)

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert runs[1] - runs[0] >= 20
    assert runs[2] - runs[1] >= 20


async def test_hundreds_of_tasks_due_at_once_run_once_each(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """They are forwarded in batches of a hundred."""
    moment = datetime.fromtimestamp(int(clock.time()) + 100, UTC)

    @app.task(retention=0)
    async def work(number: int) -> None: ...

    ends = Ends()
    await start(safety_net=600, concurrency=50, listener=ends)
    await app.async_client.enqueue_many(work.using(run_after=moment).s(number) for number in range(500))
    assert redis_server.client.zcard(queue.scheduled) == 500
    clock.skip(101)
    await until(lambda: len(ends.ends) == 500)

    assert len({task_id for task_id, _ in ends.ends}) == 500
    assert redis_server.client.zcard(queue.scheduled) == 0


async def test_thousands_of_due_tasks_do_not_block_another_queue(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Due tasks are forwarded in bounded steps, and slots alternate between the queues."""
    count = 2_000

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
    await until(lambda: len(ends.ends) == count + 10)

    assert seen[-1] < count, "all of the other queue ran before the others had"
    assert len({task_id for task_id, _ in ends.ends}) == count + 10
    assert redis_server.client.zcard(queue.scheduled) == 0


async def test_retries_of_tasks_that_fail_together_are_spread(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Asynq's default delay spreads them over half a minute, so that they do not overload a service again."""
    count = 500

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
    """Such ids do not stop other tasks."""

    @app.task
    async def work() -> str:
        return "ran"

    redis_server.client.zadd(queue.scheduled, {f"ghost{number}": 1 for number in range(250)})
    handle = await work.using(run_after=600).adelay()
    redis_server.client.zadd(queue.scheduled, {handle.id: 1})
    await start(safety_net=600)

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert redis_server.client.zcard(queue.scheduled) == 0
    assert "because they have no stored message" in caplog.text


async def test_another_worker_forwards_after_the_leader_has_died(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock
) -> None:
    """A leader that stops releases the lead. A leader that dies loses it with its lease."""

    @app.task
    async def work() -> str:
        return "ran"

    first = await start(safety_net=600)
    await until(lambda: redis_server.client.keys("taskq:*lookout*"))
    await start(safety_net=600)
    await start.stop(first)

    handle = await work.using(run_after=20).adelay()
    await clock.advance(22)

    assert await handle.aresult(PATIENCE_S) == "ran"
