"""Start a real redis-server and a queue application that uses it."""

from collections.abc import Iterator

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Return a server, and check after the test that no connection is open."""
    yield redis_server
    redis_server.client.client_kill_filter(_type="normal", skipme=True)


@pytest.fixture
def taskq(server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(server.url, enqueue_timeout=30)
    yield app
    app.close()
