"""Read queues and tasks."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from taskq_core.broker.operations import diagnosis, steps, views
from taskq_core.broker.operations.operation import MESSAGE_MAX
from taskq_core.broker.operations.views import Page, QueueCounts, StoredTask
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerReplyError, ConfigurationError, TaskNotFoundError, WireFormatError
from taskq_core.handles.questions import Question, open_questions, read_question
from taskq_core.handles.records import FINAL, TaskInfo, task_info
from taskq_core.inspector.alive import with_workers
from taskq_core.inspector.cursors import RedisCursor, read_cursor, write_cursor
from taskq_core.inspector.known import check_group, check_text, known_queue, known_state
from taskq_core.inspector.records import (
    LISTED_STATES,
    PAGE_SIZE_MAX,
    STATES,
    DailyStats,
    GroupInfo,
    GroupPage,
    QueueInfo,
    TaskOrder,
    TaskPage,
    UnreadableTask,
)
from taskq_core.settings import check_whole
from taskq_core.wire import Keys, QueueKeys, TaskState, unread_size

HISTORY_DAYS = 90
"""Number of days for which Redis stores daily counters."""
_MEMORY_SAMPLES = 20


def queues(keys: Keys) -> RequestPlan[list[str]]:
    """Return the names of all queues to which a task was ever enqueued, sorted."""
    return (yield from ask(views.list_queues(keys.queues)))


def queue_info(keys: Keys, name: str) -> RequestPlan[QueueInfo]:
    """Return the state and counts of a queue.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    (info,) = yield from with_workers(keys, [(yield from _counted(keys, name))])
    return info


def queue_infos(keys: Keys) -> RequestPlan[list[QueueInfo]]:
    """Return the state and counts of every queue, sorted by name. `problem` says why a queue cannot be counted."""
    return (yield from with_workers(keys, (yield from _all_counted(keys))))


def _counted(keys: Keys, name: str) -> RequestPlan[QueueInfo]:
    """Return the state and counts of a queue, without reading whether workers serve it."""
    queue = yield from known_queue(keys, name)
    return _queue_info(name, (yield from ask(views.count_tasks(queue))))


def _all_counted(keys: Keys) -> RequestPlan[list[QueueInfo]]:
    """Return the state and counts of all queues, without reading whether workers serve them."""
    infos = []
    for name in (yield from queues(keys)):
        infos.append((yield from whole_or_damaged(keys, name)))  # noqa: PERF401 - a comprehension cannot yield
    return infos


def whole_or_damaged(keys: Keys, name: str) -> RequestPlan[QueueInfo]:
    """Return the state and counts of a queue, or a record with `problem` if it cannot be counted.

    The queue need not exist.
    """
    problem = ""
    try:
        counts = yield from ask(views.count_tasks(keys.queue(name)))
    except BrokerReplyError as error:
        now_s = yield from ask(diagnosis.read_time())
        counts, problem = QueueCounts(now_ns=int(now_s * 1e9)), str(error)
    return _queue_info(name, counts, problem)


def _queue_info(name: str, counts: QueueCounts, problem: str = "") -> QueueInfo:
    latency_s = counts.latency_s
    return QueueInfo(
        name=name,
        sizes=MappingProxyType({state: counts.sizes[state] for state in STATES}),
        groups=counts.groups,
        limited=counts.limited,
        is_paused=counts.is_paused,
        processed=counts.processed,
        failed=counts.failed,
        processed_today=counts.processed_today,
        failed_today=counts.failed_today,
        latency=None if latency_s is None else timedelta(seconds=latency_s),
        as_of=datetime.fromtimestamp(counts.now_ns / 1e9, tz=UTC),
        problem=problem,
    )


def history(keys: Keys, queue: str, days: int = 10) -> RequestPlan[list[DailyStats]]:
    """Return the daily counters of a queue, today first. Days are UTC, by Redis's clock.

    Args:
        queue: Name of the queue.
        days: Number of days, 1 to 90. Counters are stored for 90 days.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The number of days is out of bounds.
    """
    check_whole("days", days, least=1, most=HISTORY_DAYS)
    yield from known_queue(keys, queue)
    return (yield from read_history(keys, (queue,), days=days))[::-1]


