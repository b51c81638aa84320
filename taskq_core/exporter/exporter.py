"""One exporter: what is scraped, whatever asks for it."""

import asyncio
import gzip
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from taskq_core.app import TaskQ
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import RequestPlan, T, arun_plan
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.errors import BrokerAuthenticationError, BrokerError, BrokerUnavailableError
from taskq_core.exporter.config import ExporterConfig
from taskq_core.exporter.reading import QueueReading, Reading, read_fleet, read_names, read_queue, read_workers
from taskq_core.exporter.series import Series, build_info
from taskq_core.wire import Keys
from taskq_core.wire.slots import key_slot

logger = logging.getLogger("taskq.exporter")
R = TypeVar("R")

FRESH_S = 1.0
"""Seconds for which a reading serves further scrapes; one that failed, too."""
IMPATIENT_S = 1.0
"""Most seconds that a scrape waits for Redis after a reading that failed."""
MARGIN_S = 0.5
"""How much sooner than the scraper gives up a scrape is answered, so that `taskq_up 0` still gets there."""
_AT_A_TIME = 8
_TRIES = 3
_LEAST_S = 0.1
_COMPRESSED_FROM = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """What a scrape is answered with: bytes, and the headers that say what they are."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Counts:
    """What this exporter did."""

    scrapes: int = 0
    readings: int = 0
    failures: int = 0
    duration_s: float = 0.0


class _Page(Collector):
    """The series of one scrape."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Return them."""
        return iter(self._metrics)


