"""Create the instruments of the metrics in `names`, and limit the number of label sets.

Without an SDK nothing is measured. If an SDK is configured later, a client uses it at the next call, and a worker
within seconds. At most `MAX_SERIES` sets of labels are kept. Further sets are counted as `_other`, so that many
different names cannot fill the memory.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Generic, TypeVar

from opentelemetry.metrics import Meter, MeterProvider, Observation

from taskq_core.telemetry import names
from taskq_core.telemetry.histograms import Labels, SparseHistograms, sparse_histograms
from taskq_core.telemetry.providers import meter_of, switch

V = TypeVar("V")

MAX_SERIES = 1000
"""Maximum number of sets of labels of each `ClientMetrics` and each `WorkerMetrics` object."""
OTHER = "_other"
"""Value of the labels queue, task and error for runs and tasks beyond `MAX_SERIES`."""

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
"""The buckets of OpenTelemetry's conventions in seconds, with additional long ones because tasks may run long."""


class RunOutcome(StrEnum):
    """How one run of a task ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    """The task will run again; the run used an attempt."""
    ARCHIVED = "archived"
    SNOOZED = "snoozed"
    """The task will run again; the run used no attempt."""
    WAITING = "waiting"
    """The task waits for a time, a signal or sub-tasks, and another run continues it."""
    DISCARDED = "discarded"
    EXPIRED = "expired"
    """The task was not started in time, and is archived or dropped."""
    REQUEUED = "requeued"
    """A worker that stops has requeued the task, without using an attempt."""
    LOST = "lost"
    """The lease expired, so another worker decides about the task."""


NOT_PROCESSED = frozenset((RunOutcome.SNOOZED, RunOutcome.WAITING, RunOutcome.REQUEUED, RunOutcome.LOST))
"""Outcomes of runs that used no attempt in this worker. Such runs are not counted as processed."""


class Instruments(dict[names.Metric, Any]):
    """The OpenTelemetry instruments of one meter, by metric. Each instrument is created at its first use.

    Args:
        meter: The meter.
        sparse: Creates histograms that give the SDK few durations, if the provider's exporter adds the others.
    """

    def __init__(self, meter: Meter, sparse: SparseHistograms | None) -> None:
        super().__init__()
        self._meter = meter
        self._sparse = sparse

    def __missing__(self, metric: names.Metric) -> Any:
        if metric.kind == "counter":
            made: Any = self._meter.create_counter(metric, metric.unit, metric.description)
        else:
            made = self._meter.create_histogram(
                metric, metric.unit, metric.description, explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S
            )
            if self._sparse is not None:
                made = self._sparse.add(metric, made, DURATION_BUCKETS_S)
        return self.setdefault(metric, made)

    def observe(self, metric: names.Metric, read: Callable[[], Iterable[Observation]]) -> None:
        """Create an observable gauge. Each export calls `read` for its current values."""
        self[metric] = self._meter.create_observable_gauge(metric, [lambda _: read()], metric.unit, metric.description)


class Meters:
    """Creates instruments for the current provider.

    Creates them again after a change of the provider. Any thread may use it.

    Args:
        provider: Replaces the global provider.
        begin: Called with new instruments.
    """

    def __init__(
        self, provider: MeterProvider | None, *, begin: Callable[[Instruments], None] = lambda _: None
    ) -> None:
        self._fixed = provider
        self._begin = begin
        # Provider and instruments are one attribute, so that no thread combines a new provider with old instruments.
        self._current: tuple[MeterProvider | None, Instruments | None] = (None, None)

    def current(self) -> Instruments | None:
        """Return the instruments of the current meter provider, None if no SDK is configured.

        The same instruments are returned until the provider changes.
        """
        provider = self._fixed or switch.meter_provider()
        known, instruments = self._current
        if provider is not known:
            meter = meter_of(provider)
            sparse = None if provider is None else sparse_histograms.get(provider)
            instruments = None if meter is None else Instruments(meter, sparse)
            self._current = (provider, instruments)
            if instruments is not None:
                self._begin(instruments)
        return instruments


class Series(Generic[V]):
    """Stores one value for each set of labels, at most `limit`. Further sets of labels share the value of `_other`.

    Args:
        limit: Maximum number of values.
        make: Creates a value from its labels.
    """

    def __init__(self, limit: int, make: Callable[..., V]) -> None:
        self._limit = limit
        self._make = make
        self._values: dict[tuple[str | None, ...], V] = {}

    def of(self, *labels: str | None) -> V:
        """Return the value for these labels. Create it if it does not exist."""
        value = self._values.get(labels)
        if value is None:
            if len(self._values) >= self._limit:
                labels = tuple(each if each is None or isinstance(each, RunOutcome) else OTHER for each in labels)
            value = self._values.get(labels) or self._values.setdefault(labels, self._make(*labels))
        return value


def task_labels(queue: str, task_type: str) -> Labels:
    """Return the labels of a task in taskq's own metrics."""
    return {names.QUEUE: queue, names.TASK_TYPE: task_type}
