"""Test that tasks of workflows, and called sub-tasks, are counted where they are stored."""

from collections import Counter

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core import TaskContext, TaskQ, chain, group
from taskq_core.testing import drain
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False))
    return reader


def counts(reader: InMemoryMetricReader) -> dict[str, Counter[tuple[str, str]]]:
    """Return the values of the counters by queue and name of the task."""
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, Counter[tuple[str, str]]] = {}
    for scope in data.resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            values = found.setdefault(metric.name, Counter())
            for point in metric.data.data_points:
                labels = point.attributes or {}
                key = (str(labels.get("messaging.destination.name")), str(labels.get("messaging.asynq.task.type", "")))
                values[key] += getattr(point, "value", 0)
    return found


def test_every_stored_step_counts_as_enqueued(redis_server: RedisServer, reader: InMemoryMetricReader) -> None:
    """Test first and next steps, also in another queue, members of groups, added members, and sub-tasks."""
    app = TaskQ(redis_server.unix_url, queues={"default": 1, "other": 1}, enqueue_timeout=30)

    @app.task(name="near")
    def near() -> None: ...

    @app.task(name="far", queue="other")
    def far() -> None: ...

    @app.task(name="parent")
    def parent(context: TaskContext) -> None:
        context.call(near.s(), near.s(), far.s())

    chain(near.si(), far.si(), near.si()).delay()
    (group(near.si() for _ in range(250)) | far.si()).delay()
    group([far.si(), far.si()]).delay()
    parent.delay()
    drain(app)

    found = counts(reader)
    expected = {("default", "near"): 254, ("other", "far"): 5, ("default", "parent"): 1}
    assert found["asynq.tasks.enqueued"] == expected
    assert found["asynq.tasks.processed"] == expected
    assert sum(found["messaging.client.sent.messages"].values()) == sum(expected.values())
    app.close()
