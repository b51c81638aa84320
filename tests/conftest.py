"""Fixtures for all tests: a real redis-server for each test process, and an in-memory replacement for fast tests.

Every pytest-xdist worker is a separate process with a separate server, so tests may flush it.
"""

import os
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, settings

from taskq_core.broker import aio, connection, sync
from taskq_core.broker import pipelines as lanes
from tests.clock import Clock
from tests.redis_server import RedisServer

os.environ.setdefault("TASKQ_REDIS_IN_TESTS", "true")  # Django's tests may use Redis here

# No deadline for examples, because a busy machine may stall for a second.
settings.register_profile("taskq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("taskq")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("taskq")
    group.addoption(
        "--stores", choices=("bundled", "others", "all"), default="bundled", help="servers of tests/conformance"
    )
    group.addoption("--model-runs", type=int, default=150, help="runs of the model (tests/model)")
    group.addoption("--model-seed", type=int, default=1, help="seed of the runs of the model")


@pytest.fixture(scope="session")
def session_redis_server() -> Iterator[RedisServer]:
    """The server of this test process. Tests use `redis_server`, which empties it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(session_redis_server: RedisServer) -> RedisServer:
    """An empty redis-server on a unix socket, shared by all tests. To stop, pause or configure one, start another."""
    session_redis_server.client.connection_pool.disconnect()  # threads of an earlier test may have opened several
    session_redis_server.flushall()
    return session_redis_server


@pytest.fixture
def clock(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that controls all time in a test. See `tests.clock`."""
    return Clock(monkeypatch, redis_server.client)


@pytest.fixture(autouse=True)
def _clock_first(request: pytest.FixtureRequest) -> None:
    """Set up the clock before all other fixtures, so that it is removed after them."""
    if "clock" in request.fixturenames:
        request.getfixturevalue("clock")


@pytest.fixture(autouse=True)
def _patient_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the send after a commit wait for 30 s, because a busy machine may take more than the usual 0.1 s."""
    monkeypatch.setattr("taskq_core.client.outbox.sender.PATIENCE_S", 30.0)


@pytest.fixture
def long_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the connect timeout to 30 s for tests of single attempts, because a busy machine may take more than 2 s."""
    for module in (aio, connection, lanes, sync):
        monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 30.0)
    monkeypatch.setitem(connection._COMMON, "socket_connect_timeout", 30.0)
    monkeypatch.setitem(connection.Endpoint.connection.__kwdefaults__, "connect_timeout_s", 30.0)


@pytest.fixture
def fake_redis() -> Any:
    """A redis-py client of an empty in-memory Redis. `TaskQ` accepts it instead of a URL."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())