def read_history(keys: Keys, names: Sequence[str], *, days: int = 30) -> RequestPlan[list[DailyStats]]:
    """Return the daily counters of several queues, summed over the queues, the oldest day first. Days are UTC.

    Args:
        names: Names of the queues. A queue that does not exist counts as 0.
        days: Number of days, 1 to 90.

    Raises:
        ConfigurationError: The number of days is out of bounds.
    """
    check_whole("days", days, least=1, most=HISTORY_DAYS)
    today = utc_datetime((yield from ask(diagnosis.read_time()))).date()
    dates = [today - timedelta(days=back) for back in reversed(range(days))]
    totals = [(0, 0)] * days
    for name in names:
        numbers = yield from ask(views.count_days(keys.queue(name), dates))
        totals = [(ran + more, bad + more_bad) for (ran, bad), (more, more_bad) in zip(totals, numbers, strict=True)]
    return [
        DailyStats(day=day, processed=processed, failed=failed)
        for day, (processed, failed) in zip(dates, totals, strict=True)
    ]


def memory_usage(keys: Keys, queue: str) -> RequestPlan[int]:
    """Estimate how many bytes a queue takes in Redis, from 20 tasks of each state and of five groups.

    Raises:
        QueueNotFoundError: No queue has this name.
        BrokerReplyError: The store does not support `MEMORY USAGE`.
    """
    queue_keys = yield from known_queue(keys, queue)
    return (yield from ask(views.estimate_memory(queue_keys, samples=_MEMORY_SAMPLES)))


