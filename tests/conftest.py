"""Fixtures for all tests: a real redis-server, started once a test process, and an in-memory stand-in for fast tests.

Every pytest-xdist worker is a process of its own and has its own server, so tests may flush it.
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

os.environ.setdefault("TASKQ_REDIS_IN_TESTS", "true")  # the Redis of these tests is theirs, also for Django

# How long an example takes is no matter of what is tested: on a busy machine any of them may stand still for a second.
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
    """The server of this test process. A test takes `redis_server`, which is empty."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(session_redis_server: RedisServer) -> RedisServer:
    """A running redis-server without data, on a unix socket. It is shared: stop, pause or configure one of your own."""
    session_redis_server.client.connection_pool.disconnect()  # threads of an earlier test may have opened several
    session_redis_server.flushall()
    return session_redis_server


@pytest.fixture
def clock(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of this test, which it may skip. See `tests.clock`."""
    return Clock(monkeypatch, redis_server.client)


@pytest.fixture(autouse=True)
def _clock_first(request: pytest.FixtureRequest) -> None:
    """Put the clock in place before anything else, so that it is there until everything else has ended."""
    if "clock" in request.fixturenames:
        request.getfixturevalue("clock")


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute to connect, for tests of single attempts: two seconds are too little for a machine that is busy."""
    for module in (aio, connection, lanes, sync):
        monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 30.0)
    monkeypatch.setitem(connection._COMMON, "socket_connect_timeout", 30.0)
    monkeypatch.setitem(connection.Endpoint.connection.__kwdefaults__, "connect_timeout_s", 30.0)


@pytest.fixture
def fake_redis() -> Any:
    """A redis-py client of a fresh in-memory Redis, which a `TaskQ` takes in place of a URL."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())
