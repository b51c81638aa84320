"""Durations that are recorded together are told as if each had been recorded by itself."""

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.metrics import Histogram, NoOpMeterProvider
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics import Histogram as SDKHistogram
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)

from taskq_core.telemetry import histograms
from taskq_core.telemetry.histograms import NO_EXAMPLE, Recorder

LABELS: dict[str, str | int] = {"queue": "low", "type": "email", "server.port": 6379}
ROUNDS: tuple[Sequence[float], ...] = ((0.2, 0.004, 7.0), (5.0,), (0.01, 0.3, 4000.0, 0.0))


def told(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """Of each metric, what is told of its series, without times and with the name of the histogram left out."""
    data = reader.get_metrics_data()
    found: dict[str, list[Any]] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else []:
        for point in metric.data.data_points:
            each = {key: getattr(point, key) for key in point.__dataclass_fields__ if "time" not in key}
            found.setdefault(metric.name, []).append(each)
    return found


def histogram(provider: Any, name: str) -> Histogram:
    return provider.get_meter("tests").create_histogram(
        name, "s", explicit_bucket_boundaries_advisory=[0.005, 0.1, 5.0]
    )


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
@pytest.mark.parametrize(
    ("views", "by_one"),
    [
        pytest.param((), False, id="no view"),
        pytest.param((View(instrument_name="*", attribute_keys={"queue", "other"}),), False, id="fewer labels"),
        pytest.param(
            (
                View(instrument_name="*", aggregation=ExplicitBucketHistogramAggregation([1, 2], False)),
                View(instrument_name="*"),
            ),
            False,
            id="two views, one with buckets of its own",
        ),
        pytest.param(
            (View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation()),), True, id="exponential"
        ),
        pytest.param((View(instrument_name="*", aggregation=DropAggregation()),), True, id="dropped"),
    ],
)
def test_what_is_told(temporality: AggregationTemporality, views: Sequence[View], by_one: bool) -> None:
    """Also where a reader collects between, and begins anew after that."""
    readers = [InMemoryMetricReader({SDKHistogram: temporality}) for _ in range(3)]
    provider = MeterProvider(readers[:2], views=views, shutdown_on_exit=False)
    expected = histogram(MeterProvider(readers[2:], views=views, shutdown_on_exit=False), "taken")
    recorder = Recorder(histogram(provider, "taken"), LABELS)

    for values in (*ROUNDS, *ROUNDS):
        for value in values:
            expected.record(value, LABELS, NO_EXAMPLE)
        recorder.record_many(values)
        assert told(readers[0]) == told(readers[2])
    recorder.record_many(ROUNDS[0])

    assert recorder.is_by_one == by_one
    seen = [each["count"] for each in told(readers[1]).get("taken", [])]
    assert seen == [2 * sum(map(len, ROUNDS)) + len(ROUNDS[0])] * len(seen)


def count(reader: InMemoryMetricReader) -> float:
    return sum(each["count"] for each in told(reader)["taken"])


def test_beyond_the_most_labels_an_sdk_keeps_apart_nothing_is_lost() -> None:
    reader = InMemoryMetricReader()
    taken = histogram(MeterProvider([reader], shutdown_on_exit=False), "taken")
    for number in range(2_000):
        taken.record(0.1, {"number": number})

    Recorder(taken, LABELS).record_many([0.1, 0.2, 0.3])

    assert count(reader) == 2_003


def test_a_filter_that_wants_to_see_each_value_sees_each() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False)

    Recorder(histogram(provider, "taken"), LABELS).record_many([0.01, 0.3, 7.0])

    assert [each.value for each in told(reader)["taken"][0]["exemplars"]] == [0.01, 0.3, 7.0]


def test_an_sdk_that_tells_something_else_gets_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(histograms._Sum):
        def add(self, values: Sequence[float]) -> None:
            super().add(values[:1])

    histograms._comes_out_the_same.cache_clear()
    monkeypatch.setattr(histograms, "_Sum", Changed)
    try:
        reader = InMemoryMetricReader()
        recorder = Recorder(histogram(MeterProvider([reader], shutdown_on_exit=False), "taken"), LABELS)
    finally:
        histograms._comes_out_the_same.cache_clear()

    recorder.record_many([0.01, 0.3, 7.0])

    assert recorder.is_by_one
    assert count(reader) == 3


def test_what_is_no_sdk_gets_each_value() -> None:
    recorder = Recorder(histogram(NoOpMeterProvider(), "taken"), LABELS)

    recorder.record_many([0.01])

    assert recorder.is_by_one
