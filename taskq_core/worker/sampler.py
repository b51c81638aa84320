"""Store samples of queues (sizes, counters and memory) for charts.

The worker that leads a queue stores a sample every ten seconds, and every minute while nothing changes in the queue.
Times are from Redis's clock, and nothing is written per task. While no worker serves a queue, charts have a gap.
"""

import logging
import math
import random

from taskq_core.broker.operations.samples import sample
from taskq_core.broker.operations.views import count_tasks, estimate_memory, has_queue
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError
from taskq_core.service.loop import jittered
from taskq_core.telemetry import gauges
from taskq_core.wire import QueueKeys, TaskState
from taskq_core.wire.durations import NS_PER_S
from taskq_core.wire.samples import LEVELS, REST_MOST_S, REST_S, SAMPLE_S, Level, QueueSample
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService

logger = logging.getLogger("taskq.worker")

MEMORY_EVERY_S = 60
"""Seconds between two estimates of a queue's memory. Samples between two estimates repeat the last estimate."""
_MEMORY_SAMPLES = 5
READ_S = 1.0
"""Maximum seconds to wait until this worker, as leader, has read the queue."""
SOON_S = 0.5
"""Seconds until the next try while the queue is not registered."""


class Sampler(QueueService):
    """Stores samples of one queue while this worker leads it."""

    name = "sampler"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self._longest_ms: dict[Level, int | None] = dict.fromkeys(LEVELS)
        self._last_s = 0
        self._offset_s, self._rest_s = jittered(0.1), float(REST_S)
        if context.pace > 1:  # spread the samples of many queues, so that they need no additional connections
            self._offset_s = random.uniform(0.1, 0.8 * SAMPLE_S)  # noqa: S311 - jitter, no secret
            self._rest_s = random.uniform(SAMPLE_S, min(REST_S * context.pace, REST_MOST_S))  # noqa: S311 - as above
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
            # `unchanged_since` is unknown until the leader has read the queue for the first time.
            await self._changes.wait_for(READ_S)
        sampled_at = self._clock.monotonic()
        await self.sample()
        if not self._last_s:
            return jittered(SOON_S)  # the queue is not registered in Redis yet
        # While the queue does not change, one sample a minute is enough. A change ends the wait at once.
        rest_s, self._rest_s = self._rest_s, min(REST_S * self._context.pace, REST_MOST_S)
        while self._is_at_rest(sampled_at) and self._clock.monotonic() - sampled_at < rest_s - SAMPLE_S:
            self._changes.clear()
            await self._changes.wait_for(SAMPLE_S)
            self._publish_again(sampled_at)
        return SAMPLE_S - self._context.redis_clock.time() % SAMPLE_S + self._offset_s

    def _is_at_rest(self, since: float) -> bool:
        return self._leadership.unchanged_since <= since and (not gauges.is_active or self._is_constant)

    @property
    def _is_constant(self) -> bool:
        """Whether the figures stay the same while the queue does not change: the latency of pending tasks grows."""
        known = self._context.samples.get(self._queue.name)
        return known is not None and not known[0].pending

    def _publish_again(self, since: float) -> None:
        """Let the gauges show the last sample as a new one, if the queue has not changed since."""
        known = self._context.samples.get(self._queue.name)
        if known is not None and self._is_at_rest(since):
            self._context.samples[self._queue.name] = (known[0], self._clock.monotonic())

    async def sample(self) -> None:
        """Store a sample, unless the current interval of ten seconds already has a sample or the queue was removed."""
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
        busy, slots = await self._context.fleet.of(queue.name)
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
        self._context.samples[queue.name] = (samples[LEVELS[0]], self._clock.monotonic())
        samples = {level: each for level, each in samples.items() if self._steps.get(level) != now_s // level.step_s}
        codes = await self._runner.run(sample(queue, samples))
        self._last_s = now_s
        for level, code in zip(samples, codes, strict=True):
            if code >= 0:  # the sample is stored, by this or another worker
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
                self._memory_kib = None  # Redis has no MEMORY USAGE, or forbids it: store the sample without memory
            else:
                self._memory_kib = used // 1024
        return self._memory_kib
