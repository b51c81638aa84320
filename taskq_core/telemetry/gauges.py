"""Gauges: how queues, workers, schedulers and outboxes stand, read when somebody exports.

A process has one board. Workers and schedulers put a source on it while they run; an export asks all sources, in the
thread of whoever exports, so a source reads what its process knows and never asks Redis. Without an SDK nothing of this
runs.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from taskq_core.telemetry import names
from taskq_core.telemetry.metrics import MAX_SERIES, Meters

_logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """One value of a gauge."""

    name: str
    value: float
    labels: Mapping[str, str]


Source = Callable[[], Iterable[Reading]]

_GAUGES = {
    names.QUEUE_SIZE: ("{task}", "Tasks of a queue, by state."),
    names.QUEUE_LATENCY: ("s", "How long the task that is next to run has been pending; 0 where none is."),
    names.QUEUE_PAUSED: ("{queue}", "1 while a queue is paused, else 0."),
    names.WORKER_SLOTS: ("{slot}", "Most tasks that this worker runs at the same time."),
    names.WORKER_BUSY: ("{slot}", "Tasks that this worker runs."),
    names.WORKER_CONNECTED: ("{worker}", "1 while Redis answers this worker, else 0."),
    names.SCHEDULER_LEADING: ("{scheduler}", "1 while this scheduler enqueues what is due, else 0."),
    names.OUTBOX_ROWS: ("{row}", "Tasks that wait in a database to be sent."),
    names.OUTBOX_AGE: ("s", "How long the oldest of them has waited; 0 where none does."),
}


class GaugeBoard:
    """The gauges of a process, and who fills them. Any thread may use it.

    Args:
        meter_provider: Takes this one instead of the global one.
        max_series: Most values of one gauge; further ones are left out.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None, max_series: int = MAX_SERIES) -> None:
        self._meters = Meters(meter_provider)
        self._max_series = max_series
        self._lock = threading.Lock()
        self._sources: tuple[Source, ...] = ()
        self._has_complained = False

    def add(self, source: Source) -> None:
        """Ask a source from now on."""
        with self._lock:
            self._sources += (source,)
        self.refresh()

    def remove(self, source: Source) -> None:
        """Ask a source no more; nothing if it is not asked."""
        with self._lock:
            self._sources = tuple(each for each in self._sources if each != source)

    @property
    def is_active(self) -> bool:
        """Whether an SDK was there at the last look."""
        return self._meters.meter is not None

    def refresh(self) -> None:
        """Look for another provider, and make the gauges there. To be called now and then."""
        with self._lock:
            meter = self._meters.meter if self._meters.has_changed() else None
            if meter is not None:
                for name, (unit, description) in _GAUGES.items():
                    meter.create_observable_gauge(name, [partial(self._read, name)], unit, description)

    def _read(self, name: str, _: CallbackOptions) -> Iterable[Observation]:
        found: list[Observation] = []
        for source in self._sources:
            try:
                found += [Observation(each.value, each.labels) for each in source() if each.name == name]
            except Exception:
                if not self._has_complained:
                    self._has_complained = True
                    _logger.exception("a gauge could not be read (logged once)")
        return found[: self._max_series]


gauges = GaugeBoard()
"""The board of this process."""
