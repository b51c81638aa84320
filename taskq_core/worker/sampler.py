"""Store samples of queues for charts.

The worker that leads a queue stores a sample every ten seconds, and every minute while nothing changes there. Times are
from Redis's clock, and nothing is written per task. While no worker serves a queue, charts have a gap.
"""

import logging
import math
from collections.abc import Callable, Mapping

from taskq_core.broker.operations.presence import keys_of_index, list_alive, read_server
from taskq_core.broker.operations.samples import sample
from taskq_core.broker.operations.views import count_tasks, estimate_memory, has_queue
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError, WireFormatError
from taskq_core.service.loop import jittered
from taskq_core.telemetry import gauges
from taskq_core.wire import QueueKeys, ServerInfo, TaskState
from taskq_core.wire.durations import NS_PER_S
from taskq_core.wire.samples import LEVELS, REST_S, SAMPLE_S, Level, QueueSample
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService

logger = logging.getLogger("taskq.worker")

MEMORY_EVERY_S = 60
"""Seconds between two estimates of a queue's memory. Samples in between repeat the last estimate."""
WORKERS_MOST = 1000
"""Maximum number of workers whose load is read."""
_MEMORY_SAMPLES = 5
READ_S = 1.0
"""Maximum wait for the leader to read the queue, in seconds."""
SOON_S = 0.5
"""Seconds until the next try while the queue is not registered."""


class Fleet:
    """Reads how busy the workers of each queue are, at most every ten seconds.

    Args:
        context: The worker.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._keys = context.keys
        self._runner = context.runner
        self._clock = context.clock
        self._read_at: float | None = None
        self._by_queue: Mapping[str, tuple[int, int]] = {}

    async def of(self, queue: str) -> tuple[int, int]:
        """Return how many tasks the workers of a queue run, and how many they can run."""
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= SAMPLE_S * 0.9:
            self._read_at = now
            self._by_queue = await self._read()
        return self._by_queue.get(queue, (0, 0))

    async def _read(self) -> Mapping[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        members = await self._runner.run(list_alive(self._keys.servers, skip=0, count=WORKERS_MOST))
        for key in keys_of_index(self._keys.servers, members):
            data = await self._runner.run(read_server(key))
            try:
                info = ServerInfo.decode(data) if data else None
            except WireFormatError:
                continue
            if info is None:
                continue
            for name in info.queues:
                busy, slots = found.get(name, (0, 0))
                found[name] = (busy + info.active_worker_count, slots + info.concurrency)
        return found


class Sampler(QueueService):
    """Stores samples of one queue while this worker leads it.

    Args:
        context: The worker.
        queue: Key names of the queue.
        leadership: The leadership of the queue.
        fleet: Reads how busy the workers are.
        on_sample: Called with each sample of the finest resolution.
    """

    name = "sampler"

    def __init__(
        self,
        context: WorkerContext,
        queue: QueueKeys,
        leadership: Leadership,
        fleet: Fleet,
        on_sample: Callable[[str, QueueSample], None] = lambda queue, sample: None,
    ) -> None:
        super().__init__(context, queue, leadership)
        self._fleet = fleet
        self._on_sample = on_sample
        self._longest_ms: dict[Level, int | None] = dict.fromkeys(LEVELS)
        self._last_s = 0
        self._steps: dict[Level, int] = {}
        self._memory_kib: int | None = None
        self._memory_at_s: int | None = None

    async def work(self) -> float:
        """Store a sample while this worker leads. Return the seconds until the next call."""
        self._changes.clear()
        if not self._leadership.leads:
            await self._changes.wait_for(SAMPLE_S)
            return 0.0
        if self._leadership.unchanged_since == math.inf:
            await self._changes.wait_for(READ_S)  # the leader is about to read the queue, and then notices changes
        clock = self._context.clock
        sampled_at = clock.monotonic()
        await self.sample()
        if not self._last_s:
            return jittered(SOON_S)  # this worker is about to register the queue
        # While nothing changes, one sample a minute is enough. A change ends the rest at once.
        while self._is_at_rest(sampled_at) and clock.monotonic() - sampled_at < REST_S - SAMPLE_S:
            self._changes.clear()
            await self._changes.wait_for(SAMPLE_S)
        return SAMPLE_S - self._context.redis_clock.time() % SAMPLE_S + jittered(0.1)

    def _is_at_rest(self, since: float) -> bool:
        return self._leadership.unchanged_since <= since and not gauges.is_active

    async def sample(self) -> None:
        """Store a sample, unless these ten seconds have one or the queue was removed."""
        queue = self._queue
        counts = await self._runner.run(count_tasks(queue))
        now_s = counts.now_ns // NS_PER_S
        latency_ms = None if counts.latency_s is None else int(counts.latency_s * 1000)
        for level, longest in self._longest_ms.items():
            if latency_ms is not None:
                self._longest_ms[level] = latency_ms if longest is None else max(longest, latency_ms)
        if now_s // SAMPLE_S == self._last_s // SAMPLE_S or not await self._runner.run(
            has_queue(self._context.keys.queues, queue.name)
        ):
            return
        busy, slots = await self._fleet.of(queue.name)
        sizes = counts.sizes
        memory_kib = await self._memory(now_s)
        samples = {
            level: QueueSample(
                at_s=now_s,
                active=sizes[TaskState.ACTIVE],
                pending=sizes[TaskState.PENDING],
                aggregating=sizes[TaskState.AGGREGATING],
                scheduled=sizes[TaskState.SCHEDULED],
                retry=sizes[TaskState.RETRY],
                archived=sizes[TaskState.ARCHIVED],
                completed=sizes[TaskState.COMPLETED],
                latency_ms=longest,
                processed=counts.processed,
                failed=counts.failed,
                memory_kib=memory_kib,
                busy=busy,
                slots=slots,
                is_paused=int(counts.is_paused),
            )
            for level, longest in self._longest_ms.items()
        }
        self._on_sample(queue.name, samples[LEVELS[0]])
        samples = {level: each for level, each in samples.items() if self._steps.get(level) != now_s // level.step_s}
        codes = await self._runner.run(sample(queue, samples))
        self._last_s = now_s
        for level, code in zip(samples, codes, strict=True):
            if code >= 0:  # stored by this worker or by another
                self._steps[level] = now_s // level.step_s
            if code == 1:
                self._longest_ms[level] = None
            elif code < 0:
                logger.error(
                    "samples cannot be stored: the key %s has a wrong type; 'taskq doctor --fix' moves it aside",
                    queue.samples(level.step_s),
                    extra={"queue": queue.name},
                )

    async def _memory(self, now_s: int) -> int | None:
        if self._memory_at_s is None or abs(now_s - self._memory_at_s) >= MEMORY_EVERY_S:
            self._memory_at_s = now_s
            try:
                used = await self._runner.run(estimate_memory(self._queue, samples=_MEMORY_SAMPLES))
            except (BrokerReplyError, BrokerAuthenticationError):
                self._memory_kib = None  # Redis has no MEMORY USAGE, or forbids it; the rest of the sample is valid
            else:
                self._memory_kib = used // 1024
        return self._memory_kib
