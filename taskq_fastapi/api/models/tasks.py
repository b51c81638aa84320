"""What the API answers with about tasks, and about what was done to them."""

from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from taskq_core import Progress, TaskInfo, TaskState
from taskq_core.handles.attempts import Attempt as StoredAttempt
from taskq_core.inspector import ActionReport, Skip, UnreadableTask
from taskq_core.views import TaskRecord
from taskq_fastapi.api.access import LISTED_BYTES, Shown
from taskq_fastapi.api.models.values import ID, Octets, Record, Seconds, Text, text
from taskq_fastapi.status import TaskProgress


class Attempt(Record):
    """One attempt of a task that has ended."""

    number: int = Field(examples=[1])
    worker: Text
    started_at: datetime | None
    ended_at: datetime | None
    error: Text = Field(description='What it raised, "" if it succeeded.', examples=["builtins.ValueError"])
    traceback: Any = Field(description="null where it is not shown.")


class OversizedResult(Record):
    """A result that was not stored because it was too large."""

    size: int = Field(description="Bytes it has.", examples=[314572802])
    limit: int = Field(description="Most bytes that may be stored: the task option `max_result_bytes`.")


class Task(Record):
    """One task. Of one that cannot be read, `problem` says why, and there is no more than its id, queue and state."""

    id: Text = Field(examples=[ID])
    queue: Text = Field(examples=["default"])
    state: TaskState = Field(examples=["retry"])
    problem: Text = Field(default="", description='Why it cannot be read, "" if it can.', examples=[""])
    message: Octets | None = Field(default=None, description="What is stored of one that cannot be read.")
    name: Text = Field(default="", examples=["image:resize"])
    payload: Octets | None = None
    headers: Any = Field(default=None, description="Text that travels with it.", examples=[{}])
    max_retry: int = Field(default=0, examples=[25])
    retried: int = Field(default=0, examples=[1])
    last_error: Any = Field(default="", examples=["timed out"])
    last_failed_at: datetime | None = None
    timeout: Seconds | None = Field(default=None, description="Longest run, in seconds.")
    deadline: datetime | None = None
    start_by: datetime | None = Field(default=None, description="When it expires if no worker has begun it.")
    retention: Seconds = Field(default=timedelta(0), description="Seconds it is kept after success.")
    group: Text = ""
    next_run_at: datetime | None = None
    waits_for_limit: bool = Field(default=False, description="Whether it starts as soon as its limits let it.")
    limit: Text = Field(default="", description="The limit that it waits for; empty in lists.")
    lease_expires_at: datetime | None = None
    completed_at: datetime | None = None
    archived_at: datetime | None = None
    expires_at: datetime | None = None
    result: Octets | None = None
    oversized_result: OversizedResult | None = Field(
        default=None, description="Why there is no result: it was too large to be stored."
    )
    enqueued_at: datetime | None = Field(default=None, description="null if its client did not record it.")
    attempts: list[Attempt] = Field(default_factory=list, description="The last; empty in lists.")
    last_attempt: Attempt | None = Field(default=None, description="In lists without its error.")
    worker: Text = Field(default="", description="Token of the worker that runs it; empty in lists.")
    started_at: datetime | None = Field(default=None, description="null in lists.")
    last_started_at: datetime | None = Field(default=None, description="Start of its last run; null in lists.")
    ended_at: datetime | None = None
    is_final: bool = Field(default=False, description="Whether it has ended: it is completed or archived.")
    progress: TaskProgress | None = Field(default=None, description="How far it is, as it told; null in lists.")
    priority: int = Field(default=0, description="The higher it is, the sooner it is taken among pending ones.")


class TaskPage(BaseModel):
    """A page of tasks: first comes what is next to run or was started first."""

    tasks: list[Task]
    total: int = Field(description="How many there are on all pages.", examples=[1])
    page: int = Field(examples=[1])
    page_size: int = Field(examples=[30])
    pages: int = Field(description="Number of pages, at least 1.", examples=[1])


