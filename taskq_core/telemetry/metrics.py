"""What clients' and workers' metrics have in common: labels, buckets, and whose SDK is in force.

Instruments are OpenTelemetry's; without an SDK nothing of this runs, and an SDK configured later is noticed (by a
client with the next call, by a worker within seconds). Every instrument keeps at most `MAX_SERIES` sets of labels;
whatever comes beyond is counted under `_other`, so a flood of names cannot fill memory.

Gauges are the business of `gauges`.
"""

from enum import StrEnum

from opentelemetry.metrics import Meter, MeterProvider, NoOpMeter

from taskq_core.telemetry import names
from taskq_core.telemetry.providers import (
    INSTRUMENTATION_NAME,
    instrumentation_version,
    is_sdk,
    switch,
)

MAX_SERIES = 1000
"""Sets of labels that are kept apart, per `ClientMetrics` and per `WorkerMetrics`."""
OTHER = "_other"
"""Stands for queue, type and error of what is beyond `MAX_SERIES`."""

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
    """The lease ended: what became of the task is another worker's to say."""


NOT_PROCESSED = frozenset((Outcome.SNOOZED, Outcome.REQUEUED, Outcome.LOST))
"""Ends of runs that used no attempt here, so that they are not counted as processed."""


class Meters:
    """Follows the provider in force and makes the instruments anew when it changes."""

    __slots__ = ("_fixed", "_provider", "meter")

    def __init__(self, provider: MeterProvider | None) -> None:
        self._fixed = provider
        self._provider: MeterProvider | None = None
        self.meter: Meter | None = None

    def has_changed(self) -> bool:
        """Look for another provider; if there is one, `meter` is its meter, or None if it records nothing."""
        provider = self._fixed or switch.meter_provider()
        if provider is self._provider:
            return False
        self.meter = None
        if provider is not None and is_sdk(provider):
            meter = provider.get_meter(INSTRUMENTATION_NAME, instrumentation_version(), names.schema_url())
            self.meter = None if isinstance(meter, NoOpMeter) else meter
        self._provider = provider
        return True
