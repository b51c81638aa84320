"""What the API answers with: the core's records, field by field. Spans are in seconds, times in UTC."""

from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taskq_core import Progress, TaskInfo, TaskState, dashboard
from taskq_core.dashboard import QueueStatus, TaskRecord
from taskq_core.inspector import ActionReport, PeriodicEntryInfo, Skip, UnreadableTask
from taskq_core.reconcile import FindingKind
from taskq_core.workflow import StepInfo, StepState, WorkflowGraph, WorkflowState
from taskq_fastapi.api.access import LISTED_BYTES, Shown
from taskq_fastapi.status import TaskProgress

ID = "01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"
_SIZES = {"active": 2, "pending": 40, "aggregating": 0, "scheduled": 3, "retry": 1, "archived": 5, "completed": 0}


def _printable(value: object) -> object:
    """Half characters stand for bytes of a foreign producer that are no UTF-8; an answer cannot hold them."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_printable)]
Sizes = Annotated[dict[TaskState, int], Field(description="Tasks by state.", examples=[_SIZES])]
Rate = Annotated[float | None, Field(description="The share of runs that failed; null where nothing ran.")]
Seconds = timedelta


class Record(BaseModel):
    """A record of the core."""

    model_config = ConfigDict(from_attributes=True, ser_json_timedelta="float")


# --- queues -----------------------------------------------------------------------------------------------------------


class QueueRow(Record):
    """One queue as it stands."""

    name: Text = Field(examples=["default"])
    status: QueueStatus = Field(description="damaged: it cannot be counted, and its numbers are 0.")
    is_paused: bool
    size: int = Field(description="Tasks in all states together.", examples=[51])
    sizes: Sizes
    groups: int = Field(description="Groups with tasks in them.", examples=[0])
    latency: Seconds | None = Field(description="Seconds that the next task to run has been pending.")
    memory: int | None = Field(description="About how many bytes it takes in Redis.", examples=[18_432])
    processed: int = Field(description="Tasks that ran, those that failed included.", examples=[1_204])
    failed: int = Field(description="Runs that failed.", examples=[7])
    processed_today: int = Field(description="Since midnight UTC.", examples=[97])
    failed_today: int = Field(description="Since midnight UTC.", examples=[1])
    error_rate: Rate
    as_of: datetime = Field(description="When this was read, by Redis's clock.")
    problem: Text = Field(description='Why it cannot be counted, "" if it can.', examples=[""])


class QueuesOverview(Record):
    """All queues, sorted by name, and their sums."""

    queues: list[QueueRow]
    sizes: Sizes
    size: int = Field(examples=[51])
    processed_today: int = Field(examples=[97])
    failed_today: int = Field(examples=[1])
    error_rate: Rate


class DayRow(Record):
    """What queues did on one UTC day."""

    day: date
    processed: int = Field(examples=[97])
    failed: int = Field(examples=[1])
    succeeded: int = Field(examples=[96])
    error_rate: Rate


class TypeRow(Record):
    """How many tasks of one type stand in a queue, among those that were looked at."""

    name: Text = Field(description='"" for those that cannot be read.', examples=["image:resize"])
    size: int
    sizes: Sizes


class QueueDetail(Record):
    """One queue in full."""

    queue: QueueRow
    days: list[DayRow] = Field(description="The oldest first and today last.")
    types: list[TypeRow] = Field(description="The most first.")
    looked_at: int = Field(description="How many tasks `types` is made of.")
    is_sampled: bool = Field(description="Whether there are more than were looked at.")


class Sample(Record):
    """How a queue stood at one moment, and what it did since the sample before."""

    at: datetime
    since: Seconds | None = Field(description="Seconds since the sample before; null for the first that there is.")
    is_after_gap: bool = Field(description="Whether samples are missing before it.")
    sizes: Sizes
    size: int
    latency: Seconds | None = Field(description="The longest that the next task to run had been pending, in seconds.")
    memory: int | None = Field(description="About how many bytes the queue took.")
    is_paused: bool
    processed: int = Field(description="Tasks that ran in this time.")
    failed: int
    processed_per_s: float | None
    failed_per_s: float | None
    error_rate: Rate
    busy: float = Field(description="Tasks that ran on the workers which serve the queue, of whichever queue.")
    slots: float = Field(description="Most tasks that these workers run at the same time.")
    utilisation: float | None = Field(description="The share of the slots that were taken.")


class QueueSeries(Record):
    """Samples of one queue, the oldest first."""

    name: Text = Field(examples=["default"])
    step: Seconds = Field(description="Seconds from one sample to the next, where none is missing.")
    begin: datetime
    end: datetime
    samples: list[Sample] = Field(description="None where no worker served the queue.")


class Samples(BaseModel):
    """How queues stood in a span of time."""

    queues: list[QueueSeries]


class TypeRuns(Record):
    """What became of the runs of one task type."""

    name: Text = Field(description="`_other` for those beyond 200 types an hour.", examples=["image:resize"])
    processed: int
    failed: int
    archived: int
    error_rate: Rate
    total: Seconds = Field(description="Seconds that they took together.")
    mean: Seconds | None = Field(description="Seconds.")
    median: Seconds | None = Field(description="Seconds, about; as are the next two.")
    p95: Seconds | None
    p99: Seconds | None


class TypesOverview(Record):
    """What became of runs by task type, the most first. Go's workers do not count by type."""

    since: datetime
    as_of: datetime
    types: list[TypeRuns]


