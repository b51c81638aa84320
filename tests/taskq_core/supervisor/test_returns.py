"""Test the requests of a supervisor to Redis after several of its processes have died."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.supervisor.returns import Returns
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import until

pytestmark = pytest.mark.redis


async def test_concurrent_checks_leave_no_connection_open(redis_server: RedisServer) -> None:
    """The first three come at the same moment, before there is any connection."""
    app = TaskQ(redis_server.url)
    returns = Returns(app)
    child: Any = SimpleNamespace(identity={"token": "0123456789abcdef", "queues": ["default"]})
    before = ids_of_clients(redis_server)

    assert await asyncio.gather(*(returns.list_overrun(child) for _ in range(3))) == [[], [], []]
    await returns.close()

    await until(lambda: ids_of_clients(redis_server) <= before, "they are closed")
    app.close()


def ids_of_clients(server: RedisServer) -> set[str]:
    """Those of earlier tests may go at any time."""
    return {client["id"] for client in server.client.client_list()}
