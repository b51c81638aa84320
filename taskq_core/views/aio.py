"""Read the records that dashboards show, for coroutines: one method for each `read_*` plan of this package."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

from taskq_core.broker.plans import RequestPlan, T
from taskq_core.inspector import AsyncInspector
from taskq_core.inspector.reading import read_history
from taskq_core.views.queues import read_queue, read_queues
from taskq_core.views.samples import read_samples
from taskq_core.views.store import read_store
from taskq_core.views.tasks import read_tasks, search_tasks, select_tasks
from taskq_core.views.timeline import read_timeline
from taskq_core.views.types import read_types
from taskq_core.views.workers import read_workers
from taskq_core.views.workflow_lists import count_workflows, list_workflows, read_workflows, search_workflows
from taskq_core.views.workflows import read_step, read_workflow
from taskq_core.wire import Keys

P = ParamSpec("P")


def _reads(
    plan: Callable[Concatenate[Keys, P], RequestPlan[T]],
) -> "Callable[Concatenate[AsyncDashboard, P], Coroutine[Any, Any, T]]":
    """Return the method that runs a plan, such as `read_queues`."""

    @functools.wraps(plan)
    async def method(self: "AsyncDashboard", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._inspector.run_plan(lambda keys: plan(keys, *args, **kwargs))

    return method


class AsyncDashboard:
    """Reads the records that dashboards show, for coroutines.

    Every method raises a `BrokerError` if Redis refuses or does not answer in time. The number of requests depends on
    the number of queues and workers, not on the number of tasks.

    Args:
        inspector: Sends the requests.
    """

    def __init__(self, inspector: AsyncInspector) -> None:
        self._inspector = inspector

    queues = _reads(read_queues)
    queue = _reads(read_queue)
    history = _reads(read_history)
    samples = _reads(read_samples)
    types = _reads(read_types)
    workers = _reads(read_workers)
    workflows = _reads(read_workflows)
    workflow = _reads(read_workflow)
    workflow_step = _reads(read_step)
    workflow_counts = _reads(count_workflows)
    list_workflows = _reads(list_workflows)
    search_workflows = _reads(search_workflows)
    store = _reads(read_store)
    timeline = _reads(read_timeline)
    tasks = _reads(read_tasks)
    search_tasks = _reads(search_tasks)
    select_tasks = _reads(select_tasks)
