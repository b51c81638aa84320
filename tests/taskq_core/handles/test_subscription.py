"""Test that followers of one task on one event loop share reads without missing a change."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from taskq_core import BrokerUnavailableError, TaskQ, TaskState
from taskq_core.handles.subscription import TaskFollower
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
FOREVER_S = 1000.0


class Readings:
    """Intercepts the followers' reads of Redis. Each read waits until the test continues it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun: asyncio.Queue[Callable[[Exception | None], None]] = asyncio.Queue()
        look = TaskFollower._read_task

        async def held_up(follower: TaskFollower, patience_s: float, **options: Any) -> Any:
            stored = await look(follower, patience_s, **options)
            if follower._shared is not None:
                goes_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self.begun.put_nowait(lambda error: goes_on.set_exception(error) if error else goes_on.set_result(None))
                await goes_on
            return stored

        patch.setattr(TaskFollower, "_read_task", held_up)

    async def let_go(self, error: Exception | None = None) -> None:
        (await self.begun.get())(error)


@pytest.fixture
async def taskq(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield taskq
    await taskq.aclose()


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    return Readings(monkeypatch)


@pytest.fixture
async def followers(taskq: TaskQ, readings: Readings) -> AsyncIterator[list[TaskFollower]]:
    """Two followers that have subscribed and have then read the task once."""
    sent = await taskq.remote("t", queue="q", task_id="1").adelay()
    async with taskq.async_client.follow("q", sent.id) as first, taskq.async_client.follow("q", sent.id) as second:
        for each in (first, second):
            await each.wait(FOREVER_S)
        both = asyncio.gather(*(each.find() for each in (first, second)))
        await readings.let_go()
        assert [info.state for info in await both] == [TaskState.PENDING] * 2
        assert readings.begun.empty(), "they have shared it"
        yield [first, second]


async def _look_again(follower: TaskFollower) -> Any:
    await follower.wait(FOREVER_S)
    return await follower.find()


async def test_all_followers_see_a_change_that_happens_during_a_read(
    taskq: TaskQ, followers: list[TaskFollower], readings: Readings
) -> None:
    first, second = followers
    early = asyncio.create_task(first.find())
    let_go = await readings.begun.get()  # it has read that the task waits
    assert await taskq.get("1", queue="q").acancel()
    late = asyncio.create_task(_look_again(second))  # woken by the message
    await readings.let_go()
    let_go(None)

    assert (await early).state is TaskState.PENDING
    assert await late is None
    again = asyncio.create_task(_look_again(first))
    assert await again is None


async def test_a_change_that_one_follower_reads_wakes_the_others(
    redis_server: RedisServer, followers: list[TaskFollower], readings: Readings
) -> None:
    """Workers in Go publish nothing, so one follower's read must wake the others."""
    first, second = followers
    redis_server.client.delete("asynq:{q}:t:1")
    woken = asyncio.create_task(_look_again(second))
    found = asyncio.create_task(first.find())
    await readings.let_go()

    assert await found is None
    assert await woken is None
    assert readings.begun.empty()


async def test_a_failed_read_fails_for_all_followers_and_can_be_repeated(
    followers: list[TaskFollower], readings: Readings
) -> None:
    both = asyncio.gather(*(each.find() for each in followers), return_exceptions=True)
    await readings.let_go(BrokerUnavailableError("away"))
    failures = await both
    again = asyncio.gather(*(each.find() for each in followers))
    await readings.let_go()

    assert [str(each) for each in failures] == ["away"] * 2
    assert [info.state for info in await again] == [TaskState.PENDING] * 2


async def test_a_follower_that_stops_does_not_cancel_a_shared_read(
    followers: list[TaskFollower], readings: Readings
) -> None:
    leaving, staying = (asyncio.create_task(each.find()) for each in followers)
    let_go = await readings.begun.get()
    leaving.cancel()
    await asyncio.wait((leaving,))
    await followers[0].close()
    let_go(None)

    assert (await staying).state is TaskState.PENDING
