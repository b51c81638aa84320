"""An application, and workers of it."""

from collections.abc import AsyncIterator

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import run
from tests.taskq_core.worker.conftest import Runner
from tests.taskq_django.conftest import redis

__all__ = ["app", "redis", "run", "start"]


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    await app.aclose()


@pytest.fixture
async def start(app: TaskQ) -> AsyncIterator[Runner]:
    """Start workers of `app`."""
    runner = Runner(app)
    yield runner
    await runner.close()
