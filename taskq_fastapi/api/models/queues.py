"""What the API answers with about queues, their past, their groups and limits, and the store."""

from datetime import date, datetime
from typing import Annotated

from pydantic import BaseModel, Field

from taskq_core import TaskState
from taskq_core.repair.reconcile import FindingKind
from taskq_core.views import QueueStatus
from taskq_fastapi.api.models.values import Record, Seconds, Text

_SIZES = {"active": 2, "pending": 40, "aggregating": 0, "scheduled": 3, "retry": 1, "archived": 5, "completed": 0}
Sizes = Annotated[dict[TaskState, int], Field(description="Tasks by state.", examples=[_SIZES])]
Rate = Annotated[float | None, Field(description="The share of runs that failed; null where nothing ran.")]


class QueueRow(Record):
    """One queue as it stands."""

    name: Text = Field(examples=["default"])
    status: QueueStatus = Field(
        description="no worker: nothing runs its tasks. damaged: it cannot be counted; its numbers are 0."
    )
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