class TasksFound(BaseModel):
    """What a search found so far."""

    tasks: list[Task]
    scanned: int = Field(description="How many were read for them.", examples=[10_000])
    total: int = Field(description="How many there are to look at.", examples=[25_000])
    next: str | None = Field(description="Send it as `cursor` to go on; null when all were looked at.")


def task_of(record: TaskRecord, shown: Shown, *, is_listed: bool) -> Task:
    """Return what is shown of a task."""
    most = LISTED_BYTES if is_listed else None
    if isinstance(record, UnreadableTask):
        message = shown if shown.may_ask_payloads else Shown(payloads=False, redact=None)
        octets = message.octets("", "message", record.message, most=most)
        return Task(
            id=record.id, queue=record.queue, state=record.state, problem=record.problem, message=Octets(**octets)
        )
    name = record.name
    plain = {
        field: getattr(record, field)
        for field in TaskInfo.__dataclass_fields__
        if field not in ("payload", "result", "headers", "last_error", "attempts", "last_attempt", "progress")
    }
    return Task(
        **plain,
        priority=record.priority,
        start_by=record.start_by,
        last_started_at=record.last_started_at,
        ended_at=record.ended_at,
        is_final=record.is_final,
        payload=Octets(**shown.octets(name, "payload", record.payload, most=most)),
        result=Octets(**shown.octets(name, "result", record.result, most=most)),
        headers=shown.headers(name, {text(key): text(value) for key, value in record.headers.items()}),
        last_error=shown.value(name, "error", text(record.last_error)),
        attempts=[_attempt(name, each, shown) for each in record.attempts],
        last_attempt=None if record.last_attempt is None else _attempt(name, record.last_attempt, shown),
        progress=None if record.progress is None else _progress(name, record.progress, shown),
    )


def _attempt(name: str, attempt: StoredAttempt, shown: Shown) -> Attempt:
    return Attempt(
        number=attempt.number,
        worker=attempt.worker,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        error=attempt.error,
        traceback=shown.value(name, "traceback", text(attempt.traceback)) if shown.payloads else None,
    )


def _progress(name: str, told: Progress, shown: Shown) -> TaskProgress:
    message = text(str(shown.value(name, "progress", text(told.message))))
    return TaskProgress(done=told.done, total=told.total, message=message, at=told.at)


class Skipped(BaseModel):
    """How many tasks were left alone, and why."""

    reason: Skip
    state: str = Field(description='The state they are in, for "changed" and "state".', examples=["active"])
    count: int = Field(examples=[1])


class TaskAddress(BaseModel):
    """A task that is meant."""

    model_config = ConfigDict(extra="forbid")

    queue: str = Field(examples=["default"])
    id: str = Field(examples=[ID])
    state: TaskState | None = Field(default=None, description="The state it was seen in; in another it is left alone.")


class Acted(BaseModel):
    """What became of tasks, as far as this request went."""

    done: int = Field(description="Tasks to which it was done.", examples=[100])
    done_tasks: list[TaskAddress] = Field(description="Which these are, of tasks that were named one by one.")
    skipped: list[Skipped]
    scanned: int = Field(description="How many tasks were read for it.", examples=[100])
    failure: str | None = Field(
        default=None,
        description="Redis failed on the way. Of up to 100 tasks more it is not known whether it was done to them.",
    )
    next: str | None = Field(
        description="Send the same request with it as `cursor` to go on; null when all were gone through."
    )


def acted_of(report: ActionReport, *, scanned: int, following: str | None, names: bool) -> Acted:
    """Return what became of tasks."""
    return Acted(
        done=len(report.done),
        done_tasks=[TaskAddress(queue=text(each.queue), id=text(each.id)) for each in report.done] if names else [],
        skipped=[
            Skipped(reason=reason, state=state, count=count)
            for (reason, state), count in sorted(report.skipped.items())
        ],
        scanned=scanned,
        failure=None if report.failure is None else "Redis did not answer, or refused; the log of the server says more",
        next=following,
    )
