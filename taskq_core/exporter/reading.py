"""What a scrape asks of Redis: four commands and three a queue, however many tasks, groups and workers there are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from taskq_core.broker.operations import presence, views
from taskq_core.broker.operations import samples as sample_ops
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError, WireFormatError
from taskq_core.inspector import QueueInfo
from taskq_core.inspector.look import whole_or_damaged
from taskq_core.inspector.records import GROUPS_COUNTED
from taskq_core.wire import Keys, ServerInfo, TaskState
from taskq_core.wire.tallies import TypeCounters

WORKERS_MOST = 1000
"""Most workers, and schedulers, that are asked for what they say of themselves."""
_MEMORY_SAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReading:
    """One queue.

    Attributes:
        info: How it stands.
        memory: About how many bytes it takes; None where Redis does not tell.
        types: What became of runs since ever, by task type.
        refused: What this user may not ask of it, by what is missing for that.
    """

    info: QueueInfo
    memory: int | None
    types: Mapping[str, TypeCounters]
    refused: Mapping[str, str]

    @property
    def sizes(self) -> Mapping[TaskState, int]:
        """Tasks by state. In more than a thousand groups, their number is that of a thousand, taken for all."""
        groups, sizes = self.info.groups, dict(self.info.sizes)
        if groups > GROUPS_COUNTED:
            sizes[TaskState.AGGREGATING] = round(sizes[TaskState.AGGREGATING] * groups / GROUPS_COUNTED)
        return sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReading:
    """One worker process, Go's too, as of its last heartbeat."""

    queues: Sequence[str]
    slots: int
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All of it.

    Attributes:
        queues: The queues, by name.
        refused: Names of queues that this user may not count, with what Redis said.
        workers: The worker processes that live, at most `WORKERS_MOST`.
        schedulers: How many schedulers tell of entries: one where all is well and there are any.
    """

    queues: Sequence[QueueReading]
    refused: Mapping[str, str]
    workers: Sequence[WorkerReading]
    schedulers: int


def read_names(keys: Keys) -> RequestPlan[list[str]]:
    """Return the names of all queues, sorted."""
    return (yield from ask(views.list_queues(keys.queues)))


def read_queue(keys: Keys, name: str) -> RequestPlan[QueueReading]:
    """Return how one queue stands; of one that is damaged nothing but that.

    Raises:
        BrokerAuthenticationError: This user may not count it.
    """
    info = yield from whole_or_damaged(keys, name)
    memory: int | None = None
    types: Mapping[str, TypeCounters] = {}
    refused: dict[str, str] = {}
    if not info.problem:
        # A store without MEMORY USAGE, or a user who may not ask: all else is known.
        try:
            memory = yield from ask(views.estimate_memory(keys.queue(name), samples=_MEMORY_SAMPLES))
        except BrokerReplyError:
            pass
        except BrokerAuthenticationError as error:
            refused["memory"] = str(error)
        try:
            types = yield from ask(sample_ops.read_totals(keys.queue(name)))
        except BrokerReplyError:
            pass  # of another type; doctor tells of it
        except BrokerAuthenticationError as error:
            refused["types"] = str(error)
    return QueueReading(info=info, memory=memory, types=MappingProxyType(dict(types)), refused=refused)


def read_fleet(keys: Keys) -> RequestPlan[tuple[Sequence[str], int]]:
    """Return the keys of the workers that live, and how many schedulers do."""
    servers = yield from ask(presence.list_alive(keys.servers, skip=0, count=WORKERS_MOST))
    schedulers = yield from ask(presence.list_alive(keys.schedulers, skip=0, count=WORKERS_MOST))
    return presence.keys_of_index(keys.servers, servers), len(schedulers)


def read_workers(keys: Keys, names: Sequence[str]) -> RequestPlan[list[WorkerReading]]:
    """Return workers by their keys, in a cluster those of one slot. One that cannot be read is left out."""
    return list(_workers((yield from ask(presence.read_servers(names)))))


def _workers(told: Iterable[bytes | None]) -> Iterable[WorkerReading]:
    for data in told:
        try:
            info = ServerInfo.decode(data) if data else None
        except WireFormatError:
            continue
        if info is not None:
            yield WorkerReading(queues=tuple(info.queues), slots=info.concurrency, busy=info.active_worker_count)