class StateTypes(Record):
    """Tasks of one state of a queue, by type."""

    counts: dict[Text, int] = Field(
        description='How many of each type; "" for those that cannot be read.', examples=[{"image:resize": 12}]
    )
    looked_at: int
    total: int
    is_sampled: bool = Field(description="Whether there are more than were looked at.")


class QueuePlace(Record):
    """Where a queue stands in a cluster."""

    name: Text = Field(examples=["default"])
    slot: int
    nodes: list[str]


class Store(Record):
    """What Redis says of itself; of a cluster, one of its nodes. What it does not tell is null."""

    kind: str = Field(examples=["Redis"])
    version: str = Field(examples=["7.4.1"])
    uptime: Seconds | None = Field(description="Seconds.")
    memory: int | None = Field(description="Bytes.")
    memory_peak: int | None
    memory_limit: int | None
    fragmentation: float | None
    clients: int | None
    replicas: int | None
    saved_at: datetime | None
    changes_since_save: int | None
    user: str | None = Field(description="Name of the ACL user of this connection.")
    info: dict[str, str | int]
    is_cluster: bool
    cluster: dict[str, str]
    places: list[QueuePlace]


class History(BaseModel):
    """What queues did together, day by day."""

    days: list[DayRow] = Field(description="The oldest first and today last.")


class Removed(BaseModel):
    """What became of a queue that is being removed."""

    deleted: int = Field(description="Tasks that this request deleted.", examples=[12])
    next: str | None = Field(description="Send the same request with it as `cursor`; null when the queue is removed.")


class Group(Record):
    """A group of tasks that wait to become one."""

    name: Text = Field(examples=["user:7"])
    size: int = Field(examples=[3])


class Groups(BaseModel):
    """Some of the groups of a queue."""

    groups: list[Group]
    total: int = Field(description="How many there are.", examples=[1])
    next: str | None = Field(description="Send it as `cursor` to go on; null when all were gone through.")


class Limit(Record):
    """One limit of a queue, with all values of its key."""

    kind: str = Field(description="rate, concurrency or sequence.", examples=["rate"])
    name: Text = Field(examples=["mail:send"])
    declared: Text = Field(description='Its number in the code of workers, "" if none has told.', examples=["50/m"])
    changed: Text = Field(description='The number that somebody set over it, "" for none.', examples=["100/m"])
    slots: int = Field(description="Values of its key that hold or wait now.")
    held: int = Field(description="Places that are held.")
    waiting: int = Field(description="Tasks that wait.")


