"""The dashboard, and how much it asks of Redis. `test_faces` shows that its blocking face answers alike."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from taskq_core import TaskQ
from taskq_core.broker.operations import diagnosis
from taskq_core.inspector import AsyncInspector
from taskq_core.views import AsyncDashboard
from tests.redis_server import RedisServer

Ask = Callable[..., Any]


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    await app.aclose()


@pytest.fixture
def now_s(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> int:
    """Freeze the dashboard at the current time of Redis, so that no hour or day changes during a test."""
    now: Any = redis_server.client.time()
    still = replace(diagnosis.read_time(), read=lambda _: float(now[0]))
    monkeypatch.setattr(diagnosis, "read_time", lambda: still)
    return int(now[0])


@pytest.fixture
def ask(app: TaskQ) -> Ask:
    """Ask the dashboard by the name of a method."""

    async def ask(method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(AsyncDashboard(AsyncInspector(app)), method)(*args, **kwargs)

    return ask


@pytest.fixture
def commands_of(ask: Ask, redis_server: RedisServer) -> Callable[..., Any]:
    """Return how many Redis commands a read takes, including the commands called by scripts."""

    def all_so_far() -> int:
        stats: Any = redis_server.client.info("commandstats")
        return sum(int(numbers["calls"]) for name, numbers in stats.items() if name != "cmdstat_info")

    async def commands_of(method: str, *args: Any, **kwargs: Any) -> int:
        before = all_so_far()
        await ask(method, *args, **kwargs)
        return all_so_far() - before

    return commands_of
