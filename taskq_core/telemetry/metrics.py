"""Make the instruments of the metrics in `names`, and keep the labels of clients and workers bounded.

Without an SDK nothing is measured. A client notices an SDK that is configured later with the next call, and a worker
within seconds. At most `MAX_SERIES` sets of labels are kept; further ones are counted under `_other`, so
that a flood of names cannot fill memory.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Generic, TypeVar

from opentelemetry.metrics import Meter, MeterProvider, Observation

from taskq_core.telemetry import names
from taskq_core.telemetry.providers import meter_of, switch

V = TypeVar("V")

MAX_SERIES = 1000
"""Maximum number of sets of labels, per `ClientMetrics` and per `WorkerMetrics`."""
OTHER = "_other"
"""Queue, task and error of further ones."""

Labels = dict[str, str | int]

DURATION_BUCKETS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
"""The conventions' buckets for seconds, with more at the long end because tasks run longer than requests."""


class Outcome(StrEnum):
    """How one run of a task ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    """Will run again and has used an attempt."""
    ARCHIVED = "archived"
    SNOOZED = "snoozed"
    """Will run again and has used no attempt."""
    DISCARDED = "discarded"
    EXPIRED = "expired"
    """Was not started in time, and is archived or dropped."""
    REQUEUED = "requeued"
    """Given back by a worker that stops, without using an attempt."""
    LOST = "lost"
    """The lease ended, so another worker decides what becomes of the task."""


NOT_PROCESSED = frozenset((Outcome.SNOOZED, Outcome.REQUEUED, Outcome.LOST))
"""Outcomes of runs that used no attempt here. They are not counted as processed."""


class Instruments(dict[names.Metric, Any]):
    """The instruments of one meter by metric, each made when it is first used."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def __missing__(self, metric: names.Metric) -> Any:
        if metric.kind == "counter":
            made: Any = self._meter.create_counter(metric, metric.unit, metric.description)
        else:
            made = self._meter.create_histogram(
                metric, metric.unit, metric.description, explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S
            )
        return self.setdefault(metric, made)

    def observe(self, metric: names.Metric, read: Callable[[], Iterable[Observation]]) -> None:
        """Make a gauge that each export reads."""
        self[metric] = self._meter.create_observable_gauge(metric, [lambda _: read()], metric.unit, metric.description)


class Meters:
    """Follows the provider in force. Any thread may use it.

    Args:
        provider: Used instead of the global one.
    """

    def __init__(self, provider: MeterProvider | None) -> None:
        self._fixed = provider
        # One attribute, so that another thread never sees the instruments of one provider beside another provider.
        self._current: tuple[MeterProvider | None, Instruments | None] = (None, None)

    def current(self) -> Instruments | None:
        """Return the instruments, None without an SDK. It is the same object until the provider changes."""
        provider = self._fixed or switch.meter_provider()
        known, instruments = self._current
        if provider is not known:
            meter = meter_of(provider)
            instruments = None if meter is None else Instruments(meter)
            self._current = (provider, instruments)
        return instruments


class Series(Generic[V]):
    """Values by labels, at most `limit` of them. Further labels share the values of `_other`.

    Args:
        limit: Maximum number of values.
        make: Makes a value from its labels.
    """

    def __init__(self, limit: int, make: Callable[..., V]) -> None:
        self._limit = limit
        self._make = make
        self._values: dict[tuple[str | None, ...], V] = {}

    def of(self, *labels: str | None) -> V:
        """Return the value of these labels."""
        value = self._values.get(labels)
        if value is None:
            if len(self._values) >= self._limit:
                labels = tuple(each if each is None or isinstance(each, Outcome) else OTHER for each in labels)
            value = self._values.get(labels) or self._values.setdefault(labels, self._make(*labels))
        return value


def task_labels(queue: str, task_type: str) -> Labels:
    """Return the labels of a task in taskq's own metrics."""
    return {names.QUEUE: queue, names.TASK_TYPE: task_type}