class Limits(BaseModel):
    """The limits of a queue, by kind and name."""

    limits: list[Limit]


class LimitCleared(BaseModel):
    """What became of a limit that was to be cleared."""

    was_set: bool = Field(description="False if nothing was set over what the code says.")


class Count(BaseModel):
    """How many tasks there are."""

    count: int = Field(examples=[40])


class Place(BaseModel):
    """Where a queue stands in a cluster."""

    slot: int = Field(description="0 to 16383.", examples=[13_328])
    nodes: list[str] = Field(description="host:port, the primary first; none without a cluster.")


class Arrived(BaseModel):
    """What became of moves that were cut off."""

    arrived: int | None = Field(
        description="Tasks that are in their other queue now; null: time was over before all were.", examples=[0]
    )
    is_complete: bool = Field(description="False: time was over; the same request carries on.")


class Finding(Record):
    """One damage."""

    kind: FindingKind
    task_id: Text
    detail: Text
    repaired: bool


class ReconcileReport(Record):
    """The damage in a queue."""

    queue: Text = Field(examples=["default"])
    scanned: int = Field(description="Tasks that were looked at.")
    findings: list[Finding]
    repaired: int
    is_complete: bool = Field(description="False if the look ended early.")


class Reconciliation(ReconcileReport):
    """The damage in a queue, as far as a look for it has come: findings and repairs are told when it has ended."""

    about: int = Field(description="About how many tasks there are to look at.")
    failure: str | None = Field(description="Why the look ended early; null if nothing failed.")
    next: str | None = Field(description="Send the same request with it as `cursor`; null when the look has ended.")


# --- tasks ------------------------------------------------------------------------------------------------------------


class Octets(BaseModel):
    """Bytes of a task, in the form in which they can be read."""

    size: int = Field(description="How many bytes.", examples=[12])
    format: Literal["json", "text", "base64"] | None = Field(
        default=None, description="What `value` is.", examples=["json"]
    )
    value: Any = Field(default=None, examples=[{"to": "a@example.com"}])
    omitted: Literal["hidden", "large"] | None = Field(
        default=None, description="Why `value` is not shown: you may not see it, or a list is no place for it."
    )


class Attempt(Record):
    """One attempt of a task that has ended."""

    number: int = Field(examples=[1])
    worker: Text
    started_at: datetime | None
    ended_at: datetime | None
    error: Text = Field(description='What it raised, "" if it succeeded.', examples=["builtins.ValueError"])
    traceback: Any = Field(description="null where it is not shown.")


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
    attempts: list[Attempt] = Field(default_factory=list, description="The last; empty in lists.")
    worker: Text = Field(default="", description="Token of the worker that runs it; empty in lists.")
    started_at: datetime | None = Field(default=None, description="null in lists.")
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
        if field not in ("payload", "result", "headers", "last_error", "attempts", "progress")
    }
    return Task(
        **plain,
        priority=record.priority,
        start_by=record.start_by,
        payload=Octets(**shown.octets(name, "payload", record.payload, most=most)),
        result=Octets(**shown.octets(name, "result", record.result, most=most)),
        headers=shown.headers(name, {_text(key): _text(value) for key, value in record.headers.items()}),
        last_error=shown.value(name, "error", _text(record.last_error)),
        attempts=[
            Attempt(
                number=each.number,
                worker=each.worker,
                started_at=each.started_at,
                ended_at=each.ended_at,
                error=each.error,
                traceback=shown.value(name, "traceback", _text(each.traceback)) if shown.payloads else None,
            )
            for each in record.attempts
        ],
        progress=None if record.progress is None else _progress(name, record.progress, shown),
    )


def _progress(name: str, told: Progress, shown: Shown) -> TaskProgress:
    message = _text(str(shown.value(name, "progress", _text(told.message))))
    return TaskProgress(done=told.done, total=told.total, message=message, at=told.at)


