"""Figures of all queues for a metrics exporter: three commands, and three further commands for each queue."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations import presence, views
from taskq_core.broker.operations import samples as sample_ops
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import RequestPlan, arun_plan, ask
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError, BrokerUnavailableError, WireFormatError
from taskq_core.inspector.reading import whole_or_damaged
from taskq_core.inspector.records import GROUPS_COUNTED, QueueInfo
from taskq_core.wire import Keys, ServerInfo, TaskState
from taskq_core.wire.slots import key_slot
from taskq_core.wire.tallies import TypeCounters

R = TypeVar("R")

WORKERS_MAX = 1000
"""Maximum number of workers, and of schedulers, that are read."""
_MEMORY_SAMPLES = 5
_PARALLEL = 8
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMetrics:
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
class MetricsSnapshot:
    """Figures of all queues, read at about the same time.

    Attributes:
        queues: The queues, by name.
        refused: Errors of Redis, by name of a queue that this Redis user may not read.
        workers: Running worker processes, in Python or Go, as of their last heartbeat.
        schedulers: Number of schedulers with periodic tasks. All taskq schedulers together count as one.
    """

    queues: Sequence[QueueMetrics]
    refused: Mapping[str, str]
    workers: Sequence[ServerInfo]
    schedulers: int


def _queue(keys: Keys, name: str) -> RequestPlan[QueueMetrics]:
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
    return QueueMetrics(info=info, memory=memory, types=types, refused=refused)


async def metrics_snapshot(app: TaskQ) -> MetricsSnapshot:
    """Read the figures of all queues from Redis, several queues at the same time. There is no time limit.

    Raises:
        BrokerError: Redis did not answer, or this Redis user may not read any queue.
    """
    keys, send = app.runtime.keys, partial(_send, app)
    found: list[QueueMetrics] = []
    refused: dict[str, BrokerAuthenticationError] = {}

    async def read(name: str) -> None:
        try:
            found.append(await arun_plan(_queue(keys, name), send))
        except BrokerAuthenticationError as error:
            refused[name] = error

    await _all(partial(read, name) for name in await send(views.list_queues(keys.queues)))
    if refused and not found:
        raise refused[min(refused)]
    schedulers = await send(presence.list_alive(keys.schedulers, skip=0, count=WORKERS_MAX))
    return MetricsSnapshot(
        queues=sorted(found, key=lambda each: each.info.name),
        refused={name: str(error) for name, error in refused.items()},
        workers=await _workers(app),
        schedulers=len(schedulers),
    )


async def _workers(app: TaskQ) -> list[ServerInfo]:
    """Read the running workers, in a cluster one hash slot after the other. Skip unreadable entries."""
    send = partial(_send, app)
    index = app.runtime.keys.servers
    alive = await send(presence.list_alive(index, skip=0, count=WORKERS_MAX))
    by_slot: dict[int, list[str]] = {}
    for key in presence.keys_of_index(index, alive):
        by_slot.setdefault(key_slot(key) if app.runtime.endpoint.is_cluster else 0, []).append(key)
    workers: list[ServerInfo] = []
    for part in await _all(partial(send, presence.read_servers(keys)) for keys in by_slot.values()):
        for data in part:
            try:
                workers += [ServerInfo.decode(data)] if data else []
            except WireFormatError:
                continue
    return workers


async def _send(app: TaskQ, operation: Operation[Any]) -> Any:
    """Send an operation, at most three times, because a closed connection does not mean that Redis is down."""
    for _ in range(_TRIES - 1):
        try:
            return await app.runtime.async_runner.run(operation)
        except BrokerUnavailableError:
            continue
    return await app.runtime.async_runner.run(operation)


async def _all(works: Iterable[Callable[[], Awaitable[R]]]) -> list[R]:
    """Run coroutines, several at a time, and return their results in order. An error cancels the other coroutines."""
    turns = asyncio.Semaphore(_PARALLEL)

    async def one(work: Callable[[], Awaitable[R]]) -> R:
        async with turns:
            return await work()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(work)) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
