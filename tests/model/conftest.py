"""Fixtures of the model tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.sync import SyncRunner
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True)
def uses_long_connect_timeout(long_connect_timeout: None) -> None: ...


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.nightly)])
def model_runs(request: pytest.FixtureRequest) -> int:
    """Number of runs of the model: `--model-runs`, and twenty times as many in the nightly suite."""
    runs: int = request.config.getoption("--model-runs")
    return runs * 20 if request.param == "long" else runs


@pytest.fixture
def runner(redis_server: RedisServer) -> Iterator[SyncRunner]:
    runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
    yield runner
    runner.close()
