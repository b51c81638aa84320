"""Test a Redis that stops and comes back while a caller waits. Each test runs with the blocking and the asyncio API."""

import asyncio

import pytest

from taskq_core import BrokerUnavailableError, TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.handles import test_handle as test_result
from tests.taskq_core.handles.test_events import ACTIVE, COMPLETED, PENDING, Application, summary

pytestmark = pytest.mark.redis


@pytest.fixture(params=["blocking", "coroutine"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "coroutine")


async def test_waiting_continues_when_redis_comes_back(is_async: bool) -> None:
    with RedisServer(appendonly=True, options={"appendfsync": "always"}) as server:
        taskq = TaskQ(server.url, enqueue_timeout=30)
        app = Application(taskq, server, is_async=is_async)
        handle = await app.task.adelay()
        listener = await app.followed(handle)
        message = (await asyncio.to_thread(app.dequeue))[handle.id]
        await listener.until_event(ACTIVE, None)

        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.2)
        assert not listener.task.done()
        await asyncio.to_thread(server.start)
        app.complete(handle.id, message)

        assert (await listener.to_the_end())[-1] == (COMPLETED, None)
        await taskq.aclose()
        await asyncio.to_thread(taskq.close)


async def test_an_unavailable_redis_raises_an_error_at_the_timeout(is_async: bool) -> None:
    with RedisServer() as server:
        taskq = TaskQ(server.url, enqueue_timeout=30)
        app = Application(taskq, server, is_async=is_async)
        handle = await app.task.adelay()
        listener = await app.followed(handle, timeout=4)  # it must be connected before the timeout
        await listener.until_event(PENDING, None)

        await asyncio.to_thread(server.kill)

        with pytest.raises(BrokerUnavailableError):
            await listener.to_the_end()
        assert [summary(event) for event in listener.events] == [(PENDING, None)]
        await taskq.aclose()
        await asyncio.to_thread(taskq.close)


async def test_redis_may_restart_while_a_caller_waits(is_async: bool) -> None:
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
