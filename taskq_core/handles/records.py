"""`TaskInfo`, the record of a task for handles, inspectors, dashboards and the API."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from taskq_core.broker.operations.limits import WAITING_SCORE_S
from taskq_core.broker.operations.views import StoredTask
from taskq_core.codec.oversized import OversizedResult, read_oversized
from taskq_core.codec.progress import Progress, read_progress
from taskq_core.handles.attempts import Attempt, read_attempts, read_last_attempt
from taskq_core.handles.waits import TaskWait, read_wait
from taskq_core.wire import TaskState, decode_message, read_enqueued_ms, read_expiry, read_priority
from taskq_core.wire.quoting import unescape_limit_name

FINAL = (TaskState.COMPLETED, TaskState.ARCHIVED)
"""States of tasks that have ended. taskq does not change such a task unless a user requests it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """One task as read from Redis.

    Attributes:
        id: Id of the task.
        name: Name of the task (its type on the wire).
        queue: Queue of the task.
        state: State of the task.
        payload: Payload bytes.
        headers: Headers of the task.
        max_retry: Maximum number of retries.
        retried: Number of failures that used an attempt.
        last_error: Text of the last failure, "" if no run has failed.
        last_failed_at: Time of the last failure.
        timeout: Maximum run time, None for no limit.
        deadline: Latest time at which the task may run, None for no limit.
        retention: How long the task is stored after success.
        group: Group in which the task waits, "" outside of a group.
        next_run_at: Start of a scheduled task or next attempt of a retry. None while the task waits for a limit.
        lease_expires_at: When an active task counts as lost, unless its worker extends the lease before.
        completed_at: When the task succeeded.
        archived_at: When the task was archived.
        expires_at: When a completed task is deleted.
        result: Result bytes, b"" if there is no result.
        oversized_result: Size and limit of a result that was not stored because it was too large; None otherwise.
        attempts: The last failed attempts, and the successful one; see `Attempt`. Empty in listings.
        last_attempt: The last of these attempts, None if none is recorded. Listings omit its error.
        enqueued_at: When the task was enqueued, None if unknown. Django's clients record it. For other pending tasks,
            listings have the time at which they became pending.
        pending_since: When a pending task became pending. None in other states, and if it was not read from a list.
        worker: Token of the worker that runs the task, "" if it is not running.
        started_at: When that worker received the task, None if unknown.
        progress: Progress last reported by the task, None if it reported none.
        waits_for_limit: Whether the task waits for a limit. Such a task has no scheduled time.
        limit: Name of the limit for which the task waits, "" for no limit. Empty in listings.
        wait: The sleep, the signal or the sub-tasks that a scheduled task with steps waits for. None otherwise, also
            while the task waits for a limit after its wait. Searches omit it.
        generation: Distinguishes the task from later tasks with the same id. Lists and searches have ""
            unless a client has chosen the id or has asked for the task before.
    """

    id: str
    name: str
    queue: str
    state: TaskState
    payload: bytes = field(repr=False)
    headers: dict[str, str]
    max_retry: int
    retried: int
    last_error: str
    last_failed_at: datetime | None
    timeout: timedelta | None
    deadline: datetime | None
    retention: timedelta
    group: str
    next_run_at: datetime | None
    lease_expires_at: datetime | None
    completed_at: datetime | None
    archived_at: datetime | None
    expires_at: datetime | None
    result: bytes = field(repr=False)
    attempts: tuple[Attempt, ...] = ()
    last_attempt: Attempt | None = None
    enqueued_at: datetime | None = None
    pending_since: datetime | None = None
    worker: str = ""
    started_at: datetime | None = None
    progress: Progress | None = None
    waits_for_limit: bool = False
    limit: str = ""
    oversized_result: OversizedResult | None = None
    wait: TaskWait | None = None
    generation: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the task has ended: it is completed or archived."""
        return self.state in FINAL

    @property
    def ended_at(self) -> datetime | None:
        """When the task succeeded or was archived, None before."""
        at = self.completed_at or self.archived_at
        run_ended_at = self.last_attempt.ended_at if self.last_attempt else None
        # Asynq stores whole seconds. So the stored end of a short run may be before its start.
        return max(at, run_ended_at) if at and run_ended_at else at

    @property
    def last_started_at(self) -> datetime | None:
        """When the current or last recorded run began, None if unknown."""
        return self.started_at or (self.last_attempt.started_at if self.last_attempt else None)

    @property
    def last_worker(self) -> str:
        """Token of the worker that runs the task or ran it last, "" if none is recorded."""
        return self.worker or (self.last_attempt.worker if self.last_attempt else "")

    @property
    def attempts_made(self) -> int:
        """Number of runs that have started. 0 for a task that was archived before its first run."""
        if self.state is not TaskState.ARCHIVED:
            return self.retried + (self.state in (TaskState.ACTIVE, TaskState.COMPLETED))
        if self.last_attempt:
            return max(self.retried, self.last_attempt.number)
        return self.retried + (self.last_failed_at is not None)  # Go workers record no attempts

    @property
    def priority(self) -> int:
        """Priority band of the task inside its queue, 0 to 9."""
        return read_priority(self.headers)[0]

    @property
    def start_by(self) -> datetime | None:
        """Latest start before it expires; None for no limit."""
        expiry = read_expiry(self.headers)
        return None if expiry is None or expiry.is_relative else _moment(expiry.value_s)


def _moment(unix_s: int | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(unix_s, tz=UTC) if unix_s else None
    except (ValueError, OverflowError, OSError):
        return None  # other programs may store a time that `datetime` cannot represent


def _moment_ms(unix_ms: int | None) -> datetime | None:
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


def _span(value: int) -> timedelta:
    return timedelta(seconds=min(max(value, 0), 86_399_999_999_999))


def task_info(stored: StoredTask) -> TaskInfo:
    """Convert a task as read from Redis to a `TaskInfo`.

    Raises:
        WireFormatError: The message of the task cannot be decoded.
    """
    message = decode_message(stored.message)
    state = stored.state
    assert state is not None
    when = _moment(stored.score)
    attempts = read_attempts(stored.attempts)
    enqueued_ms = read_enqueued_ms(message.headers)
    if enqueued_ms is None:
        enqueued_ms = stored.pending_ms
    waits_for_limit = state is TaskState.SCHEDULED and stored.score == WAITING_SCORE_S and stored.line != ""
    return TaskInfo(
        id=message.id or stored.task_id,
        name=message.type,
        queue=message.queue,
        state=state,
        payload=message.payload,
        headers=dict(message.headers),
        max_retry=message.retry,
        retried=message.retried,
        last_error=message.error_msg,
        last_failed_at=_moment(message.last_failed_at),
        timeout=_span(message.timeout) if message.timeout else None,
        deadline=_moment(message.deadline),
        retention=_span(message.retention),
        group=message.group_key,
        next_run_at=when if state in (TaskState.SCHEDULED, TaskState.RETRY) and not waits_for_limit else None,
        lease_expires_at=when if state is TaskState.ACTIVE else None,
        completed_at=_moment(message.completed_at),
        archived_at=when if state is TaskState.ARCHIVED else None,
        expires_at=when if state is TaskState.COMPLETED else None,
        result=stored.result,
        oversized_result=None if stored.result else read_oversized(stored.oversized),
        attempts=attempts,
        last_attempt=attempts[-1] if attempts else read_last_attempt(stored.last_attempt),
        enqueued_at=_moment_ms(enqueued_ms),
        pending_since=_moment_ms(stored.pending_ms),
        worker=stored.owner,
        progress=read_progress(stored.progress),
        started_at=_moment_ms(stored.started_ms),
        waits_for_limit=waits_for_limit,
        limit=unescape_limit_name(stored.line.partition(":")[2].partition(":")[0]) if stored.line else "",
        wait=None if waits_for_limit else read_wait(stored.wait, when),
        generation=stored.generation,
    )
