"""Which worker processes live, whatever language they are written in, and what they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskq_core.broker.operations import diagnosis
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.inspector import RunningTask, WorkerProcess
from taskq_core.inspector.presence import servers
from taskq_core.wire import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWeight:
    """A queue that a worker serves.

    Attributes:
        name: Name of the queue.
        weight: Its weight, as configured.
        share: How often it is asked first, 0 to 1; None with strict priority, where it is asked once those of larger
            weight are empty.
    """

    name: str
    weight: int
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRow:
    """A task that a worker runs, as of its last heartbeat.

    Attributes:
        task_id: Id of the task.
        name: Name of the task.
        queue: Queue it came from.
        started_at: When the run began, None if the worker does not say.
        running_for: How long it has been running, by Redis's clock; None if the worker does not say since when.
        deadline: When the run has to end, None for no limit.
        is_overdue: True if the deadline has passed.
    """

    task_id: str
    name: str
    queue: str
    started_at: datetime | None
    running_for: timedelta | None
    deadline: datetime | None
    is_overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker process, as of its last heartbeat. Those written in Go are told in the same words.

    Attributes:
        id: Its id, new with every start.
        host: Name of its machine.
        pid: Its process id.
        status: `active`, `stopped` (takes nothing new), or `new` and `closed` for a moment.
        started_at: When it started, None if it does not say.
        uptime: How long ago that was, by Redis's clock; None if it does not say.
        concurrency: Most tasks it runs at the same time.
        queues: The queues it serves, the heaviest first.
        strict_priority: Whether it serves a queue only while those of larger weight are empty.
        running: The tasks it runs, longest first.
        processed: Runs since it started. None for Go workers, which do not report it.
        failed: Failed runs among them.
    """

    id: str
    host: str
    pid: int
    status: str
    started_at: datetime | None
    uptime: timedelta | None
    concurrency: int
    queues: Sequence[QueueWeight]
    strict_priority: bool
    running: Sequence[RunningRow]
    processed: int | None = None
    failed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersOverview:
    """All worker processes that live, by host and process id.

    Attributes:
        workers: The processes.
        as_of: When this was read, by Redis's clock.
    """

    workers: Sequence[WorkerRow]
    as_of: datetime

    @property
    def running(self) -> int:
        """Tasks that run now."""
        return sum(len(each.running) for each in self.workers)

    @property
    def concurrency(self) -> int:
        """Most tasks that all of them run at the same time."""
        return sum(each.concurrency for each in self.workers)


def worker_row(process: WorkerProcess, now: datetime) -> WorkerRow:
    """Return what an operator looks at of a worker that an inspector has read."""
    return WorkerRow(
        id=process.id,
        host=process.host,
        pid=process.pid,
        status=process.status,
        started_at=process.started_at,
        uptime=_since(process.started_at, now),
        concurrency=process.concurrency,
        queues=_weights(process),
        strict_priority=process.strict_priority,
        running=tuple(_running(task, now) for task in process.running),
        processed=process.processed,
        failed=process.failed,
    )


def _weights(process: WorkerProcess) -> tuple[QueueWeight, ...]:
    total = sum(process.queues.values())
    heaviest_first = sorted(process.queues.items(), key=lambda item: (-item[1], item[0]))
    weighted = total > 0 and not process.strict_priority
    return tuple(
        QueueWeight(name=name, weight=weight, share=weight / total if weighted else None)
        for name, weight in heaviest_first
    )


def _running(task: RunningTask, now: datetime) -> RunningRow:
    return RunningRow(
        task_id=task.task_id,
        name=task.name,
        queue=task.queue,
        started_at=task.started_at,
        running_for=_since(task.started_at, now),
        deadline=task.deadline,
        is_overdue=task.deadline is not None and task.deadline < now,
    )


def _since(moment: datetime | None, now: datetime) -> timedelta | None:
    """How long ago; a worker whose clock is ahead began just now."""
    return None if moment is None else max(timedelta(0), now - moment)


def read_workers(keys: Keys) -> RequestPlan[WorkersOverview]:
    """Return the running worker processes, including Go's, and their tasks, as of their last heartbeats."""
    processes = yield from servers(keys)
    now = utc_datetime((yield from ask(diagnosis.read_time())))
    return WorkersOverview(workers=tuple(worker_row(each, now) for each in processes), as_of=now)
