"""Start a real redis-server and queue applications that use it."""

from collections.abc import Iterator
from functools import partial

import pytest

from taskq_core import TaskQ
from taskq_fastapi.api import bulk_routes, queue_routes
from taskq_fastapi.api.parts import time_left
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the time limit of a request, so that a slow machine finishes its work in one request."""
    for module in (bulk_routes, queue_routes):
        monkeypatch.setattr(module, "time_left", partial(time_left, 60.0))


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """Return an empty redis-server without clients. Earlier tests may have left open connections behind."""
    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    return redis_server


@pytest.fixture
def taskq(server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(server.url, enqueue_timeout=30)
    yield app
    app.close()
