"""What sends operations to the store of the model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.sync import SyncRunner
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True)
def not_in_a_hurry(unhurried: None) -> None: ...


@pytest.fixture
def runner(redis_server: RedisServer) -> Iterator[SyncRunner]:
    runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
    yield runner
    runner.close()
