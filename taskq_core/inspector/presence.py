"""Read the running workers with their tasks, and facts about the Redis server."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from taskq_core.app import TaskQ
from taskq_core.broker.operations import diagnosis, presence, services, steps, views
from taskq_core.broker.operations.services import CancelOutcome
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import (
    BrokerAuthenticationError,
    TaskNotFoundError,
    TaskStateError,
    WireFormatError,
)
from taskq_core.handles.changing import identify, wish_of
from taskq_core.inspector.alive import alive, server_infos
from taskq_core.inspector.known import check_text, known_queue
from taskq_core.inspector.records import RunningTask, WorkerProcess
from taskq_core.wire import (
    Keys,
    ServerInfo,
    TaskState,
    WorkerInfo,
    datetime_of_ns,
    validate_queue_name,
)
from taskq_core.wire.slots import key_slot as slot_of

_STEP = 500
_LAST = datetime.max.replace(tzinfo=UTC)


def servers(keys: Keys) -> RequestPlan[list[WorkerProcess]]:
    """Return the live worker processes, including Go workers, by host and process id, as of their last heartbeats."""
    now = utc_datetime((yield from ask(diagnosis.read_time())))
    infos = yield from server_infos(keys)
    running: dict[str, list[RunningTask]] = {info.server_id: [] for info in infos}
    for key in (yield from alive(keys.workers)):
        for data in (yield from ask(presence.read_running(key))):
            try:
                task = WorkerInfo.decode(data)
            except WireFormatError:
                continue
            if task.server_id in running:
                running[task.server_id].append(_running(task, now))
    found = [_process(info, running[info.server_id], now) for info in infos]
    return sorted(found, key=lambda each: (each.host, each.pid))


def moment_of(ns: int | None) -> datetime | None:
    """Convert a stored time (Unix ns) to a datetime.

    Return None if it is missing, or outside the years of `datetime`.
    """
    try:
        return None if ns is None else datetime_of_ns(ns)
    except WireFormatError:
        return None  # other programs may store a number that is no valid time


def _running(task: WorkerInfo, now: datetime) -> RunningTask:
    return RunningTask(
        task_id=task.task_id,
        name=task.task_type,
        queue=task.queue,
        started_at=moment_of(task.start_time_ns),
        deadline=moment_of(task.deadline_ns),
        as_of=now,
    )


def _process(info: ServerInfo, running: list[RunningTask], now: datetime) -> WorkerProcess:
    return WorkerProcess(
        id=info.server_id,
        host=info.host,
        pid=info.pid,
        started_at=moment_of(info.start_time_ns),
        status=info.status,
        queues=MappingProxyType(dict(info.queues)),
        strict_priority=info.strict_priority,
        concurrency=info.concurrency,
        processed=info.processed,
        failed=info.failed,
        running=tuple(sorted(running, key=lambda each: (each.started_at or _LAST, each.task_id))),
        as_of=now,
    )


def cancel_task(
    keys: Keys, task_id: str, *, retry: bool = False, keep: bool | None = None, generation: str = ""
) -> RequestPlan[int]:
    """Ask the worker that runs a task to cancel it. Does not wait until the task ends.

    A task whose steps have begun may also wait: then it runs now, and its code may undo steps, as after
    `TaskHandle.cancel`. Workers compare only the id. If running tasks of several queues have this id, all of them are
    cancelled.

    Args:
        task_id: Id of the task.
        retry: Retry the task as if it had failed, instead of archiving it.
        keep: False deletes the task instead of archiving it.
        generation: As in `run_task`.

    Returns:
        Number of worker processes that received the request: workers that serve the task's queue by their last
        heartbeat, at most the number of subscribers of the channel. For a waiting task, the number of workers that may
        run it.

    Raises:
        TaskNotFoundError: No queue holds a task with this id.
        TaskStateError: The task is not running, and it has not begun a step.
        ConfigurationError: `keep` is given together with `retry`.
    """
    check_text("task_id", task_id)
    wish = wish_of(retry=retry, keep=keep)
    states = {}
    for name in (yield from ask(views.list_queues(keys.queues))):
        state = yield from ask(views.read_state(keys.queue(name), task_id))
        if state is not None:
            states[name] = state
    if TaskState.ACTIVE not in states.values():
        begun = set()
        for name in states if wish is not CancelOutcome.RETRY else ():
            seen = yield from identify(keys.queue(name), task_id, generation)
            request = steps.cancel_steps(keys.queue(name), task_id, wish=wish.value, generation=seen)
            if (yield from ask(request)):
                begun.add(name)
        if begun:
            return (yield from _count_workers(keys, begun, otherwise=0))
        for name, state in states.items():
            problem = "only a running task, or one whose steps have begun, can be cancelled; archive or delete this one"
            raise TaskStateError(name, task_id, state, problem)
        raise TaskNotFoundError("", task_id)
    running, receivers = set(), 0
    for name, state in states.items():
        if state != TaskState.ACTIVE:
            continue
        queue = keys.queue(name)
        seen = yield from identify(queue, task_id, generation)
        now, count = yield from ask(services.ask_cancel(queue, keys.cancel, task_id, wish, generation=seen))
        if now == TaskState.ACTIVE:
            running.add(name)
            receivers = max(receivers, count)
    if not running:
        raise TaskNotFoundError("", task_id)
    if receivers == 0:
        return 0
    # Redis also counts subscribers of its other databases, so the number of workers is the upper limit.
    return min(receivers, (yield from _count_workers(keys, running, otherwise=receivers)))


def _count_workers(keys: Keys, queues: set[str], *, otherwise: int) -> RequestPlan[int]:
    """Return how many workers serve one of some queues, or `otherwise` without the right to read the workers."""
    try:
        infos = yield from server_infos(keys)
    except BrokerAuthenticationError:
        return otherwise
    return sum(not queues.isdisjoint(info.queues) for info in infos)


def cluster_nodes(app: TaskQ, queue: str) -> RequestPlan[list[str]]:
    """Return host:port of the nodes that store a queue, the primary first. The list is empty if Redis is not a cluster.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    keys = app.runtime.keys
    yield from known_queue(keys, queue)
    if not app.runtime.endpoint.is_cluster:
        return []
    return (yield from ask(presence.list_nodes(key_slot(keys, queue))))


def key_slot(keys: Keys, name: str) -> int:
    """Return the cluster slot of the keys of a queue."""
    validate_queue_name(name)
    return slot_of(keys.queue(name).pending)


def redis_info(_keys: Keys) -> RequestPlan[Mapping[str, str | int]]:
    """Return the result of Redis's `INFO`, with numbers as `int`. A cluster returns the result of one node."""
    return (yield from ask(presence.server_info()))
