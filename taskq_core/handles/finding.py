"""Find a task by its id alone, as a request plan without I/O (`taskq_core.broker.plans`)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from taskq_core.broker.operations import views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.wire import Keys

QUEUES_AT_ONCE = 500
"""Maximum number of queues that one request searches for a task."""


def find_task(
    keys: Keys, likely: Iterable[str], task_id: str, *, queue: str | None, is_cluster: bool
) -> RequestPlan[TaskInfo | None]:
    """Return a task from the first queue that has its id, None if no queue has it.

    The likely queues are searched first, then all queues in Redis. The second search includes the likely queues,
    because the task may have been moved into one of them after the first search. With `queue`, only that queue is
    searched.
    """
    if queue is not None:
        return (yield from _find_in(keys, (queue,), task_id, is_cluster=is_cluster))
    likely = tuple(dict.fromkeys(likely))
    found = yield from _find_in(keys, likely, task_id, is_cluster=is_cluster)
    if found is not None:
        return found
    try:
        known = yield from ask(views.list_queues(keys.queues))
        return (yield from _find_in(keys, tuple(dict.fromkeys((*likely, *known))), task_id, is_cluster=is_cluster))
    except BrokerAuthenticationError:
        return None  # the Redis user of a producer may have no right to list or read all queues


def _find_in(keys: Keys, names: Sequence[str], task_id: str, *, is_cluster: bool) -> RequestPlan[TaskInfo | None]:
    if len(names) > 1 and not is_cluster:
        queues = [keys.queue(name) for name in names]
        names = []
        for start in range(0, len(queues), QUEUES_AT_ONCE):
            names += yield from ask(views.locate(queues[start : start + QUEUES_AT_ONCE], task_id))
    for name in names:
        stored = yield from ask(views.read_task(keys.queue(name), task_id, identify=True))
        if stored is not None:
            info = task_info(stored)
            is_itself = info.queue == name and info.id == task_id  # a damaged message may contain another queue or id
            return info if is_itself else replace(info, queue=name, id=task_id)
    return None
