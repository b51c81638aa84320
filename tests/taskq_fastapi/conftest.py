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
    """An empty redis-server."""
    fastapi_redis.flushall()
    return fastapi_redis


@pytest.fixture
def taskq(server: RedisServer) -> TaskQ:
    return TaskQ(server.url)
