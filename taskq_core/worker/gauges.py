"""What a worker tells of itself, of queues and of outboxes whenever metrics are exported.

How a queue stands is told by the worker whose janitor leads on it, from the sample that it takes every ten seconds; the
outbox by the worker whose relay leads. So each is told once, however many workers run, and nothing is asked of Redis
for it. What was not looked at lately is not told: another worker leads now.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from taskq_core.clock import Clock
from taskq_core.telemetry import GaugeBoard, Reading, WorkerMetrics, names
from taskq_core.wire.samples import SAMPLE_S, QueueSample
from taskq_core.worker.health import Pulse

if TYPE_CHECKING:
    from taskq_core.worker.relay import Relay

REFRESH_S = 5.0
"""Seconds between two looks whether an SDK was configured."""
KEPT_S = 3.5 * SAMPLE_S
"""Seconds for which a sample is told."""


class _Tells(Protocol):
    def readings(self) -> Iterable[Reading]: ...


class WorkerGauges:
    """Fills the board of this process while a worker runs.

    Args:
        board: The board.
        clock: Source of monotonic time.
        metrics: Counts what the worker runs; it is told here of an SDK that came later.
        pulse: Returns how the worker is.
        relays: Send what waits in outboxes.
        scheduler: Runs inside the worker, None for none.
    """

    def __init__(
        self,
        board: GaugeBoard,
        clock: Clock,
        *,
        metrics: WorkerMetrics,
        pulse: Callable[[], Pulse],
        relays: "Sequence[Relay]",
        scheduler: _Tells | None,
    ) -> None:
        self._board = board
        self._clock = clock
        self._metrics = metrics
        self._pulse = pulse
        self._relays = relays
        self._scheduler = scheduler
        self._stood: dict[str, tuple[QueueSample, float]] = {}

    def open(self) -> None:
        """Tell from now on."""
        self._board.add(self.read)

    def close(self) -> None:
        """Tell no more."""
        self._board.remove(self.read)

    async def work(self) -> float:
        """Notice an SDK that was configured since; return the seconds until the next look."""
        self._metrics.flush()
        self._board.refresh()
        return REFRESH_S

    def stood(self, queue: str, sample: QueueSample) -> None:
        """Take note of how a queue stands."""
        self._stood[queue] = (sample, self._clock.monotonic())

    def read(self) -> Iterable[Reading]:
        """Return what is known now. From any thread."""
        pulse = self._pulse()
        yield Reading(names.WORKER_SLOTS, pulse.concurrency, {})
        yield Reading(names.WORKER_BUSY, pulse.running, {})
        yield Reading(names.WORKER_CONNECTED, int(not pulse.is_failing), {})
        if self._scheduler is not None:
            yield from self._scheduler.readings()
        now = self._clock.monotonic()
        for queue, (sample, at) in list(self._stood.items()):
            if now - at <= KEPT_S:
                yield from _readings(queue, sample)
        for relay in self._relays:
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
