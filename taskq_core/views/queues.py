"""Read all queues with their memory and totals, and one queue with its daily counters and types of tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from taskq_core.broker.operations import views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError
from taskq_core.inspector import LISTED_STATES, STATES, DailyStats, QueueInfo, UnreadableTask, error_rate
from taskq_core.inspector.alive import with_workers
from taskq_core.inspector.known import known_queue
from taskq_core.inspector.reading import HISTORY_DAYS, queue_infos, read_history, read_task, whole_or_damaged
from taskq_core.wire import Keys, TaskState

DAYS_CHOICES = (7, 30, HISTORY_DAYS)
"""Periods, in days, that users can choose for the chart of daily counters. Counters are stored for the longest
period."""
TYPES_SAMPLE = 200
"""Maximum number of tasks of each state that are read for the counts by type."""
_MEMORY_SAMPLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesOverview:
    """All queues, sorted by name, with their totals."""

    queues: Sequence[QueueInfo]

    @property
    def sizes(self) -> Mapping[TaskState, int]:
        """Number of tasks of all queues by state, in the order of `STATES`."""
        return MappingProxyType({state: sum(row.sizes[state] for row in self.queues) for state in STATES})

    @property
    def size(self) -> int:
        """Number of tasks of all queues."""
        return sum(row.size for row in self.queues)

    @property
    def processed_today(self) -> int:
        """Number of runs since midnight UTC, including failed runs."""
        return sum(row.processed_today for row in self.queues)

    @property
    def failed_today(self) -> int:
        """Number of failed runs since midnight UTC."""
        return sum(row.failed_today for row in self.queues)

    @property
    def error_rate(self) -> float | None:
        """Share of today's runs that failed, 0 to 1. None if there were no runs."""
        return error_rate(self.failed_today, self.processed_today)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRow:
    """Number of tasks of one type in a queue, among the tasks that were read.

    Attributes:
        name: Name of the task, "" for unreadable tasks.
        sizes: Number of tasks by state, in the order of `STATES`.
    """

    name: str
    sizes: Mapping[TaskState, int]

    @property
    def size(self) -> int:
        """Number of tasks in all states."""
        return sum(self.sizes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDetail:
    """One queue in full.

    Attributes:
        queue: State and counts of the queue.
        days: Daily counters of the queue, the oldest day first.
        types: Number of tasks of each type, the largest first, without tasks in groups.
        looked_at: Number of tasks that were read for `types`: at most `TYPES_SAMPLE` of each state.
    """

    queue: QueueInfo
    days: Sequence[DailyStats]
    types: Sequence[TypeRow]
    looked_at: int

    @property
    def is_sampled(self) -> bool:
        """Whether the queue has more listed tasks than were read for `types`."""
        return self.looked_at < sum(self.queue.sizes[state] for state in LISTED_STATES)


def overview(infos: Iterable[QueueInfo]) -> QueuesOverview:
    """Return the overview of queues that an inspector has read.

    The result does not contain the memory of the queues.
    """
    return QueuesOverview(queues=tuple(infos))


def read_queues(keys: Keys) -> RequestPlan[QueuesOverview]:
    """Return state, counts and memory of every queue. A queue that cannot be counted has a `problem`."""
    rows = []
    for info in (yield from queue_infos(keys)):
        memory = yield from _memory(keys, info)
        rows.append(replace(info, memory=memory))
    return QueuesOverview(queues=tuple(rows))


def read_queue(keys: Keys, name: str, *, days: int = 30) -> RequestPlan[QueueDetail]:
    """Return one queue in full: its state and counts, its history and its task types.

    Args:
        name: Name of the queue.
        days: Days of its history, 1 to 90.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The number of days is out of bounds.
    """
    yield from known_queue(keys, name)
    (info,) = yield from with_workers(keys, [(yield from whole_or_damaged(keys, name))])
    row = replace(info, memory=(yield from _memory(keys, info)))
    past = yield from read_history(keys, (name,), days=days)
    counts: dict[str, dict[TaskState, int]] = {}
    looked_at = 0
    for state in LISTED_STATES:
        if not info.sizes[state]:
            continue
        page = yield from ask(views.list_tasks(keys.queue(name), state, skip=0, count=TYPES_SAMPLE))
        looked_at += len(page.tasks)
        for stored in page.tasks:
            task = read_task(name, stored)
            sizes = counts.setdefault("" if isinstance(task, UnreadableTask) else task.name, dict.fromkeys(STATES, 0))
            sizes[state] += 1
    types = [TypeRow(name=each, sizes=MappingProxyType(sizes)) for each, sizes in counts.items()]
    return QueueDetail(
        queue=row, days=past, types=tuple(sorted(types, key=lambda each: (-each.size, each.name))), looked_at=looked_at
    )


def _memory(keys: Keys, info: QueueInfo) -> RequestPlan[int | None]:
    if info.problem:
        return None
    try:
        return (yield from ask(views.estimate_memory(keys.queue(info.name), samples=_MEMORY_SAMPLES)))
    except (BrokerReplyError, BrokerAuthenticationError):
        return None  # Redis has no MEMORY USAGE, or this Redis user may not call it
