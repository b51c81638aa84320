"""The gauges of a worker whose Redis goes and comes back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

Read = Callable[[str], dict[tuple[str, ...], float]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Returns the values of a gauge by the values of its labels."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False))

    def read(name: str) -> dict[tuple[str, ...], float]:
        data = reader.get_metrics_data()
        found: dict[tuple[str, ...], float] = {}
        for resource in data.resource_metrics if data else []:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == name:
                    points: list[Any] = list(metric.data.data_points)
                    found |= {tuple(str(each) for each in point.attributes.values()): point.value for point in points}
        return found

    return read


async def test_a_worker_says_what_it_runs_and_whether_redis_answers(
    app: TaskQ, start: Runner, read: Read, redis_server: RedisServer
) -> None:
    gate = asyncio.Event()

    @app.task(name="wait")
    async def wait() -> None:
        await gate.wait()

    worker = await start(concurrency=7)
    await wait.adelay()
    await until(lambda: worker.running_count == 1, "it runs")
    busy = read("asynq.worker.busy"), read("asynq.worker.connected"), read("asynq.worker.slots")
    redis_server.stop()
    await until(lambda: read("asynq.worker.connected") == {(): 0}, "it is noticed")
    redis_server.start()
    await until(lambda: read("asynq.worker.connected") == {(): 1}, "it is back")
    gate.set()
    await start.stop(worker)

    assert busy == ({(): 1}, {(): 1}, {(): 7})
    assert read("asynq.worker.slots") == {}  # it is gone
