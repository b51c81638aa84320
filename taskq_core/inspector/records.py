"""Records that the inspector returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from taskq_core.handles.records import TaskInfo
from taskq_core.wire import TaskState
from taskq_core.wire.cron import with_zone

PAGE_SIZE_MAX = 1000
"""Maximum number of tasks on a page."""

LISTED_STATES = (
    TaskState.ACTIVE,
    TaskState.PENDING,
    TaskState.SCHEDULED,
    TaskState.RETRY,
    TaskState.ARCHIVED,
    TaskState.COMPLETED,
)
"""States whose tasks are listed together, in this order. Tasks in groups are listed by group."""

STATES = (
    TaskState.ACTIVE,
    TaskState.PENDING,
    TaskState.AGGREGATING,
    TaskState.SCHEDULED,
    TaskState.RETRY,
    TaskState.ARCHIVED,
    TaskState.COMPLETED,
)
"""All states in display order: running, waiting, ended."""
GROUPS_COUNTED = 1000
"""Maximum number of groups of a queue whose tasks are counted."""


def error_rate(failed: int, processed: int) -> float | None:
    """Return the share of runs that failed, 0 to 1. None if nothing ran.

    `processed` includes the failed runs. The two counters are read one after the other, so the share is cut at 1.
    """
    return min(1.0, failed / processed) if processed > 0 else None


class QueueStatus(StrEnum):
    """Summary of the state of a queue for lists: the most severe condition that applies."""

    RUNNING = "running"
    """Workers serve the queue and take its tasks."""
    NO_WORKER = "no worker"
    """No running worker serves the queue, so its tasks wait."""
    PAUSED = "paused"
    """A user paused the queue, so workers take no tasks from it."""
    DAMAGED = "damaged"
    """The tasks of the queue cannot be counted, because its data in Redis is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """State and counts of one queue.

    Attributes:
        name: Name of the queue.
        sizes: Number of tasks by state, in the order of `STATES`. If there are more than 1000 groups, only tasks of
            1000 groups count.
        groups: Number of groups with tasks.
        limited: Number of scheduled tasks that wait for a limit.
        is_paused: Whether the queue is paused, so that workers do not take its tasks.
        is_served: False if no running worker serves the queue. Also True if this was not read or is unknown.
        processed: Number of runs in the life of the queue, including failed ones.
        failed: Number of failed runs in the life of the queue.
        processed_today: Like `processed`, since midnight UTC.
        failed_today: Like `failed`, since midnight UTC.
        latency: How long the next task to run has been pending. None if no task is pending, or if it is unknown.
        memory: Approximate size in Redis in bytes. None if it was not read or is unknown.
        as_of: Time of the reading, by Redis's clock.
        problem: Why the queue cannot be counted, "" if it can. With a problem all numbers are 0. A key of a wrong type
            is such a problem; workers repair it within minutes.
    """

    name: str
    sizes: Mapping[TaskState, int]
    groups: int = 0
    limited: int = 0
    is_paused: bool
    is_served: bool = True
    processed: int
    failed: int
    processed_today: int
    failed_today: int
    latency: timedelta | None
    memory: int | None = None
    as_of: datetime
    problem: str = ""

    @property
    def size(self) -> int:
        """Number of tasks in all states."""
        return sum(self.sizes.values())

    @property
    def status(self) -> QueueStatus:
        """Whether the queue runs, has no worker, is paused, or cannot be counted."""
        if self.problem:
            return QueueStatus.DAMAGED
        if self.is_paused:
            return QueueStatus.PAUSED
        return QueueStatus.RUNNING if self.is_served else QueueStatus.NO_WORKER

    @property
    def error_rate(self) -> float | None:
        """Share of today's runs that failed, 0 to 1. None if nothing ran."""
        return error_rate(self.failed_today, self.processed_today)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableTask:
    """A task that is listed but cannot be decoded.

    Attributes:
        id: Id under which it is listed.
        queue: Queue of the task.
        state: State under which the task is listed.
        problem: Why the task cannot be read.
        message: Bytes of the stored message, b"" if there are none.
        generation: As in `TaskInfo`.
    """

    id: str
    queue: str
    state: TaskState
    problem: str
    message: bytes = field(repr=False)
    generation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """A page of tasks.

    Attributes:
        tasks: The tasks. The task that runs next, or that started first, comes first. Of ended tasks, the newest comes
            first.
        total: Number of tasks on all pages.
        page: Number of this page, from 1.
        page_size: Maximum number of tasks on a page.
    """

    tasks: Sequence[TaskInfo | UnreadableTask]
    total: int
    page: int
    page_size: int

    @property
    def pages(self) -> int:
        """Number of pages, at least 1."""
        return max(1, -(-self.total // self.page_size))


class TaskOrder(StrEnum):
    """The order of the tasks of one state.

    Redis sorts them by the time of their state (`SORTED_BY`), so each order works for any number of tasks.
    """

    NEXT = "next"
    """The task that runs next or was started first comes first. Of ended tasks, the newest comes first."""
    RECENT = "recent"
    """As `NEXT`, but of pending and active tasks the newest comes first."""
    NEWEST = "newest"
    """The latest time of the state comes first."""
    OLDEST = "oldest"
    """The earliest time of the state comes first."""


SORTED_BY: Mapping[TaskState, str] = MappingProxyType(
    {
        TaskState.PENDING: "pending_since",
        TaskState.ACTIVE: "started_at",
        TaskState.SCHEDULED: "next_run_at",
        TaskState.RETRY: "next_run_at",
        TaskState.ARCHIVED: "archived_at",
        TaskState.COMPLETED: "expires_at",
    }
)
"""Attribute of `TaskInfo` with the time by which Redis sorts the tasks of a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTasks:
    """Tasks that a call of a search found.

    Attributes:
        tasks: The matching tasks.
        scanned: Number of tasks that this call read.
        total: Number of tasks in the searched queues and states.
        cursor: Pass this to the next call to continue. None if all tasks were read. Only then does an empty result mean
            that no task matches.
        read: Number of tasks that this call and the calls before it have read.
        matched: Number of matching tasks that this call and the calls before it have found.
        read_bytes: Number of bytes of messages and results that this call read.
    """

    tasks: Sequence[TaskInfo | UnreadableTask]
    scanned: int
    total: int
    cursor: str | None
    read: int
    matched: int
    read_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyStats:
    """Number of runs on one day, of one queue or of several queues together.

    Attributes:
        day: The UTC day.
        processed: Number of runs, including failed ones.
        failed: Number of failed runs.
    """

    day: date
    processed: int
    failed: int

    @property
    def succeeded(self) -> int:
        """Number of runs that did not fail."""
        return max(0, self.processed - self.failed)

    @property
    def error_rate(self) -> float | None:
        """Share of runs that failed, 0 to 1. None if nothing ran."""
        return error_rate(self.failed, self.processed)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """A group of tasks that wait to be aggregated.

    Attributes:
        name: Name of the group.
        size: Number of tasks in it.
    """

    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPage:
    """Some of the groups of a queue.

    Attributes:
        groups: The groups, by name within this page. A group that changes between two calls may be missing or appear
            twice.
        total: Number of groups.
        cursor: Pass this cursor to the next call to continue; None at the end.
    """

    groups: Sequence[GroupInfo]
    total: int
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTask:
    """A task that a worker runs, as of its last heartbeat.

    Attributes:
        task_id: Id of the task.
        name: Name of the task.
        queue: Queue that it came from.
        started_at: Start of the run. None if the worker does not report it.
        deadline: When the run has to end. None: no limit.
        as_of: Time of the reading, by Redis's clock.
    """

    task_id: str
    name: str
    queue: str
    started_at: datetime | None
    deadline: datetime | None
    as_of: datetime

    @property
    def running_for(self) -> timedelta | None:
        """How long the task has been running. None if the worker does not report the start."""
        return _age(self.started_at, self.as_of)

    @property
    def is_overdue(self) -> bool:
        """Whether the task still runs although its deadline has passed."""
        return self.deadline is not None and self.deadline < self.as_of


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWeight:
    """A queue that a worker serves.

    Attributes:
        name: Name of the queue.
        weight: Configured weight of the queue.
        share: Share of fetches that ask this queue first, 0 to 1. None with strict priority: a queue is then asked only
            while all queues of larger weight are empty.
    """

    name: str
    weight: int
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """A worker process of any language, as of its last heartbeat.

    Attributes:
        id: Id of the worker, which is new at every start of the worker.
        host: Name of its host.
        pid: Process id of the worker.
        started_at: Start of the worker. None if the worker does not report it.
        status: `active`, `stopped` (takes no new tasks), or for a moment `new` or `closed`.
        queues: Weights of the queues that it serves, by name.
        strict_priority: Whether it serves a queue only while all queues of larger weight are empty.
        concurrency: Maximum number of tasks that it runs at the same time.
        running: The tasks that it runs, the longest running first.
        processed: Runs since it started. None for Go workers, which do not report it.
        failed: Failed runs since the start of the worker. None for Go workers.
        as_of: Time of the reading, by Redis's clock.
    """

    id: str
    host: str
    pid: int
    started_at: datetime | None
    status: str
    queues: Mapping[str, int]
    strict_priority: bool
    concurrency: int
    running: Sequence[RunningTask]
    processed: int | None = None
    failed: int | None = None
    as_of: datetime

    @property
    def uptime(self) -> timedelta | None:
        """Time since the start of the worker. None if it does not report its start."""
        return _age(self.started_at, self.as_of)

    @property
    def weights(self) -> Sequence[QueueWeight]:
        """The queues that the worker serves, the largest weight first."""
        total = 0 if self.strict_priority else sum(self.queues.values())
        largest_first = sorted(self.queues.items(), key=lambda item: (-item[1], item[0]))
        return tuple(
            QueueWeight(name=name, weight=weight, share=weight / total if total > 0 else None)
            for name, weight in largest_first
        )


def _age(moment: datetime | None, now: datetime) -> timedelta | None:
    """Return the time since a moment, not below 0, because the clock of a worker may be ahead."""
    return None if moment is None else max(timedelta(0), now - moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicEntryInfo:
    """A periodic entry of a running scheduler, or a schedule that was added at run time.

    Attributes:
        id: Id of the entry.
        spec: A cron line, or `@every` and a duration. A cron line whose time zone is not UTC begins with `CRON_TZ=`.
        name: Name of the task.
        payload: Payload bytes of the task.
        options: Task options of the entry in Asynq's notation, for example `Queue("low")`.
        next_run_at: Next time at which the entry is due. None: never.
        previous_run_at: Last time at which the task of the entry was enqueued. None: never.
        is_paused: Whether it was paused at run time.
        is_removable: Whether it was added at run time, so that it can be removed.
    """

    id: str
    spec: str
    name: str
    payload: bytes = field(repr=False)
    options: Sequence[str]
    next_run_at: datetime | None
    previous_run_at: datetime | None
    is_paused: bool = False
    is_removable: bool = False

    @property
    def schedule(self) -> str:
        """The schedule in readable form. The time zone comes after the cron line, as in `0 9 * * * (Europe/Berlin)`."""
        return with_zone(self.spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEvent:
    """One enqueue of a periodic entry.

    Attributes:
        task_id: Id of the enqueued task.
        enqueued_at: Time of the enqueue, None if it is unknown.
    """

    task_id: str
    enqueued_at: datetime | None