class Exporter:
    """Tells how the queues of an application stand, in the words of Prometheus. Used on one event loop at a time.

    Args:
        app: The queue application whose store is read. Its connections stay open.
        config: How many labels there may be, and how long Redis may take; where to listen is not looked at.
        tells_process: Whether to tell of this process as well: memory, CPU time, open files, the garbage collector.
        clock: Source of monotonic time.
    """

    def __init__(
        self,
        app: TaskQ,
        config: ExporterConfig | None = None,
        *,
        tells_process: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config or ExporterConfig()
        self._app = app
        self._series = Series(max_queues=self._config.max_queues, max_types=self._config.max_types)
        self._clock = clock
        self._counts = _Counts()
        self._process = CollectorRegistry(auto_describe=False)
        if tells_process:
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self._process)
        self._running: asyncio.Task[Reading | None] | None = None
        self._refused: set[str] = set()
        self._last: Reading | None = None
        self._last_at: float | None = None

    async def expose(self, *, accept: str = "", accept_encoding: str = "", wait_s: float | None = None) -> Exposition:
        """Return what a scrape is answered with; while Redis does not answer, `taskq_up 0` and what needs no Redis.

        Args:
            accept: The scraper's header `Accept`: text, or OpenMetrics.
            accept_encoding: Its header `Accept-Encoding`.
            wait_s: Seconds after which the scraper gives up, None if it does not say.
        """
        self._counts.scrapes += 1
        reading = await self.read(None if wait_s is None else wait_s - MARGIN_S)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page([*self._own(reading is not None), *self._process.collect()]))
        if reading is not None:
            registry.register(_Page(list(self._series.families(reading))))
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a header that cannot be read asks for nothing of its own
            encode, content_type = choose_encoder("")
        body = encode(registry)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if "gzip" in accept_encoding.lower() and len(body) >= _COMPRESSED_FROM:
            return Exposition(body=gzip.compress(body, 5), headers={**headers, "Content-Encoding": "gzip"})
        return Exposition(body=body, headers=headers)

    async def read(self, wait_s: float | None = None) -> Reading | None:
        """Return how all stands, None if Redis does not tell in time. Who asks at the same time shares one reading."""
        loop = asyncio.get_running_loop()
        if self._last_at is not None and self._clock.monotonic() - self._last_at < FRESH_S:
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
            return None  # it goes on, for those who ask next

    async def close(self) -> None:
        """End a reading that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _read(self) -> Reading | None:
        began = self._clock.monotonic()
        self._counts.readings += 1
        was_up = self._last is not None or self._last_at is None
        found: Reading | None = None
        try:
            async with asyncio.timeout(self._config.timeout_s):
                found = await self._ask()
            self._tell_refused(found)
        except (BrokerError, TimeoutError) as error:
            if was_up:
                words = str(error) or f"no answer within {self._config.timeout_s:g} s"
                logger.warning("queues cannot be read, and scrapes say so until they can: %s", words)
        finally:  # also when it was cancelled, with the event loop of whoever asked
            self._last, self._last_at = found, self._clock.monotonic()
            self._counts.duration_s = self._last_at - began
            self._counts.failures += found is None
        if found is not None and not was_up:
            logger.info("queues can be read again")
        return found

    async def _ask(self) -> Reading:
        names = await self._run_plan(read_names)
        found: list[QueueReading] = []
        refused: dict[str, BrokerAuthenticationError] = {}

        async def one(name: str) -> None:
            try:
                found.append(await self._run_plan(partial(read_queue, name=name)))
            except BrokerAuthenticationError as error:
                refused[name] = error

        await _all(partial(one, name) for name in names)
        if refused and not found:
            raise refused[min(refused)]
        servers, schedulers = await self._run_plan(read_fleet)
        by_slot: dict[int, list[str]] = {}
        for key in servers:
            by_slot.setdefault(key_slot(key) if self._app.runtime.endpoint.is_cluster else 0, []).append(key)
        workers = await _all(partial(self._run_plan, partial(read_workers, names=part)) for part in by_slot.values())
        return Reading(
            queues=sorted(found, key=lambda each: each.info.name),
            refused={name: str(error) for name, error in refused.items()},
            workers=[each for part in workers for each in part],
            schedulers=schedulers,
        )

    def _tell_refused(self, found: Reading) -> None:
        """Complain once of what this user may not ask."""
        refused = dict(found.refused)
        for each in found.queues:
            for words in each.refused.values():
                refused.setdefault(each.info.name, words)
        fresh = sorted(refused.keys() - self._refused)
        if fresh:
            logger.warning("not all is told of queues %s: %s", ", ".join(map(repr, fresh[:10])), refused[fresh[0]])
        self._refused = set(refused)

    async def _run_plan(self, read: Callable[[Keys], RequestPlan[T]]) -> T:
        return await arun_plan(read(self._app.runtime.keys), self._send)

    async def _send(self, operation: Operation[Any]) -> Any:
        """Ask at most three times, at once: connections that Redis closed are no reason to say that it is away."""
        for _ in range(_TRIES - 1):
            try:
                return await self._app.runtime.async_runner.run(operation)
            except BrokerUnavailableError:
                continue
        return await self._app.runtime.async_runner.run(operation)

    def _own(self, is_up: bool) -> Iterator[Metric]:
        counts = self._counts
        yield GaugeMetricFamily("taskq_up", "1 if Redis told how the queues stand, else 0.", value=float(is_up))
        yield build_info()
        yield CounterMetricFamily("taskq_exporter_scrapes", "Scrapes of this exporter.", value=counts.scrapes)
        yield CounterMetricFamily(
            "taskq_exporter_readings", "Times that this exporter read Redis; scrapes share them.", value=counts.readings
        )
        yield CounterMetricFamily(
            "taskq_exporter_failures", "Readings that Redis refused, or did not answer in time.", value=counts.failures
        )
        yield GaugeMetricFamily(
            "taskq_exporter_reading_seconds", "How long the last reading took.", value=counts.duration_s
        )


async def _all(works: Iterable[Callable[[], Awaitable[R]]]) -> list[R]:
    """Return what pieces of work return, in their order; some go on at the same time. The first error ends all."""
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def one(work: Callable[[], Awaitable[R]]) -> R:
        async with turns:
            return await work()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(work)) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # the others were cancelled
    return [task.result() for task in tasks]
