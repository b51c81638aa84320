"""What the API answers with about workers and schedulers."""

from datetime import datetime

from pydantic import BaseModel, Field

from taskq_core.inspector import PeriodicEntryInfo
from taskq_fastapi.api.access import LISTED_BYTES, Shown
from taskq_fastapi.api.models.values import ID, Octets, Record, Seconds, Text


class QueueWeight(Record):
    """A queue that a worker serves."""

    name: Text = Field(examples=["default"])
    weight: int = Field(examples=[3])
    share: float | None = Field(description="How often it is asked first; null with strict priority.")


class RunningRow(Record):
    """A task that a worker runs."""

    task_id: Text = Field(examples=[ID])
    name: Text = Field(examples=["image:resize"])
    queue: Text = Field(examples=["default"])
    started_at: datetime | None
    running_for: Seconds | None = Field(description="Seconds.")
    deadline: datetime | None
    is_overdue: bool


class WorkerRow(Record):
    """A worker process, as of its last heartbeat; Go's too."""

    id: Text
    host: Text = Field(examples=["web-1"])
    pid: int = Field(examples=[4211])
    status: Text = Field(examples=["active"])
    started_at: datetime | None
    uptime: Seconds | None = Field(description="Seconds.")
    concurrency: int = Field(examples=[10])
    queues: list[QueueWeight]
    strict_priority: bool
    running: list[RunningRow] = Field(description="Longest first.")
    processed: int | None = Field(description="Runs since it started. Workers in Go do not publish this.")
    failed: int | None = Field(description="Failed runs among them.")


class WorkersOverview(Record):
    """All worker processes that live."""

    workers: list[WorkerRow]
    as_of: datetime
    running: int = Field(description="Tasks that run now.")
    concurrency: int = Field(description="Most tasks that all of them run at the same time.")


class Schedule(BaseModel):
    """A periodic entry of a running scheduler, or a schedule that was added at run time."""

    id: Text = Field(examples=["nightly"])
    spec: Text = Field(examples=["CRON_TZ=Europe/Berlin 0 3 * * *"])
    schedule: Text = Field(
        description="When it is due, for people: a cron line with its time zone.",
        examples=["0 3 * * * (Europe/Berlin)"],
    )
    name: Text = Field(examples=["report:nightly"])
    payload: Octets
    options: list[Text] = Field(description="As Asynq spells them.", examples=[['Queue("low")']])
    next_run_at: datetime | None
    previous_run_at: datetime | None
    is_paused: bool = Field(description="Whether it was paused at run time.")
    is_removable: bool = Field(description="Whether it was added at run time.")


class ScheduleRemoved(BaseModel):
    """A schedule that was removed."""

    id: Text


class WorkersAsked(BaseModel):
    """The recipients of a request. Empty if no worker listens."""

    workers: list[Text] = Field(description="Their ids.")


class Schedules(BaseModel):
    """The periodic entries of all schedulers that are alive, by id."""

    schedules: list[Schedule]
    total: int
    page: int
    page_size: int


class SchedulerEvent(Record):
    """One enqueue of a periodic entry."""

    task_id: Text = Field(examples=[ID])
    enqueued_at: datetime | None


class SchedulerEvents(BaseModel):
    """Past enqueues of a periodic entry, the newest first."""

    events: list[SchedulerEvent]
    page: int
    page_size: int


def schedule_of(entry: PeriodicEntryInfo, shown: Shown) -> Schedule:
    """Return what is shown of a periodic entry."""
    return Schedule(
        id=entry.id,
        spec=entry.spec,
        schedule=entry.schedule,
        name=entry.name,
        payload=Octets(**shown.octets(entry.name, "payload", entry.payload, most=LISTED_BYTES)),
        options=list(entry.options),
        next_run_at=entry.next_run_at,
        previous_run_at=entry.previous_run_at,
        is_paused=entry.is_paused,
        is_removable=entry.is_removable,
    )
