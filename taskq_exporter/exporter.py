"""The exporter: it answers scrapes of Prometheus, on a separate port or inside a web framework."""

import asyncio
import gzip
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from taskq_core import BrokerError, TaskQ
from taskq_core.inspector import MetricsSnapshot, metrics_snapshot
from taskq_exporter.config import ExporterConfig
from taskq_exporter.series import Series, build_info

logger = logging.getLogger("taskq.exporter")

FRESH_S = 1.0
"""Seconds for which further scrapes use the last reading of Redis, even if it failed."""
IMPATIENT_S = 1.0
"""Maximum seconds that a scrape waits for Redis if the last reading failed."""
MARGIN_S = 0.5
"""The exporter answers this many seconds before the scraper's timeout, so that `taskq_up 0` still arrives."""
_LEAST_S = 0.1
_COMPRESSED_FROM = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """The HTTP response to a scrape: the body, and its headers."""

    body: bytes
    headers: Mapping[str, str]


class _Page(Collector):
    """The metrics of one scrape."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of this scrape to the Prometheus client library."""
        return iter(self._metrics)


class Exporter:
    """Answers scrapes of Prometheus with metrics of all queues. Used on one event loop at a time.

    Args:
        app: The queue application whose Redis is read. Its connections stay open.
        config: Limits of labels, and the timeout. The address in it is not used.
        with_process: Whether to add metrics of this process: memory, CPU time, open files, garbage collector.
        clock: Returns monotonic time in seconds.
    """

    def __init__(
        self,
        app: TaskQ,
        config: ExporterConfig | None = None,
        *,
        with_process: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config or ExporterConfig()
        self._app = app
        self._series = Series(max_queues=self._config.max_queues, max_types=self._config.max_types)
        self._clock = clock
        self._scrapes = self._readings = self._failures = 0
        self._duration_s = 0.0
        self._process = CollectorRegistry(auto_describe=False)
        if with_process:
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self._process)
        self._running: asyncio.Task[MetricsSnapshot | None] | None = None
        self._refused: set[str] = set()
        self._last: MetricsSnapshot | None = None
        self._last_at: float | None = None
        self._has_logged_failure = False
        self.is_waiting = False
        """Whether the process waits for Redis after its start, and has logged this. Then failures are not logged."""

    async def expose(self, *, accept: str = "", accept_encoding: str = "", wait_s: float | None = None) -> Exposition:
        """Return the answer to a scrape. If Redis does not answer, it contains `taskq_up 0` and no queue.

        Args:
            accept: The scraper's header `Accept`: text, or OpenMetrics.
            accept_encoding: The scraper's header `Accept-Encoding`.
            wait_s: The scraper's timeout in seconds, None if unknown.
        """
        self._scrapes += 1
        reading = await self.read(None if wait_s is None else wait_s - MARGIN_S)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page([*self._own(reading is not None), *self._process.collect()]))
        if reading is not None:
            registry.register(_Page(list(self._series.families(reading))))
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the scraper sent an invalid `Accept` header
            encode, content_type = choose_encoder("")
        body = encode(registry)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if "gzip" in accept_encoding.lower() and len(body) >= _COMPRESSED_FROM:
            return Exposition(body=gzip.compress(body, 5), headers={**headers, "Content-Encoding": "gzip"})
        return Exposition(body=body, headers=headers)

    async def read(self, wait_s: float | None = None) -> MetricsSnapshot | None:
        """Read the figures of all queues from Redis. Return None on timeout. Simultaneous callers share one reading."""
        loop = asyncio.get_running_loop()
        if self._last_at is not None and self._clock() - self._last_at < FRESH_S:
            return self._last
        if self._running is None or self._running.done() or self._running.get_loop() is not loop:
            self._running = loop.create_task(self._read())
        patience_s = None if wait_s is None else max(_LEAST_S, wait_s)
        if self._last_at is not None and self._last is None:
            patience_s = min(IMPATIENT_S, math.inf if patience_s is None else patience_s)
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(self._running)
        except TimeoutError:
            return None  # reading Redis continues in the background, for the next scrape

    async def close(self) -> None:
        """Cancel a running reading of Redis."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _read(self) -> MetricsSnapshot | None:
        began = self._clock()
        self._readings += 1
        found: MetricsSnapshot | None = None
        try:
            async with asyncio.timeout(self._config.timeout_s):
                found = await metrics_snapshot(self._app)
            self._log_refused(found)
        except (BrokerError, TimeoutError) as error:
            if not self._has_logged_failure and not self.is_waiting:
                self._has_logged_failure = True
                words = str(error) or f"no answer within {self._config.timeout_s:g} s"
                logger.warning("queues cannot be read; scrapes return taskq_up 0: %s", words)
        finally:  # also after a cancellation, for example when the caller's event loop closes
            self._last, self._last_at = found, self._clock()
            self._duration_s = self._last_at - began
            self._failures += found is None
        if found is not None and self._has_logged_failure:
            self._has_logged_failure = False
            logger.info("queues can be read again")
        return found

    def _log_refused(self, found: MetricsSnapshot) -> None:
        """Log once which queues the Redis user may not read completely."""
        refused = dict(found.refused)
        for each in found.queues:
            for words in each.refused.values():
                refused.setdefault(each.info.name, words)
        fresh = sorted(refused.keys() - self._refused)
        if fresh:
            logger.warning(
                "metrics of queues %s are incomplete: %s", ", ".join(map(repr, fresh[:10])), refused[fresh[0]]
            )
        self._refused = set(refused)

    def _own(self, is_up: bool) -> Iterator[Metric]:
        yield GaugeMetricFamily("taskq_up", "1 if Redis answered, else 0.", value=float(is_up))
        yield build_info()
        for name, words, value in (
            ("scrapes", "Scrapes of this exporter.", self._scrapes),
            ("readings", "Readings of Redis. Scrapes share them.", self._readings),
            ("failures", "Readings that Redis refused or did not answer in time.", self._failures),
        ):
            yield CounterMetricFamily(f"taskq_exporter_{name}", words, value=value)
        yield GaugeMetricFamily(
            "taskq_exporter_reading_seconds", "Duration of the last reading.", value=self._duration_s
        )
