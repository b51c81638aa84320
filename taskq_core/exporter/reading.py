"""Read the data of a scrape from Redis: three commands, and three further commands for each queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskq_core.broker.operations import samples as sample_ops
from taskq_core.broker.operations import views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError
from taskq_core.inspector import QueueInfo
from taskq_core.inspector.reading import whole_or_damaged
from taskq_core.inspector.records import GROUPS_COUNTED
from taskq_core.wire import Keys, ServerInfo, TaskState
from taskq_core.wire.tallies import TypeCounters

_MEMORY_SAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReading:
    """The figures of one queue.

    Attributes:
        info: Sizes and counters of the queue.
        memory: Approximate memory of the queue in bytes; None if unknown.
        types: Total counters of runs, by task type.
        refused: Errors of Redis, by name of a figure that this Redis user may not read.
    """

    info: QueueInfo
    memory: int | None
    types: Mapping[str, TypeCounters]
    refused: Mapping[str, str]

    @property
    def sizes(self) -> Mapping[TaskState, int]:
        """Number of tasks by state. If there are more than 1,000 groups, the number of tasks in groups is estimated."""
        groups, sizes = self.info.groups, dict(self.info.sizes)
        if groups > GROUPS_COUNTED:
            sizes[TaskState.AGGREGATING] = round(sizes[TaskState.AGGREGATING] * groups / GROUPS_COUNTED)
        return sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All figures of one scrape.

    Attributes:
        queues: The queues, by name.
        refused: Errors of Redis, by name of a queue that this Redis user may not read.
        workers: Running worker processes, in Python or Go, as of their last heartbeat.
        schedulers: Number of schedulers with periodic tasks. All taskq schedulers together count as one.
    """

    queues: Sequence[QueueReading]
    refused: Mapping[str, str]
    workers: Sequence[ServerInfo]
    schedulers: int


def read_queue(keys: Keys, name: str) -> RequestPlan[QueueReading]:
    """Return the figures of one queue. For a damaged queue, return only the problem.

    Raises:
        BrokerAuthenticationError: This Redis user may not count the tasks.
    """
    info = yield from whole_or_damaged(keys, name)
    memory: int | None = None
    types: Mapping[str, TypeCounters] = {}
    refused: dict[str, str] = {}
    if not info.problem:
        # Redis may have no MEMORY USAGE. Ignore the error, because other figures can still be read.
        try:
            memory = yield from ask(views.estimate_memory(keys.queue(name), samples=_MEMORY_SAMPLES))
        except BrokerAuthenticationError as error:
            refused["memory"] = str(error)
        except BrokerReplyError:
            pass
        try:
            types = yield from ask(sample_ops.read_totals(keys.queue(name)))
        except BrokerAuthenticationError as error:
            refused["types"] = str(error)
        except BrokerReplyError:
            pass
    return QueueReading(info=info, memory=memory, types=types, refused=refused)