def _text(value: str) -> str:
    return str(_printable(value))


# --- what is done to tasks --------------------------------------------------------------------------------------------


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
        done_tasks=[TaskAddress(queue=_text(each.queue), id=_text(each.id)) for each in report.done] if names else [],
        skipped=[
            Skipped(reason=reason, state=state, count=count)
            for (reason, state), count in sorted(report.skipped.items())
        ],
        scanned=scanned,
        failure=None if report.failure is None else "Redis did not answer, or refused; the log of the server says more",
        next=following,
    )


# --- workers, schedulers, the store -----------------------------------------------------------------------------------


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


class WorkersOverview(Record):
    """All worker processes that live."""

    workers: list[WorkerRow]
    as_of: datetime
    running: int = Field(description="Tasks that run now.")
    concurrency: int = Field(description="Most tasks that all of them run at the same time.")


class Schedule(BaseModel):
    """A periodic entry of a scheduler that runs."""

    id: Text = Field(examples=["nightly"])
    spec: Text = Field(examples=["0 3 * * *"])
    name: Text = Field(examples=["report:nightly"])
    payload: Octets
    options: list[Text] = Field(description="As Asynq spells them.", examples=[['Queue("low")']])
    next_run_at: datetime | None
    previous_run_at: datetime | None


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
        name=entry.name,
        payload=Octets(**shown.octets(entry.name, "payload", entry.payload, most=LISTED_BYTES)),
        options=list(entry.options),
        next_run_at=entry.next_run_at,
        previous_run_at=entry.previous_run_at,
    )


# --- workflows --------------------------------------------------------------------------------------------------------


class WorkflowRow(Record):
    """A workflow in a list."""

    queue: Text = Field(description="Its home.", examples=["default"])
    id: Text = Field(examples=[ID])
    name: Text = Field(description='"" for none.', examples=["onboarding"])
    state: WorkflowState = Field(description="damaged: what Redis keeps of it cannot be read.")
    created_at: datetime | None = Field(description="Null of a damaged one.")
    ended_at: datetime | None = Field(description="Null while it runs.")
    steps: int = Field(
        description="Each member of a group as one; of more than 100 groups each group as one.", examples=[4]
    )
    steps_ended: int = Field(description="How many of them have ended, in whatever way.", examples=[3])
    steps_failed: int = Field(
        description="How many have failed; those after which it goes on as if nothing had happened are left out.",
        examples=[0],
    )


class WorkflowSearch(Record):
    """What a search for workflows found: those that run first."""

    rows: list[WorkflowRow]
    scanned: int = Field(description="How many were read.", examples=[16])
    total: int = Field(description="How many there are.", examples=[16])
    cursor: Text | None = Field(description="Where to go on; null if all were read.")


class Workflows(Record):
    """Some of the workflows whose home a queue is: those that run first, then those that have ended, newest first."""

    queue: Text = Field(examples=["default"])
    rows: list[WorkflowRow]
    running: int = Field(description="How many run.", examples=[2])
    ended: int = Field(description="How many have ended and are kept.", examples=[14])
    total: int = Field(examples=[16])


class WorkflowInfo(Record):
    """How a workflow stands."""

    id: Text = Field(examples=[ID])
    queue: Text = Field(description="Its home.", examples=["default"])
    name: Text = Field(description='"" for none.', examples=["onboarding"])
    state: WorkflowState
    created_at: datetime
    ended_at: datetime | None = Field(description="Null while it runs.")
    total: int = Field(description="Steps, each member of a group as one.", examples=[4])
    counts: dict[StepState, int] = Field(description="How many of them stand how.", examples=[{"succeeded": 3}])
    ended: int = Field(description="How many have ended, in whatever way.", examples=[3])


