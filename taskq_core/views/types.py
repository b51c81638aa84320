"""Which types of tasks there are, and what became of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from taskq_core.broker.operations import diagnosis, samples, views
from taskq_core.broker.operations.views import ScanPlace
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerReplyError, ConfigurationError
from taskq_core.inspector import LISTED_STATES, UnreadableTask, error_rate
from taskq_core.inspector.known import known_queue
from taskq_core.inspector.look import read_task
from taskq_core.settings import check_whole
from taskq_core.wire import Keys, TaskState
from taskq_core.wire.tallies import HOUR_S, HOURS_KEPT, TypeCounters

HOURS_MOST = HOURS_KEPT - 2
"""Maximum number of hours for which runs by type are known."""
STATE_SCAN = 2000
"""Default for the maximum number of tasks of a state that are read for its counts by type."""
_SCAN_MOST = 10_000
_SCAN_STEP = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRuns:
    """What became of the runs of one task type.

    Attributes:
        name: Name of the task; `_other` for those beyond 200 types an hour.
        processed: Runs that used an attempt.
        failed: Of those, how many failed.
        archived: Of those, after how many the task was archived.
        total: How long they took together.
        median: How long half of them took at most; about, as are the next two. None where nothing ran.
        p95: How long 95 % of them took at most.
        p99: How long 99 % of them took at most.
    """

    name: str
    processed: int
    failed: int
    archived: int
    total: timedelta
    median: timedelta | None
    p95: timedelta | None
    p99: timedelta | None

    @property
    def error_rate(self) -> float | None:
        """The share of runs that failed, 0 to 1; None where nothing ran."""
        return error_rate(self.failed, self.processed)

    @property
    def mean(self) -> timedelta | None:
        """How long a run took on average; None where nothing ran."""
        return self.total / self.processed if self.processed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypesOverview:
    """What became of runs, by task type, the most first.

    Attributes:
        since: The full hour (UTC) from which on runs are counted.
        as_of: When this was read, by Redis's clock. Workers hand their numbers in every ten seconds.
        types: The types. Only workers of this library count by type, Go's do not.
    """

    since: datetime
    as_of: datetime
    types: Sequence[TypeRuns]


def read_types(keys: Keys, names: Sequence[str], *, hours: int = 24) -> RequestPlan[TypesOverview]:
    """Return outcomes and durations of the runs of queues, added up, by task type.

    Args:
        names: Names of the queues. A queue that does not exist counts as 0.
        hours: Full hours before the current hour, 0 to 24.

    Raises:
        ConfigurationError: The number of hours is out of bounds.
    """
    check_whole("hours", hours, least=0, most=HOURS_MOST)
    now_s = yield from ask(diagnosis.read_time())
    this_hour = int(now_s) // HOUR_S
    sums: dict[str, TypeCounters] = {}
    for name in names:
        for hour in range(this_hour - hours, this_hour + 1):
            try:
                found = yield from ask(samples.read_tally(keys.queue(name), hour))
            except BrokerReplyError:
                continue  # a key of another type, which the doctor reports
            for each, tally in found.items():
                sums.setdefault(each, TypeCounters.empty()).add(tally)
    types = [_type_runs(name, tally) for name, tally in sums.items()]
    return TypesOverview(
        since=utc_datetime((this_hour - hours) * HOUR_S),
        as_of=utc_datetime(now_s),
        types=tuple(sorted(types, key=lambda each: (-each.processed, each.name))),
    )


def _type_runs(name: str, tally: TypeCounters) -> TypeRuns:
    def share(of: float) -> timedelta | None:
        seconds = tally.percentile_s(of)
        return None if seconds is None else timedelta(seconds=seconds)

    return TypeRuns(
        name=name,
        processed=tally.processed,
        failed=tally.failed,
        archived=tally.archived,
        total=timedelta(milliseconds=tally.total_ms),
        median=share(0.5),
        p95=share(0.95),
        p99=share(0.99),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTypes:
    """Tasks of one state of a queue, by type.

    Attributes:
        counts: Number of tasks of each type, the largest first; "" for unreadable ones.
        looked_at: How many tasks were read.
        total: How many there are.
    """

    counts: Mapping[str, int]
    looked_at: int
    total: int

    @property
    def is_sampled(self) -> bool:
        """True if there are more tasks than were read."""
        return self.looked_at < self.total


def read_state_types(keys: Keys, name: str, state: TaskState, *, scan: int = STATE_SCAN) -> RequestPlan[StateTypes]:
    """Count the tasks of one state by type. Reads at most `scan` tasks, up to 10,000.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The state is `AGGREGATING`, or the number is out of bounds.
    """
    if state not in LISTED_STATES:
        raise ConfigurationError(f"state must be one of {', '.join(LISTED_STATES)}, got {state!s}")
    check_whole("scan", scan, least=1, most=_SCAN_MOST)
    yield from known_queue(keys, name)
    counts: dict[str, int] = {}
    looked_at = total = 0
    place = ScanPlace()
    while looked_at < scan:
        step = min(_SCAN_STEP, scan - looked_at)
        page = yield from ask(views.scan_tasks(keys.queue(name), state, place, count=step))
        total = page.size
        for stored in page.tasks:
            task = read_task(name, stored)
            kind = "" if isinstance(task, UnreadableTask) else task.name
            counts[kind] = counts.get(kind, 0) + 1
        looked_at += len(page.tasks)
        if page.is_end or not page.places:
            break
        place = page.places[-1]
    return StateTypes(
        counts=MappingProxyType(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))),
        looked_at=looked_at,
        total=max(total, looked_at),
    )
