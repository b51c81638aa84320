"""Test that Redis reports changes to keys that were read on a connection, if it supports tracking."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations.services import count_keys, first_score
from taskq_core.broker.tracking import TrackingPipeline
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

Open = Callable[..., TrackingPipeline]


@pytest.fixture
def notified() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def open_lane(redis_server: RedisServer, notified: asyncio.Event) -> AsyncIterator[Open]:
    lanes = []

    def open_lane(url: str | None = None) -> TrackingPipeline:
        endpoint = Endpoint(url or redis_server.url, embedded_folder=Path("unused"))
        lane = AsyncRunner(endpoint, timeout_s=30).new_tracking_pipeline(lambda names: notified.set())
        assert isinstance(lane, TrackingPipeline)
        lanes.append(lane)
        return lane

    yield open_lane
    for lane in lanes:
        await lane.close()


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


async def test_a_change_is_reported_once_until_the_key_is_read_again(
    open_lane: Open, notified: asyncio.Event, redis_server: RedisServer
) -> None:
    lane, client = open_lane(), redis_server.client
    assert await lane.run(count_keys(("a", "b"))) == 0
    assert lane.is_tracking

    client.zadd("b", {"x": 7})
    await within(notified)
    notified.clear()
    client.zadd("b", {"y": 5})  # not read since the last notification
    assert await lane.run(first_score("b")) == 5
    assert not notified.is_set()
    client.eval("return redis.call('DEL', KEYS[1])", 1, "b")
    await within(notified)
    assert await lane.run(first_score("b")) is None


async def test_notifications_between_replies_do_not_disturb_requests(
    open_lane: Open, notified: asyncio.Event, redis_server: RedisServer
) -> None:
    lane, client = open_lane(), redis_server.client
    for number in range(200):
        reading = asyncio.ensure_future(lane.exchange([count_keys(("a", "b")), first_score("a")]))
        client.zadd("a", {"x": number})
        await asyncio.sleep(0)
        client.zadd("b", {"x": number})
        answers = await reading
        assert answers[0] in (0, 1, 2)
    assert notified.is_set()


async def test_flushing_the_store_is_reported(
    open_lane: Open, notified: asyncio.Event, redis_server: RedisServer
) -> None:
    lane = open_lane()
    redis_server.client.set("a", 1)
    assert await lane.run(count_keys(("a",))) == 1

    redis_server.client.flushall()
    await within(notified)


async def test_the_end_of_the_connection_is_reported(
    open_lane: Open, notified: asyncio.Event, redis_server: RedisServer
) -> None:
    """The keys are no longer tracked then, so waiting callers must read them again."""
    lane = open_lane()
    await lane.run(count_keys(("a",)))

    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    await within(notified)
    notified.clear()
    assert await lane.run(count_keys(("a",))) == 0
    assert lane.is_tracking
    redis_server.client.set("a", 1)
    await within(notified)


async def test_a_user_without_permission_to_track_gets_a_plain_pipeline(
    open_lane: Open, notified: asyncio.Event, redis_server: RedisServer
) -> None:
    client: Any = redis_server.client
    client.acl_setuser("plain", enabled=True, passwords=["+word"], keys=["*"], commands=["+exists"])
    try:
        lane = open_lane(redis_server.url.replace("://", "://plain:word@"))
        assert await lane.run(count_keys(("a",))) == 0
        client.set("a", 1)
        assert await lane.run(count_keys(("a",))) == 1
    finally:
        client.acl_deluser("plain")
    assert not lane.is_tracking
    assert not notified.is_set()
