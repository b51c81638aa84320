"""Gauges of queues, workers, schedulers and outboxes, which are read at each export.

A process has one `GaugeBoard`. Workers and schedulers add a source to it while they run. An export calls all sources in
the exporter's thread, so a source only returns values that the process already has, and sends nothing to Redis.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from opentelemetry.metrics import MeterProvider, Observation

from taskq_core.telemetry import names
from taskq_core.telemetry.metrics import MAX_SERIES, Meters

_logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """One value of a gauge, with its labels."""

    name: str
    value: float
    labels: Mapping[str, str]


Source = Callable[[], Iterable[Reading]]


class GaugeBoard:
    """The gauges of a process and their sources. Any thread may use it.

    Args:
        meter_provider: Replaces the global provider.
        max_series: Maximum number of values of one gauge; further values are left out.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None, max_series: int = MAX_SERIES) -> None:
        self._meters = Meters(meter_provider)
        self._max_series = max_series
        self._lock = threading.Lock()
        self._sources: tuple[Source, ...] = ()
        self._has_complained = False

    def add(self, source: Source) -> None:
        """Add a source of gauge values. Each export calls it."""
        with self._lock:
            self._sources += (source,)
        self.refresh()

    def remove(self, source: Source) -> None:
        """Remove a source, so that exports no longer call it."""
        with self._lock:
            self._sources = tuple(each for each in self._sources if each != source)

    @property
    def is_active(self) -> bool:
        """Whether an OpenTelemetry SDK exports the gauges now."""
        return self._meters.current() is not None

    def refresh(self) -> None:
        """Create the gauges again if the OpenTelemetry provider has changed. Call this method regularly."""
        with self._lock:
            instruments = self._meters.current()
            if instruments is not None and not instruments:
                for metric in names.GAUGES:
                    instruments.observe(metric, partial(self._read, metric))

    def _read(self, metric: names.Metric) -> Iterable[Observation]:
        found: list[Observation] = []
        for source in self._sources:
            try:
                found += [Observation(each.value, each.labels) for each in source() if each.name == metric]
            except Exception:
                if not self._has_complained:
                    self._has_complained = True
                    _logger.exception("the current values of some gauges could not be read (logged once)")
        return found[: self._max_series]


gauges = GaugeBoard()
"""The gauges of this process, to which workers and schedulers add sources."""
