"""Read the records that dashboards show, for coroutines. `read_*` functions plan requests, this class sends them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from taskq_core.inspector import AsyncInspector, QueueInfo
from taskq_core.views.history import DayRow, read_history
from taskq_core.views.queues import QueueDetail, QueuesOverview, read_queue, read_queues
from taskq_core.views.samples import POINTS, QueueSeries, read_samples
from taskq_core.views.store import StoreRow, read_store
from taskq_core.views.tasks import (
    SCAN_MAX,
    TaskFilter,
    TaskRecord,
    TaskSearch,
    TaskSelection,
    read_tasks,
    search_tasks,
    select_tasks,
)
from taskq_core.views.types import STATE_SCAN, StateTypes, TypesOverview, read_state_types, read_types
from taskq_core.views.workers import WorkersOverview, read_workers
from taskq_core.views.workflow_lists import (
    WORKFLOW_SCAN_MAX,
    WorkflowCounts,
    WorkflowFilter,
    WorkflowRow,
    WorkflowSearch,
    WorkflowsPage,
    count_workflows,
    list_workflows,
    read_workflows,
    search_workflows,
)
from taskq_core.views.workflows import StepDetail, WorkflowDetail, read_step, read_workflow
from taskq_core.wire import TaskState


class AsyncDashboard:
    """Reads the records that dashboards show, for coroutines.

    Every method raises a `BrokerError` if Redis refuses or does not answer in time. The number of requests depends on
    the number of queues and workers, not on the number of tasks.

    Args:
        inspector: Sends the requests.
    """

    def __init__(self, inspector: AsyncInspector) -> None:
        self._inspector = inspector

    async def queues(self) -> QueuesOverview:
        """Return state, counts and memory of every queue, and their sums. A damaged queue is marked as damaged."""
        return await self._inspector.run_plan(read_queues)

    async def queue(self, name: str, *, days: int = 30) -> QueueDetail:
        """Return one queue in full: its state and counts, its history and its task types.

        Args:
            name: Name of the queue.
            days: Days of its history, 1 to 90.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The number of days is out of bounds.
        """
        return await self._inspector.run_plan(partial(read_queue, name=name, days=days))

    async def history(self, names: Sequence[str], *, days: int = 30) -> Sequence[DayRow]:
        """Return the daily counters of queues, added up, the oldest day first. Days are UTC.

        Args:
            names: Names of the queues. A queue that does not exist counts as 0.
            days: Number of days, 1 to 90.

        Raises:
            ConfigurationError: The number of days is out of bounds.
        """
        return await self._inspector.run_plan(partial(read_history, names=names, days=days))

    async def samples(
        self, names: Sequence[str], *, span: timedelta, until: datetime | None = None, points: int = POINTS
    ) -> Sequence[QueueSeries]:
        """Return the samples of queues, taken every ten seconds, for charts.

        Args:
            names: Names of the queues. A queue without samples has an empty series.
            span: Length of the period, a minute to 31 days. The finest resolution that covers it is read.
            until: End of the period. None: now.
            points: Maximum number of samples of each queue, 10 to 2000.

        Raises:
            ConfigurationError: The span, its end or the number of points is out of bounds.
        """
        return await self._inspector.run_plan(partial(read_samples, names=names, span=span, until=until, points=points))

    async def types(self, names: Sequence[str], *, hours: int = 24) -> TypesOverview:
        """Return outcomes and durations of the runs of queues, added up, by task type.

        Args:
            names: Names of the queues. A queue that does not exist counts as 0.
            hours: Full hours before the current hour, 0 to 24.

        Raises:
            ConfigurationError: The number of hours is out of bounds.
        """
        return await self._inspector.run_plan(partial(read_types, names=names, hours=hours))

    async def state_types(self, name: str, state: TaskState, *, scan: int = STATE_SCAN) -> StateTypes:
        """Count the tasks of one state by type. Reads at most `scan` tasks, up to 10,000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The state is `AGGREGATING`, or the number is out of bounds.
        """
        return await self._inspector.run_plan(partial(read_state_types, name=name, state=state, scan=scan))

    async def workers(self) -> WorkersOverview:
        """Return the running worker processes, including Go's, and their tasks, as of their last heartbeats."""
        return await self._inspector.run_plan(read_workers)

    async def workflows(self, queue: str, *, skip: int = 0, count: int = 50) -> WorkflowsPage:
        """Return the workflows of a home queue: running ones, then ended ones, each the newest first.

        Args:
            queue: Name of the queue.
            skip: Number of workflows to skip.
            count: Maximum number of workflows to return, 1 to 1000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: A number is out of bounds.
        """
        return await self._inspector.run_plan(partial(read_workflows, name=queue, skip=skip, count=count))

    async def workflow(self, queue: str, workflow_id: str) -> WorkflowDetail:
        """Return one workflow with its steps. The steps have a layout for a drawing unless there are too many.

        Raises:
            QueueNotFoundError: No queue has this name.
            WorkflowNotFoundError: The workflow does not exist, or no longer.
            WorkflowDamagedError: What Redis keeps of it cannot be read.
        """
        return await self._inspector.run_plan(partial(read_workflow, name=queue, workflow_id=workflow_id))

    async def workflow_step(
        self, queue: str, workflow_id: str, step: str, *, skip: int = 0, count: int = 50, only_failed: bool = False
    ) -> StepDetail:
        """Return one step of a workflow with its result, or a group with a page of its members in order.

        Args:
            queue: Home queue of the workflow.
            workflow_id: Its id.
            step: Name of the step.
            skip: Number of members to skip.
            count: Maximum number of members to return, 1 to 500.
            only_failed: Return only failed members: the first `count` of them. `skip` must be 0.

        Raises:
            QueueNotFoundError: No queue has this name.
            WorkflowNotFoundError: The workflow or the step does not exist, or no longer.
            WorkflowDamagedError: What Redis keeps of it cannot be read.
            ConfigurationError: A number is out of bounds.
        """
        return await self._inspector.run_plan(
            partial(
                read_step,
                name=queue,
                workflow_id=workflow_id,
                step=step,
                skip=skip,
                count=count,
                only_failed=only_failed,
            )
        )

    async def workflow_counts(self, names: Sequence[str]) -> Sequence[WorkflowCounts]:
        """Count the workflows of each of these home queues, by name."""
        return await self._inspector.run_plan(partial(count_workflows, names=names))

    async def list_workflows(
        self, counts: Sequence[WorkflowCounts], wanted: WorkflowFilter, *, skip: int = 0, count: int = 50
    ) -> Sequence[WorkflowRow]:
        """Return workflows of several queues: running ones queue by queue, then ended ones.

        Args:
            counts: Number of workflows, from `workflow_counts`.
            wanted: The filter. It must not need to read each workflow.
            skip: Number of workflows to skip.
            count: Maximum number of workflows to return, 1 to 1000.

        Raises:
            ConfigurationError: The filter needs to read workflows, or a number is out of bounds.
        """
        return await self._inspector.run_plan(
            partial(list_workflows, counts=counts, wanted=wanted, skip=skip, count=count)
        )

    async def search_workflows(
        self,
        counts: Sequence[WorkflowCounts],
        wanted: WorkflowFilter,
        *,
        cursor: str | None = None,
        scan: int = WORKFLOW_SCAN_MAX,
    ) -> WorkflowSearch:
        """Search workflows that match a filter.

        Args:
            counts: Number of workflows, from `workflow_counts`.
            wanted: The filter.
            cursor: `WorkflowSearch.cursor` of the previous call, with the same filter.
            scan: Maximum number of workflows to read, up to 2,000.

        Raises:
            ConfigurationError: The cursor is not valid, or a number is out of bounds.
        """
        return await self._inspector.run_plan(
            partial(search_workflows, counts=counts, wanted=wanted, cursor=cursor, scan=scan)
        )

    async def store(self) -> StoreRow:
        """Return facts about the Redis server. On a cluster: about one node, with the slots and nodes of the queues."""
        return await self._inspector.run_plan(read_store)

    async def tasks(
        self,
        infos: Sequence[QueueInfo],
        wanted: TaskFilter,
        *,
        skip: int = 0,
        count: int = 50,
        is_newest_first: bool = False,
    ) -> Sequence[TaskRecord]:
        """Return tasks, sorted by state as in `LISTED_STATES`, then by queue.

        Args:
            infos: The queues, from `Inspector.queue_infos`.
            wanted: The filter. It must not need to read inside tasks.
            skip: Number of tasks to skip.
            count: Maximum number of tasks to return, up to 1000.
            is_newest_first: Within a state, the newest tasks come first, not the next to run. Tasks that wait for a
                time are still sorted by that time.

        Raises:
            ConfigurationError: The filter needs to read inside tasks, or a number is out of bounds.
        """
        return await self._inspector.run_plan(
            partial(read_tasks, infos=infos, wanted=wanted, skip=skip, count=count, is_newest_first=is_newest_first)
        )

    async def search_tasks(
        self,
        infos: Sequence[QueueInfo],
        wanted: TaskFilter,
        *,
        cursor: str | None = None,
        scan: int = SCAN_MAX,
        limit: int = SCAN_MAX,
    ) -> TaskSearch:
        """Search tasks by reading inside them. A text that is the full id of a task finds only tasks with that id.

        Args:
            infos: The queues, from `Inspector.queue_infos`.
            wanted: The filter.
            cursor: `TaskSearch.cursor` of the previous call, with the same filter.
            scan: Maximum number of tasks to read, up to 10,000.
            limit: Maximum number of tasks to return, up to 10,000.

        Raises:
            ConfigurationError: The cursor is not valid, or a number is out of bounds.
        """
        return await self._inspector.run_plan(
            partial(search_tasks, infos=infos, wanted=wanted, cursor=cursor, scan=scan, limit=limit)
        )

    async def select_tasks(
        self, infos: Sequence[QueueInfo], wanted: TaskFilter, *, states: Sequence[TaskState]
    ) -> TaskSelection:
        """Select all matching tasks in these states, at most 10,000, for `Inspector.act_on`.

        Args:
            infos: The queues, from `Inspector.queue_infos`.
            wanted: The filter.
            states: States that allow the action, from `ALLOWED_STATES`.
        """
        return await self._inspector.run_plan(partial(select_tasks, infos=infos, wanted=wanted, states=states))
