"""Publish metrics of a worker, of queues and of outboxes whenever metrics are exported.

The worker that leads a queue publishes the sample that it stores every ten seconds. The worker whose relay leads an
outbox publishes its size. So each value is published once for any number of workers, and costs no request. Old values
are not published, because another worker leads now.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from taskq_core.telemetry import Reading, gauges, names
from taskq_core.wire.samples import SAMPLE_S, QueueSample
from taskq_core.worker.context import WorkerContext, WorkerService
from taskq_core.worker.health import Pulse

if TYPE_CHECKING:
    from taskq_core.scheduler import Scheduler
    from taskq_core.worker.relay import Relay

REFRESH_S = 5.0
"""Seconds between two checks for a configured OpenTelemetry SDK."""
KEPT_S = 3.5 * SAMPLE_S
"""Age in seconds up to which a sample of a queue is published."""


class WorkerGauges(WorkerService):
    """Publishes gauges of this process while a worker runs.

    Args:
        context: The worker.
        pulse: Returns the state of the worker.
        scheduler: Scheduler inside the worker, or None.
    """

    name = "gauges"

    def __init__(self, context: WorkerContext, pulse: Callable[[], Pulse], scheduler: "Scheduler | None") -> None:
        super().__init__(context)
        self._pulse = pulse
        self._scheduler = scheduler
        self.relays: Sequence[Relay] = ()
        """Relays of the worker, whose outboxes are published."""

    def open(self) -> None:
        """Add the gauges of this worker to the gauges of the process."""
        gauges.add(self.read)

    def close(self) -> None:
        """Remove the gauges of this worker from the gauges of the process."""
        gauges.remove(self.read)

    async def work(self) -> float:
        """Check for an OpenTelemetry SDK that was configured later. Return the seconds until the next call."""
        self._context.metrics.flush()
        gauges.refresh()
        return REFRESH_S

    def read(self) -> Iterable[Reading]:
        """Return the current values of all gauges. Callable from any thread."""
        pulse = self._pulse()
        yield Reading(names.WORKER_SLOTS, pulse.concurrency, {})
        yield Reading(names.WORKER_BUSY, pulse.running, {})
        yield Reading(names.WORKER_CONNECTED, int(not pulse.is_failing), {})
        if self._scheduler is not None:
            yield from self._scheduler.readings()
        now = self._context.clock.monotonic()
        for queue, (sample, at) in list(self._context.samples.items()):
            if now - at <= KEPT_S:
                yield from _readings(queue, sample)
        for relay in self.relays:
            figures = relay.figures
            if figures is not None:
                labels = {names.OUTBOX_DATABASE: relay.table_name}
                yield Reading(names.OUTBOX_ROWS, figures.waiting, labels)
                yield Reading(names.OUTBOX_AGE, figures.oldest_s or 0.0, labels)


def _readings(queue: str, sample: QueueSample) -> Iterable[Reading]:
    labels = {names.QUEUE: queue}
    for state in ("active", "pending", "aggregating", "scheduled", "retry", "archived", "completed"):
        yield Reading(names.QUEUE_SIZE, getattr(sample, state), {**labels, names.QUEUE_STATE: state})
    latency_s = 0.0 if sample.latency_ms is None else sample.latency_ms / 1000
    yield Reading(names.QUEUE_LATENCY, latency_s if math.isfinite(latency_s) else 0.0, labels)
    yield Reading(names.QUEUE_PAUSED, sample.is_paused, labels)