class WorkflowStep(Record):
    """A step of a workflow, or a group of them."""

    name: Text = Field(examples=["resize"])
    task: Text = Field(description='Name of its task; "" where that is not known.', examples=["image:resize"])
    queue: Text = Field(description='Queue of its task, "" for a group.', examples=["default"])
    task_id: Text = Field(description='Id of its task, "" for a group.', examples=[f"{ID}.resize"])
    state: StepState
    after: dict[Text, Literal["success", "failure", "end"]] = Field(
        description="The steps it comes after, and when it runs.", examples=[{"fetch": "success"}]
    )
    is_callback: bool = Field(description="Whether it runs after a part of the workflow.")
    ended_at: datetime | None
    error: Any = Field(description='Its failure, of a group that of its first; "" for none.', examples=["timed out"])
    members: int | None = Field(description="Members of a group, null for a step.")
    succeeded: int = Field(description="Members that have succeeded.")
    failed: int = Field(description="Members that have failed for good.")


class Workflow(BaseModel):
    """A workflow with its steps, each behind those it comes after."""

    info: WorkflowInfo
    steps: list[WorkflowStep]


class Member(BaseModel):
    """A member of a group."""

    number: int = Field(description="Which it is, from 0.", examples=[0])
    task_id: Text = Field(examples=[f"{ID}.pictures.0"])
    queue: Text = Field(description="Queue of its task.", examples=["default"])
    state: StepState
    error: Any = Field(description='The beginning of its failure; "" for none.', examples=["timed out"])
    result: Octets = Field(description="What it returned, if that is short.")
    result_size: int = Field(description="Bytes of what it returned.", examples=[0])


class StepDetail(BaseModel):
    """A step of a workflow, or a group with some of its members in their order."""

    queue: Text = Field(description="Home of the workflow.", examples=["default"])
    workflow_id: Text = Field(examples=[ID])
    workflow_name: Text = Field(description='"" for none.', examples=["onboarding"])
    workflow_state: WorkflowState
    step: WorkflowStep
    result: Octets = Field(description="What a step that is no group returned, if that is not too long.")
    result_size: int = Field(description="Bytes of what it returned.", examples=[0])
    members: list[Member]


class WorkflowChanged(BaseModel):
    """What became of an action on a workflow."""

    action: Literal["cancel", "retry"]
    done: int = Field(description="Steps that run again; for cancel 1, or 0 if it had ended already.", examples=[1])


def workflow_of(graph: WorkflowGraph, shown: Shown) -> Workflow:
    """Return what is shown of a workflow; failures go through the redaction, as those of tasks do."""
    steps = [_step(record, shown) for record in graph.steps]
    return Workflow(info=WorkflowInfo.model_validate(graph.info), steps=steps)


def step_of(found: dashboard.StepDetail, shown: Shown) -> StepDetail:
    """Return what is shown of a step with its members; failures and results as those of tasks.

    Which task a member is of is not known, so where there is a redaction its result is not shown.
    """
    name = found.step.task
    of_members = shown if shown.may_ask_payloads else Shown(payloads=False, redact=None)
    members = [
        Member(
            number=each.number,
            task_id=each.task_id,
            queue=each.queue,
            state=each.state,
            error=shown.value(name, "error", _text(each.error)),
            result=_result(of_members, name, each.result, each.result_size),
            result_size=each.result_size,
        )
        for each in found.members
    ]
    return StepDetail(
        queue=found.queue,
        workflow_id=found.workflow_id,
        workflow_name=found.workflow_name,
        workflow_state=found.workflow_state,
        step=_step(found.step, shown),
        result=_result(shown, name, found.result, found.result_size),
        result_size=found.result_size,
        members=members,
    )


def _step(record: StepInfo, shown: Shown) -> WorkflowStep:
    step = WorkflowStep.model_validate(record)
    step.error = shown.value(record.task, "error", _text(record.error))
    return step


def _result(shown: Shown, name: str, data: bytes, size: int) -> Octets:
    """Return a result that may have been cut when it was read; one that was is left out."""
    found = Octets(**shown.octets(name, "result", data, most=None))
    if size > len(data) and found.omitted is None:
        return Octets(size=size, omitted="large")
    found.size = size
    return found
