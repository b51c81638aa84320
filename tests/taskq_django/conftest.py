"""A Django project whose tasks go to the tests' own redis-server."""

from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core.inspector import Inspector
from taskq_django import taskq
from tests.redis_server import RedisServer


@pytest.fixture
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    """An empty Redis, which `TASKQ` names."""
    settings.TASKQ = {"URL": redis_server.unix_url, "QUEUES": {"default": 3, "low": 1}}
    yield redis_server
    taskq.close()


@pytest.fixture
def inspector(redis: RedisServer) -> Inspector:
    """Looks at what was enqueued."""
    return Inspector(taskq)
