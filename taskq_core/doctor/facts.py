"""What the doctor knows: plain records, read in one place and judged in another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskq_core.doctor.keys import Census
from taskq_core.repair.reconcile import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One server: the only one, or a primary of a cluster.

    Attributes:
        address: Where it is, without a password.
        info: What `INFO` says; None when this user may not ask.
        config: What `CONFIG GET` says, by parameter; None when this user may not ask.
        skew_s: Seconds its clock is ahead of this machine's, less if behind; None when this user may not ask.
        skew_error_s: Seconds by which that may be wrong: half the time an answer took.
        wanted_replicas: Replicas that the application's tasks ask for, by their option `replicated`.
    """

    address: str
    info: Mapping[str, str | int] | None
    config: Mapping[str, str] | None
    skew_s: float | None
    skew_error_s: float
    wanted_replicas: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something this user may not do.

    Attributes:
        action: A command, or what it was meant for.
        answer: What the server said.
    """

    action: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongType:
    """A key that holds another type than the layout says; `queue` is "" where it belongs to none."""

    key: str
    found: str
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Tasks of a queue whose records contradict each other.

    Attributes:
        findings: What contradicts what, at most about 1000.
        moving: Tasks on their way to another queue that nobody has carried on for a while.
    """

    findings: Sequence[Finding]
    moving: int = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each kind of contradiction was found, the most frequent first."""
        kinds = Counter(finding.kind.value.replace("_", " ") for finding in self.findings)
        return dict(kinds.most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """One queue.

    Attributes:
        name: Its name.
        pending: Tasks ready to run; None where they cannot be counted.
        later: Tasks that are scheduled, wait for a retry, or wait in a group.
        is_paused: True while workers take nothing.
        is_served: True if a running worker, of any language, serves it.
        quarantined: Tasks put aside because they cannot be read.
        is_half_removed: True if a removal has begun and not ended.
        quarantined_ids: The ids of the first of them, at most 100.
        unlimited: Workers that serve it and keep no limits, though its tasks have some; `host:pid`.
        limited: Tasks that wait for a limit.
        has_keeper: True if a worker that keeps limits serves it, or if that is not known.
        workflows: Running workflows whose home it is.
        has_taskq_worker: True if a taskq worker serves it, or if that is not known.
        damage: What a look through all its tasks found; None if there was none.
    """

    name: str
    pending: int | None
    is_paused: bool
    is_served: bool
    quarantined: int
    is_half_removed: bool
    damage: Damage | None
    later: int = 0
    quarantined_ids: Sequence[str] = ()
    unlimited: Sequence[str] = ()
    limited: int = 0
    has_keeper: bool = True
    workflows: int = 0
    has_taskq_worker: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the rules judge.

    Attributes:
        nodes: The servers.
        refusals: What this user may not do.
        wrong_types: Keys of the wrong type, global and of queues.
        queues: The queues.
        is_complete: False if some keys or queues could not be looked at.
        census: What a look at all keys found; None if there was none.
        unserved_tasks: Tasks of the application by queue, for the queues that no running worker serves.
        unscheduled: Periodic tasks of the application, by id, if no running scheduler has any of them.
    """

    nodes: Sequence[NodeFacts]
    refusals: Sequence[Refusal]
    wrong_types: Sequence[WrongType]
    queues: Sequence[QueueFacts]
    is_complete: bool = True
    census: Census | None = None
    unserved_tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unscheduled: Sequence[str] = ()
