"""Read samples of queues over time, for charts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from taskq_core.broker.operations import diagnosis
from taskq_core.broker.operations import samples as sample_ops
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerReplyError, ConfigurationError
from taskq_core.inspector import error_rate
from taskq_core.settings import check_whole
from taskq_core.views.lines import Points
from taskq_core.wire import Keys, TaskState
from taskq_core.wire.samples import LEVELS, REST_MOST_S, SAMPLE_S, Level, QueueSample

LONGEST_SPAN = timedelta(seconds=LEVELS[-1].span_s)
"""Maximum age of stored samples."""
POINTS = 360
"""Default maximum number of samples in the series of a queue."""
_POINTS_MOST = 2000
_GAP_STEPS = 3
_AT_REST = (
    *("active", "pending", "aggregating", "scheduled", "retry", "archived", "completed"),
    *("processed", "failed", "is_paused"),
)
"""Fields of `QueueSample`. A queue was idle between two samples if all these fields are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A sample: the state of a queue at one time, and the number of its runs since the previous sample.

    Attributes:
        at: Time of the sample, by Redis's clock.
        since: Time since the previous sample. None for the first one.
        is_after_gap: Whether samples are missing before it.
        sizes: Number of tasks by state, in the order of `STATES`.
        latency: How long the next task to run had been pending. None if no task was pending.
        memory: Approximate size of the queue in Redis in bytes. None if it is unknown.
        is_paused: Whether the queue was paused.
        processed: Number of runs since the previous sample, including failed runs.
        failed: Number of failed runs since the previous sample.
        busy: Number of running tasks, of any queue, on the workers that serve this queue. For merged samples, the mean
            of their values.
        slots: Maximum number of tasks that these workers run at the same time. For merged samples, the mean of their
            values.
    """

    at: datetime
    since: timedelta | None
    is_after_gap: bool
    sizes: Mapping[TaskState, int]
    latency: timedelta | None
    memory: int | None
    is_paused: bool
    processed: int
    failed: int
    busy: float
    slots: float

    @property
    def size(self) -> int:
        """Tasks in all states together."""
        return sum(self.sizes.values())

    @property
    def processed_per_s(self) -> float | None:
        """Runs per second. None for the first sample."""
        return self.processed / self.since.total_seconds() if self.since else None

    @property
    def failed_per_s(self) -> float | None:
        """Failed runs per second. None for the first sample."""
        return self.failed / self.since.total_seconds() if self.since else None

    @property
    def error_rate(self) -> float | None:
        """Share of runs that failed, 0 to 1. None if there were no runs."""
        return error_rate(self.failed, self.processed)

    @property
    def utilisation(self) -> float | None:
        """Share of busy worker slots, 0 to 1. None if no worker served the queue."""
        return min(1.0, self.busy / self.slots) if self.slots else None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeries:
    """Samples of one queue.

    Attributes:
        name: Name of the queue.
        step: Time between two samples if none is missing.
        begin: Start of the requested period.
        end: End of the requested period.
        samples: The samples in the period, the oldest first. There are none while no worker served the queue.
    """

    name: str
    step: timedelta
    begin: datetime
    end: datetime
    samples: Sequence[Sample]

    def points(self, of: Callable[[Sample], float | None]) -> Points:
        """Return the points of a value of the samples, with None where samples are missing."""
        found: list[tuple[datetime, float | None]] = []
        for sample in self.samples:
            if sample.is_after_gap:
                found.append((sample.at, None))
            found.append((sample.at, of(sample)))
        return found


def read_samples(
    keys: Keys, names: Sequence[str], *, span: timedelta, until: datetime | None = None, points: int = POINTS
) -> RequestPlan[Sequence[QueueSeries]]:
    """Return the samples of queues, taken every ten seconds, for charts.

    Args:
        names: Names of the queues. A queue without samples has an empty series.
        span: Length of the period, a minute to 31 days. The samples with the finest resolution that covers this period
            are read.
        until: End of the period. None: now.
        points: Maximum number of samples of each queue, 10 to 2000.

    Raises:
        ConfigurationError: The span, its end or the number of points is out of bounds.
    """
    if not timedelta(minutes=1) <= span <= LONGEST_SPAN:
        raise ConfigurationError(f"span must be a minute to {LONGEST_SPAN.days} days, got {span}")
    check_whole("points", points, least=10, most=_POINTS_MOST)
    now = utc_datetime((yield from ask(diagnosis.read_time())))
    end = now if until is None else until
    if end.tzinfo is None:
        raise ConfigurationError("until must have a time zone, got a naive datetime")
    try:
        begin = end - span
    except OverflowError:
        raise ConfigurationError(f"until must be a moment of the last {LONGEST_SPAN.days} days, got {end}") from None
    age_s = (now - begin).total_seconds()
    level = next((each for each in LEVELS if each.span_s >= age_s), LEVELS[-1])
    count = max(1, min(level.most, int(age_s / level.step_s) + 3))
    merged = max(1, -(-int(span.total_seconds()) // (level.step_s * points)))
    step = timedelta(seconds=level.step_s * merged)
    series = []
    for name in names:
        try:
            stored = yield from ask(sample_ops.read_samples(keys.queue(name), level, count=count))
        except BrokerReplyError:
            stored = []  # a key of the wrong type, which `taskq doctor` reports
        samples = [each for each in _samples(stored, level) if begin <= each.at <= end]
        series.append(QueueSeries(name=name, step=step, begin=begin, end=end, samples=_merged(samples, step, merged)))
    return tuple(series)


def _samples(stored: Sequence[QueueSample], level: Level) -> list[Sample]:
    found = []
    before: QueueSample | None = None
    for each in stored:
        if before is not None and each.at_s <= before.at_s:
            continue  # skip a sample from the time before Redis's clock was set back
        found.append(_sample(each, before, level))
        before = each
    return found


def _sample(each: QueueSample, before: QueueSample | None, level: Level) -> Sample:
    between_s = None if before is None else each.at_s - before.at_s
    sizes = {
        TaskState.ACTIVE: each.active,
        TaskState.PENDING: each.pending,
        TaskState.AGGREGATING: each.aggregating,
        TaskState.SCHEDULED: each.scheduled,
        TaskState.RETRY: each.retry,
        TaskState.ARCHIVED: each.archived,
        TaskState.COMPLETED: each.completed,
    }
    return Sample(
        at=utc_datetime(each.at_s),
        since=None if between_s is None else timedelta(seconds=between_s),
        is_after_gap=between_s is not None and between_s > _longest_step(each, before, level),
        sizes=MappingProxyType(sizes),
        latency=None if each.latency_ms is None else timedelta(milliseconds=each.latency_ms),
        memory=None if each.memory_kib is None else each.memory_kib * 1024,
        is_paused=bool(each.is_paused),
        processed=0 if before is None else _grown(before.processed, each.processed),
        failed=0 if before is None else _grown(before.failed, each.failed),
        busy=each.busy,
        slots=each.slots,
    )


def _longest_step(each: QueueSample, before: QueueSample | None, level: Level) -> int:
    """Return the maximum seconds between two samples.

    If the time is longer, samples are missing. Samples of an idle queue are further apart.
    """
    longest = _GAP_STEPS * level.step_s
    is_at_rest = before is not None and all(getattr(before, name) == getattr(each, name) for name in _AT_REST)
    return max(longest, REST_MOST_S + 2 * SAMPLE_S) if is_at_rest else longest


def _grown(before: int, after: int) -> int:
    """Return the increase of a counter. A counter restarts at 0 when Redis is emptied or the queue removed."""
    return after - before if after >= before else after


def _merged(samples: Sequence[Sample], step: timedelta, count: int) -> Sequence[Sample]:
    """Merge neighboring samples into one.

    Its state is the state of the last sample, and its runs are the sum of all runs.
    """
    if count == 1:
        return tuple(samples)
    groups: dict[int, list[Sample]] = {}
    for each in samples:
        groups.setdefault(int(each.at.timestamp() // step.total_seconds()), []).append(each)
    return tuple(_together(group) for group in groups.values())


def _together(group: Sequence[Sample]) -> Sample:
    last = group[-1]
    spans = [each.since for each in group if each.since is not None]
    return Sample(
        at=last.at,
        since=sum(spans, timedelta()) if spans else None,
        is_after_gap=any(each.is_after_gap for each in group),
        sizes=last.sizes,
        latency=max((each.latency for each in group if each.latency is not None), default=None),
        memory=last.memory,
        is_paused=last.is_paused,
        processed=sum(each.processed for each in group),
        failed=sum(each.failed for each in group),
        busy=sum(each.busy for each in group) / len(group),
        slots=sum(each.slots for each in group) / len(group),
    )
