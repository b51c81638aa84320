"""Records that the doctor reads from Redis. The rules of the doctor derive findings from these records."""

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from taskq_core.broker.operations.views import QueueCounts
from taskq_core.doctor.keys import Census
from taskq_core.errors import ConfigurationError
from taskq_core.repair.reconcile import Finding
from taskq_core.wire import validate_queue_name


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """Facts about one Redis server: the only one, or a primary of a cluster.

    Attributes:
        address: Address of the server, without a password.
        info: The reply to `INFO`; None if this user may not read it.
        config: The reply to `CONFIG GET`, by parameter; None if this user may not read it.
        skew_s: Seconds by which its clock is ahead of this machine's clock, negative if behind; None if unknown.
        skew_error_s: Possible error of `skew_s`: half the time of a round trip.
        wanted_replicas: Replicas that the application's tasks require, by their option `replicated`.
    """

    address: str
    info: Mapping[str, str | int] | None
    config: Mapping[str, str] | None
    skew_s: float | None
    skew_error_s: float
    wanted_replicas: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A right that this Redis user lacks: a command, key pattern or channel, and the server's error."""

    action: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongType:
    """A key with an unexpected type; `queue` is "" if it belongs to no queue."""

    key: str
    found: str
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The damaged tasks that a check found in a queue.

    Attributes:
        findings: The problems, at most about 1000.
    """

    findings: Sequence[Finding]

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of damaged tasks by kind of damage, the most frequent first."""
        kinds = Counter(finding.kind.value.replace("_", " ") for finding in self.findings)
        return dict(kinds.most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """Facts about one queue.

    Attributes:
        name: Name of the queue.
        counts: Number of tasks by state, and whether the queue is paused; None if the tasks cannot be counted.
        is_served: True if a running worker (taskq or Go) serves the queue.
        quarantined: Tasks in quarantine because they cannot be read.
        quarantined_sizes: Bytes of the messages of the first 100 tasks in quarantine, by task id.
        is_half_removed: True if a removal of the queue was started and not finished.
        unlimited: Workers that serve the queue without enforcing its limits, as `host:pid`.
        has_limit_worker: True if a worker that enforces limits serves the queue, or if that is unknown.
        workflows: Running workflows with this home queue.
        has_taskq_worker: True if a taskq worker serves the queue, or if that is unknown.
        damage: Damaged tasks; None if the tasks were not checked.
    """

    name: str
    counts: QueueCounts | None
    is_served: bool
    quarantined: int
    is_half_removed: bool
    damage: Damage | None
    quarantined_sizes: Mapping[str, int] = field(default_factory=dict)
    unlimited: Sequence[str] = ()
    has_limit_worker: bool = True
    workflows: int = 0
    has_taskq_worker: bool = True

    @property
    def name_problem(self) -> str:
        """Why taskq cannot use a queue with this name, "" if it can."""
        try:
            validate_queue_name(self.name)
        except ConfigurationError as error:
            return str(error)
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All facts that the rules use.

    Attributes:
        nodes: The servers.
        refusals: Rights that this user lacks.
        wrong_types: Keys with an unexpected type, global and of queues.
        queues: The queues.
        is_complete: False if this user may not read some keys or queues.
        census: Result of the check of all keys; None if they were not checked.
        default_queues: Queues that a worker of the application serves unless its command line names others.
        unserved_tasks: Names of the application's tasks, by name of a queue that no running worker serves.
        tasks: Names of the application's tasks, by name of their queue, without remote tasks.
        queues_key: Key of the list of queues.
        unscheduled: Periodic tasks of the application, by id, if no running scheduler has any of them.
    """

    nodes: Sequence[NodeFacts]
    refusals: Sequence[Refusal]
    wrong_types: Sequence[WrongType]
    queues: Sequence[QueueFacts]
    is_complete: bool = True
    census: Census | None = None
    default_queues: Collection[str] = ()
    unserved_tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unscheduled: Sequence[str] = ()
    queues_key: str = "asynq:queues"

    def advice_on_name(self, name: str) -> str:
        """Return what to do about a queue name that taskq cannot use."""
        words = f"redis-cli SREM {shlex.quote(self.queues_key)} {shlex.quote(name)}"
        return f"find the program that wrote it, then remove the name: {words}"
