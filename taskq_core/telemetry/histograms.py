"""Record many values of a histogram at once.

OpenTelemetry has no call for that: each value costs two thirds of what a task does without telemetry (79,000 of 111,000
instructions), as its labels, the same each time, are checked and hashed each time. A `Recorder` looks up once where the
values of one set of labels are added up, and adds many there together, under the SDK's own locks.

That place is no part of the SDK's public interface. So it is tried first, with a provider of its own, whether what is
added so comes out as what `record` adds. Where it does not, and where values go another way than the usual one (another
kind of histogram, an exemplar filter that wants to see each), every value is recorded by itself.
"""

import importlib
import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, set_span_in_context

from taskq_core.clock import SYSTEM_CLOCK

NO_EXAMPLE = set_span_in_context(NonRecordingSpan(INVALID_SPAN_CONTEXT), Context())
"""Context of no trace; without one an SDK takes what is current. Keeping an example costs it half as much again."""

Labels = Mapping[str, str | int]

_SDK = "opentelemetry.sdk.metrics"
_FILTERS = ("TraceBasedExemplarFilter", "AlwaysOffExemplarFilter")
"""Exemplar filters that take no value without a trace."""
_AGGREGATION = "_ExplicitBucketHistogramAggregation"


_logger = logging.getLogger(__name__)


class _StaleError(Exception):
    """There is no sum to add to, or it is no longer the one that is told."""


class _Sum:
    """Where one reader of the SDK adds up the values of one set of labels."""

    __slots__ = ("_aggregation", "_key", "_match")

    def __init__(self, match: Any, labels: Labels) -> None:
        wanted = match._view._attribute_keys
        kept = labels if wanted is None else {name: labels[name] for name in labels if name in wanted}
        with match._lock:
            sums = reversed(list(match._attributes_aggregation.items()))  # it was mostly the last to be made
            found = next(((key, each) for key, each in sums if each._attributes == kept), None)
        if found is None:
            raise _StaleError
        self._match = match
        self._key, self._aggregation = found
        if type(self._aggregation).__name__ != _AGGREGATION:
            raise TypeError(f"values are added up by {type(self._aggregation).__name__}")

    def add(self, values: Sequence[float]) -> None:
        """Add values. Raises `_StaleError`, and adds none, if the reader has begun another sum since."""
        match, into = self._match, self._aggregation
        with match._lock:  # nobody collects meanwhile
            if match._attributes_aggregation.get(self._key) is not into:
                raise _StaleError
            with into._lock:
                counts, bounds, total = into._value, into._boundaries, into._sum
                if counts is None:
                    counts = into._value = [0] * (len(bounds) + 1)
                for value in values:
                    total += value
                    counts[bisect_left(bounds, value)] += 1
                into._sum = total
                if into._record_min_max:
                    into._min = min(into._min, min(values))
                    into._max = max(into._max, max(values))

    def consume(self, histogram: Histogram, values: Sequence[float], labels: Labels) -> None:
        """Add values as the SDK does."""
        measurement = importlib.import_module(f"{_SDK}._internal.measurement").Measurement
        now_ns = int(SYSTEM_CLOCK.time() * 1e9)
        for value in values:
            self._match.consume_measurement(measurement(value, now_ns, histogram, NO_EXAMPLE, labels), False)


class Recorder:
    """Records the values of one histogram that have the same labels. Only one thread may call it.

    Args:
        histogram: The histogram, of an SDK or anything else.
        labels: Its labels; nobody changes them.
        is_trial: Adds values together without having tried whether that works.
    """

    __slots__ = ("_histogram", "_labels", "_storages", "_sums", "is_by_one")

    def __init__(self, histogram: Histogram, labels: Labels, *, is_trial: bool = False) -> None:
        self._histogram, self._labels = histogram, labels
        self.is_by_one = not is_trial and not can_add(histogram)
        """Whether each value is recorded by itself."""
        self._storages: object = None
        self._sums: list[_Sum] | None = None

    def record(self, value: float, context: Context | None) -> None:
        """Record a value, of which the SDK may keep the trace of this context as an example."""
        self._histogram.record(value, self._labels, context)

    def record_many(self, values: Sequence[float]) -> None:
        """Record values, at least one and none negative; the SDK keeps none of them as an example."""
        if self.is_by_one:
            self._record_each(values)
            return
        histogram: Any = self._histogram
        if not getattr(histogram, "_is_enabled", _always)():
            return
        storages = histogram._measurement_consumer._reader_storages
        sums = self._sums
        if sums is None or storages is not self._storages:
            self.record(values[0], NO_EXAMPLE)  # so that there is a sum
            values = values[1:]
            try:
                sums = self._sums = [
                    _Sum(match, self._labels)
                    for storage in storages.values()
                    for match in storage._get_or_init_view_instrument_match(histogram)
                ]
            except _StaleError:  # somebody collected meanwhile, or the SDK keeps no more labels apart
                self._record_each(values)
                return
            except (AttributeError, TypeError):
                self.is_by_one = True
                self._record_each(values)
                return
            self._storages = storages
        if not values:
            return
        for each in sums:
            try:
                each.add(values)
            except _StaleError:
                self._sums = None
                each.consume(histogram, values, self._labels)

    def _record_each(self, values: Sequence[float]) -> None:
        for value in values:
            self._histogram.record(value, self._labels, NO_EXAMPLE)


def _always() -> bool:
    return True


def can_add(histogram: Any) -> bool:
    """Whether values of a histogram may be added together. To ask first takes a millisecond, for it is tried then."""
    try:
        consumer = histogram._measurement_consumer
        chosen = consumer._sdk_config.exemplar_filter
    except AttributeError:
        return False
    if not all(type(each).__module__.startswith(f"{_SDK}.") for each in (histogram, consumer, chosen)):
        return False
    return type(chosen).__name__ in _FILTERS and _comes_out_the_same()


@cache
def _comes_out_the_same() -> bool:
    """Whether values that are added together are told as those are that were recorded one by one."""
    try:
        return all(_tells_the_same(temporality) for temporality in ("CUMULATIVE", "DELTA"))
    except Exception as error:
        _logger.info("durations are recorded one by one, for this OpenTelemetry SDK is not known: %r", error)
        return False


def _tells_the_same(temporality: str) -> bool:
    sdk, export = importlib.import_module(_SDK), importlib.import_module(f"{_SDK}.export")
    resource = importlib.import_module("opentelemetry.sdk.resources").Resource({})
    reader = export.InMemoryMetricReader({sdk.Histogram: export.AggregationTemporality[temporality]})
    provider = sdk.MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    try:
        meter = provider.get_meter("trial")
        one_by_one, together = meter.create_histogram("one_by_one"), meter.create_histogram("together")
        recorder = Recorder(together, {"queue": "trial"}, is_trial=True)
        for values in ((7.5, 0.25, 5.0, 20_000.0), (0.0,), (2.5, 2.0, 30.0)):
            for value in values:
                one_by_one.record(value, {"queue": "trial"}, NO_EXAMPLE)
            recorder.record_many(values)
            told = {
                metric.name: [
                    (dict(point.attributes), point.count, point.sum, point.bucket_counts, point.min, point.max)
                    for point in metric.data.data_points
                ]
                for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
            }
            if recorder.is_by_one or told["one_by_one"] != told["together"] or not told["together"]:
                return False
        return True
    finally:
        provider.shutdown()
