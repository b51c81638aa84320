import threading
from collections.abc import Iterable
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core.telemetry import GaugeBoard, Reading, names
from tests.logged import logged_here


def values(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    data = reader.get_metrics_data()
    return {
        metric.name: [(dict(point.attributes or {}), point.value) for point in metric.data.data_points]  # type: ignore[union-attr]  # gauges have values
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_an_export_reads_all_sources(meter_provider: MeterProvider, reader: InMemoryMetricReader) -> None:
    board = GaugeBoard(meter_provider=meter_provider)
    board.add(lambda: [Reading(names.WORKER_BUSY, 3, {}), Reading(names.QUEUE_PAUSED, 1, {names.QUEUE: "low"})])
    other = [Reading(names.QUEUE_PAUSED, 0, {names.QUEUE: "high"})]

    def read() -> Iterable[Reading]:
        return other

    board.add(read)
    both = values(reader)
    board.remove(read)

    assert both == {
        "asynq.worker.busy": [({}, 3)],
        "asynq.queue.paused": [
            ({"messaging.destination.name": "low"}, 1),
            ({"messaging.destination.name": "high"}, 0),
        ],
    }
    assert len(values(reader)["asynq.queue.paused"]) == 1


def test_a_failing_source_loses_only_its_own_values(
    meter_provider: MeterProvider, reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture
) -> None:
    board = GaugeBoard(meter_provider=meter_provider)

    def fail() -> Iterable[Reading]:
        raise RuntimeError("no")

    board.add(fail)
    board.add(lambda: [Reading(names.WORKER_BUSY, 3, {})])

    assert values(reader) == values(reader) == {"asynq.worker.busy": [({}, 3)]}
    assert [record.message for record in logged_here(caplog)] == [
        "the current values of some gauges could not be read (logged once)"
    ]


def test_the_number_of_exported_queues_is_bounded(meter_provider: MeterProvider, reader: InMemoryMetricReader) -> None:
    board = GaugeBoard(meter_provider=meter_provider, max_series=10)
    board.add(lambda: [Reading(names.QUEUE_PAUSED, 0, {names.QUEUE: str(n)}) for n in range(1000)])

    assert len(values(reader)["asynq.queue.paused"]) == 10


@pytest.mark.usefixtures("clean_globals")
def test_an_sdk_configured_later_is_noticed_at_the_next_check(
    meter_provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    board = GaugeBoard()
    board.add(lambda: [Reading(names.WORKER_BUSY, 3, {})])
    before = board.is_active

    metrics.set_meter_provider(meter_provider)
    board.refresh()
    board.refresh()

    assert (before, board.is_active) == (False, True)
    assert values(reader) == {"asynq.worker.busy": [({}, 3)]}


def test_sources_can_change_during_an_export(meter_provider: MeterProvider, reader: InMemoryMetricReader) -> None:
    board = GaugeBoard(meter_provider=meter_provider)
    board.add(lambda: [Reading(names.WORKER_BUSY, 1, {})])
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            source = lambda: [Reading(names.WORKER_SLOTS, 2, {})]  # noqa: E731 - a source that is equal to no other
            board.add(source)
            board.remove(source)

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    found = [values(reader)["asynq.worker.busy"] for _ in range(200)]
    stop.set()
    for thread in threads:
        thread.join()

    assert found == [[({}, 1)]] * 200
