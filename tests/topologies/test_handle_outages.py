"""Test a Redis that stops and comes back while a caller waits. Each test runs blocking and as a coroutine."""

import asyncio

import pytest

from taskq_core import BrokerUnavailableError, TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.handles import test_handle as test_result
from tests.taskq_core.handles.test_events import ACTIVE, COMPLETED, PENDING, Application, told

pytestmark = pytest.mark.redis


@pytest.fixture(params=["blocking", "coroutine"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "coroutine")


async def test_it_goes_on_when_redis_comes_back(is_async: bool) -> None:
    with RedisServer(appendonly=True, options={"appendfsync": "always"}) as server:
        taskq = TaskQ(server.url, enqueue_timeout=30)
        app = Application(taskq, server, is_async=is_async)
        handle = await app.task.adelay()
        heard = await app.followed(handle)
        message = (await asyncio.to_thread(app.dequeue))[handle.id]
        await heard.until_told(ACTIVE, None)

        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.2)
        assert not heard.task.done()
        await asyncio.to_thread(server.start)
        app.complete(handle.id, message)

        assert (await heard.to_the_end())[-1] == (COMPLETED, None)
        await taskq.aclose()
        await asyncio.to_thread(taskq.close)


async def test_a_redis_that_stays_away_is_told_when_the_time_is_over(is_async: bool) -> None:
    with RedisServer() as server:
        taskq = TaskQ(server.url, enqueue_timeout=30)
        app = Application(taskq, server, is_async=is_async)
        handle = await app.task.adelay()
        heard = await app.followed(handle, timeout=4)  # it has to listen before that is over
        await heard.until_told(PENDING, None)

        await asyncio.to_thread(server.kill)

        with pytest.raises(BrokerUnavailableError):
            await heard.to_the_end()
        assert [told(event) for event in heard.events] == [(PENDING, None)]
        await taskq.aclose()
        await asyncio.to_thread(taskq.close)


async def test_redis_may_restart_while_somebody_waits(is_async: bool) -> None:
    with RedisServer(appendonly=True, options={"appendfsync": "always"}) as server:
        app = test_result.Application(TaskQ(server.url, enqueue_timeout=20), server, is_async=is_async)
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, 30))
        await app.waiting()

        server.kill()
        server.start()
        app.finish()

        assert await waiting == 5
        await app.taskq.aclose()
