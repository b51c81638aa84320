"""Record durations with few calls of the SDK, whose `Histogram.record` takes half as long as an empty task.

Between two exports, the SDK gets only the first duration of each bucket. The others are counted here, and added to the
SDK's points when it exports them. So the exported counts, sums, minima and maxima are the same as if the SDK had got
each duration, and the SDK decides on everything else: temporality, start times, exemplars.

This needs an exporter that adds the counts, so only `configure` can set it up. Another SDK gets each duration.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from msgspec import Struct, field
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider

from taskq_core.telemetry.providers import INSTRUMENTATION_NAME

Labels = dict[str, str | int]


class _Counts(Struct, kw_only=True):
    """Durations with the same labels that the SDK did not get.

    Attributes:
        labels: The labels.
        buckets: Number of durations in each bucket.
        recorded: The buckets of which the SDK has a duration since the last export, each with whether it was sampled.
    """

    labels: Labels
    buckets: list[int]
    total: float = 0.0
    lowest: float = float("inf")
    highest: float = 0.0
    recorded: set[tuple[int, bool]] = field(default_factory=set)

    def clear(self) -> None:
        self.buckets = [0] * len(self.buckets)
        self.total, self.lowest, self.highest = 0.0, float("inf"), 0.0


class SparseHistogram:
    """A histogram that gives the SDK only the first duration of each bucket after each export. Thread-safe.

    Args:
        histogram: The SDK's histogram.
        bounds: Upper bounds of its buckets.
    """

    def __init__(self, histogram: Any, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts: dict[tuple[tuple[str, str | int], ...], _Counts] = {}

    def record(self, amount: float, attributes: Labels, context: Context | None = None) -> None:
        """Record a duration.

        Args:
            amount: The duration in seconds.
            attributes: The labels.
            context: Context of the run. The SDK may store an exemplar if its trace is sampled.
        """
        key = tuple(attributes.items())
        bucket = bisect_left(self._bounds, amount)
        is_sampled = trace.get_current_span(context).get_span_context().trace_flags.sampled
        with self._lock:
            counts = self._counts.get(key)
            if counts is None:
                counts = self._counts[key] = _Counts(labels=attributes, buckets=[0] * (len(self._bounds) + 1))
            if (bucket, is_sampled) in counts.recorded:
                counts.buckets[bucket] += 1
                counts.total += amount
                counts.lowest = min(counts.lowest, amount)
                counts.highest = max(counts.highest, amount)
                return
            counts.recorded.add((bucket, is_sampled))
        self._histogram.record(amount, attributes, context)

    def completed(self, data: Any) -> Any:
        """Return the SDK's points of this histogram with the durations that the SDK did not get."""
        is_delta = data.aggregation_temporality.name == "DELTA"
        return replace(data, data_points=[self._complete(point, is_delta=is_delta) for point in data.data_points])

    def _complete(self, point: Any, *, is_delta: bool) -> Any:
        with self._lock:
            # Equal labels in another order have separate counts.
            for counts in [each for each in self._counts.values() if each.labels == point.attributes]:
                counts.recorded.clear()
                point = replace(
                    point,
                    count=point.count + sum(counts.buckets),
                    sum=point.sum + counts.total,
                    bucket_counts=[a + b for a, b in zip(point.bucket_counts, counts.buckets, strict=True)],
                    min=min(point.min, counts.lowest),
                    max=max(point.max, counts.highest),
                )
                if is_delta:
                    counts.clear()
        return point


class SparseHistograms:
    """The histograms of one provider that give the SDK few durations."""

    def __init__(self) -> None:
        self._by_name: dict[str, SparseHistogram] = {}

    def add(self, name: str, histogram: Any, bounds: Sequence[float]) -> SparseHistogram:
        """Return a histogram that uses the SDK's histogram."""
        # Several clients and workers of a process use the same histogram.
        return self._by_name.setdefault(name, SparseHistogram(histogram, bounds))

    def exporter(self, kind: Callable[[], Any]) -> Any:
        """Return an exporter of this class that completes the points of these histograms."""
        histograms = self
        base: Any = kind

        class Exporter(base):  # type: ignore[misc]  # the class is known only at run time
            def export(self, metrics_data: Any, timeout_millis: float = 10_000, **options: Any) -> Any:
                return super().export(histograms.completed(metrics_data), timeout_millis, **options)

        return Exporter()

    def completed(self, data: Any) -> Any:
        """Return the SDK's metrics with the durations that the SDK did not get."""
        resources = [
            replace(resource, scope_metrics=[self._complete(scope) for scope in resource.scope_metrics])
            for resource in data.resource_metrics
        ]
        return replace(data, resource_metrics=resources)

    def _complete(self, scope: Any) -> Any:
        if scope.scope.name != INSTRUMENTATION_NAME:
            return scope
        metrics = []
        for metric in scope.metrics:
            histogram = self._by_name.get(metric.name)
            metrics.append(metric if histogram is None else replace(metric, data=histogram.completed(metric.data)))
        return replace(scope, metrics=metrics)


sparse_histograms: WeakKeyDictionary[MeterProvider, SparseHistograms] = WeakKeyDictionary()
"""The providers whose exporter completes the points."""
