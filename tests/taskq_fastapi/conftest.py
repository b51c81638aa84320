"""A real redis-server, and queue applications on it."""

from collections.abc import Iterator

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def fastapi_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(fastapi_redis: RedisServer) -> RedisServer:
    """An empty redis-server, to which nobody is connected: an earlier test may have left connections to the garbage."""
    fastapi_redis.client.client_kill_filter(_type="normal", skipme=True)
    fastapi_redis.flushall()
    return fastapi_redis


@pytest.fixture
def taskq(server: RedisServer) -> TaskQ:
    return TaskQ(server.url)