def groups(keys: Keys, queue: str) -> RequestPlan[list[GroupInfo]]:
    """Return the groups of tasks that wait to be aggregated, sorted by name.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    queue_keys = yield from known_queue(keys, queue)
    sizes: dict[str, int] = {}
    cursor = "0"
    while True:
        cursor, page = yield from ask(views.count_groups(queue_keys, cursor))
        sizes |= page
        if cursor == "0":
            return [GroupInfo(name=each, size=size) for each, size in sorted(sizes.items())]


def groups_page(keys: Keys, queue: str, *, limit: int = 100, cursor: str | None = None) -> RequestPlan[GroupPage]:
    """Return a page of the groups of a queue. The pages are not sorted.

    Args:
        queue: Name of the queue.
        limit: Approximate number of groups, 1 to 1000. Redis may return a few more.
        cursor: `GroupPage.cursor` of the previous call.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The limit is out of bounds, or the cursor is not valid.
    """
    check_whole("limit", limit, least=1, most=PAGE_SIZE_MAX)
    (at,) = ("0",) if cursor is None else read_cursor(cursor, tuple[RedisCursor])
    queue_keys = yield from known_queue(keys, queue)
    total = yield from ask(views.count_group_names(queue_keys))
    sizes: dict[str, int] = {}
    while True:
        at, page = yield from ask(views.count_groups(queue_keys, at, count=limit))
        sizes |= page
        if at == "0" or len(sizes) >= limit:
            found = tuple(GroupInfo(name=each, size=size) for each, size in sorted(sizes.items()))
            return GroupPage(groups=found, total=total, cursor=None if at == "0" else write_cursor((at,)))


def questions(
    keys: Keys, queue: str | None = None, task_id: str | None = None, *, limit: int = 100
) -> RequestPlan[list[Question]]:
    """Return open questions that tasks have asked with `context.receive(name, type, ask={...})`, the oldest first.

    Questions of tasks that have ended are not open. A question that cannot be read is left out.

    Args:
        queue: Name of a queue, None for all queues.
        task_id: Id of a task in this queue, None for all tasks.
        limit: Maximum number of questions, 1 to 1000.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The limit is out of bounds, or `task_id` is given without `queue`.
    """
    check_whole("limit", limit, least=1, most=PAGE_SIZE_MAX)
    if task_id is not None:
        if queue is None:
            raise ConfigurationError("questions of one task need the name of its queue too: queue=")
        found = yield from task(keys, queue, task_id)
        if found.state in FINAL:
            return []
        record = yield from ask(steps.read_steps(keys.queue(queue), task_id))
        return open_questions(keys.queue(queue), task_id, record)
    names = (yield from queues(keys)) if queue is None else [(yield from known_queue(keys, queue)).name]
    listed = []
    for name in names:
        for each in (yield from ask(steps.list_questions(keys.queue(name), limit=limit))):
            with suppress(ValueError):
                listed.append(read_question(keys.queue(name), each))
    return sorted(listed, key=lambda each: each.since)[:limit]


def count(keys: Keys, queue: str, state: TaskState, *, group: str | None = None) -> RequestPlan[int]:
    """Count the tasks of one state without reading them. `TaskState.AGGREGATING` needs `group`.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: `group` does not fit the state.
    """
    state = known_state(state)
    check_group(state, group)
    queue_keys = yield from known_queue(keys, queue)
    return (yield from ask(views.count_state(queue_keys, state, group=group)))


def task(keys: Keys, queue: str, task_id: str) -> RequestPlan[TaskInfo | UnreadableTask]:
    """Return one task.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
    """
    return read_task(queue, (yield from find(keys, queue, task_id)))


def find(keys: Keys, name: str, task_id: str) -> RequestPlan[StoredTask]:
    """Return the stored form of a task."""
    check_text("queue", name)
    check_text("task_id", task_id)
    read = views.read_task(keys.queue(name), task_id, max_result=MESSAGE_MAX, identify=True)
    stored = yield from ask(read)
    if stored is None:
        yield from known_queue(keys, name)
        raise TaskNotFoundError(name, task_id)
    return stored


def read_task(queue: str, stored: StoredTask) -> TaskInfo | UnreadableTask:
    """Return the record of a stored task, with the queue and the id under which it is stored.

    The message may name another queue or id, and an action on a listed task must not reach another task.
    """
    problem = "it is listed, but its data is missing"
    if stored.message:
        try:
            task = task_info(stored)
            is_itself = task.queue == queue and task.id == stored.task_id
            return task if is_itself else replace(task, queue=queue, id=stored.task_id)
        except WireFormatError as error:
            problem = str(error)
    assert stored.state is not None
    return UnreadableTask(
        id=stored.task_id,
        queue=queue,
        state=stored.state,
        problem=problem,
        message=b"" if unread_size(stored.message) else stored.message,
        generation=stored.generation,
    )


def is_reversed(state: TaskState, order: TaskOrder) -> bool:
    """Return whether an order begins with the latest time of the state."""
    match order:
        case TaskOrder.NEXT:
            return state in FINAL
        case TaskOrder.RECENT:
            return state not in (TaskState.SCHEDULED, TaskState.RETRY)
    return order is TaskOrder.NEWEST


def _read(
    queue: QueueKeys,
    state: TaskState,
    *,
    skip: int,
    count: int,
    group: str | None = None,
    is_reversed: bool = False,
) -> RequestPlan[Page]:
    """Read a page of tasks. Large tasks need several calls."""
    tasks: list[StoredTask] = []
    while True:
        step = views.list_tasks(
            queue, state, skip=skip + len(tasks), count=count - len(tasks), group=group, is_reversed=is_reversed
        )
        answer = yield from ask(step)
        tasks += answer.tasks
        if not answer.tasks or len(tasks) == count or skip + len(tasks) >= answer.size:
            return Page(answer.size, tasks)


def list_tasks(
    keys: Keys,
    infos: Iterable[QueueInfo],
    state: TaskState | None,
    *,
    skip: int,
    count: int,
    group: str | None = None,
    order: TaskOrder = TaskOrder.NEXT,
) -> RequestPlan[list[TaskInfo | UnreadableTask]]:
    """Return tasks of several queues, sorted by state, then by queue.

    Args:
        keys: The key names.
        infos: The queues with their numbers of tasks. At most one queue if a group is given.
        state: The state. None: all of `LISTED_STATES`.
        skip: Number of tasks to skip.
        count: Maximum number of tasks.
        group: Group of the tasks, with `TaskState.AGGREGATING`.
        order: Order of the tasks of each state and queue.
    """
    infos = list(infos)
    tasks: list[TaskInfo | UnreadableTask] = []
    if group is not None:
        for info in infos:
            queue = keys.queue(info.name)
            page = yield from _read(
                queue,
                TaskState.AGGREGATING,
                skip=skip,
                count=count,
                group=group,
                is_reversed=is_reversed(TaskState.AGGREGATING, order),
            )
            tasks += [read_task(info.name, stored) for stored in page.tasks]
        return tasks
    left = count
    for each in _listed(state):
        for info in infos:
            size = info.sizes[each]
            part = min(left, size - skip)
            if part > 0:
                queue = keys.queue(info.name)
                page = yield from _read(queue, each, skip=skip, count=part, is_reversed=is_reversed(each, order))
                tasks += [read_task(info.name, stored) for stored in page.tasks]
                left -= part
            skip = max(0, skip - size)
    return tasks


def tasks(
    keys: Keys,
    queue: str | None = None,
    state: TaskState | None = None,
    *,
    group: str | None = None,
    page: int = 1,
    page_size: int = 30,
) -> RequestPlan[TaskPage]:
    """Return a page of tasks. Archived and completed tasks begin with the newest, others with the task that runs next.

    Args:
        queue: Name of the tasks' queue; None for all queues.
        state: State of the tasks. None: all of `LISTED_STATES` in that order, without tasks in groups.
        group: Group of the tasks, together with `queue` and `TaskState.AGGREGATING`.
        page: Number of the page, from 1. A page after the last one is empty.
        page_size: Maximum number of tasks on a page, 1 to 1000.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: `page` or `page_size` is out of bounds, or `group` does not fit the state.
    """
    check_page(page, page_size)
    state = state if state is None else known_state(state)
    if group is not None and (queue is None or state is not TaskState.AGGREGATING):
        raise ConfigurationError(f"group={group!r} needs its queue and the state 'aggregating'")
    if group is None and state is TaskState.AGGREGATING:
        raise ConfigurationError("state 'aggregating' needs queue and group: tasks in groups are listed by group")
    skip = (page - 1) * page_size
    if queue is not None and state is not None:
        queue_keys = yield from known_queue(keys, queue)
        from_end = is_reversed(state, TaskOrder.NEXT)
        found = yield from _read(queue_keys, state, skip=skip, count=page_size, group=group, is_reversed=from_end)
        tasks, total = [read_task(queue, stored) for stored in found.tasks], found.size
    else:
        infos = (yield from _all_counted(keys)) if queue is None else [(yield from _counted(keys, queue))]
        tasks = yield from list_tasks(keys, infos, state, skip=skip, count=page_size)
        total = total_of(infos, state)
    return TaskPage(tasks=tuple(tasks), total=total, page=page, page_size=page_size)


def _listed(state: TaskState | None) -> Sequence[TaskState]:
    """Return the states whose tasks a list shows: the given state, or all of `LISTED_STATES` if it is None."""
    return LISTED_STATES if state is None else (state,) if state in LISTED_STATES else ()


def total_of(infos: Iterable[QueueInfo], state: TaskState | None) -> int:
    """Return how many tasks a list of these queues shows: tasks in `state`, or in all listed states for None."""
    return sum(info.sizes[each] for info in infos for each in _listed(state))


def check_page(page: int, page_size: int) -> None:
    """Check that the number and the size of a page are valid."""
    check_whole("page", page, least=1, most=10**9)
    check_whole("page_size", page_size, least=1, most=PAGE_SIZE_MAX)
