"""What operators look at, for coroutines. `read_*` functions describe the reads, and this class sends them."""

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
    """Reads what operators look at, for coroutines.

    Every method raises a `BrokerError` if Redis refuses or does not answer in time. The number of requests depends on
    the number of queues and workers, not on the number of tasks.

    Args:
        inspector: Sends the requests.
    """

    def __init__(self, inspector: AsyncInspector) -> None:
        self._inspector = inspector

    async def queues(self) -> QueuesOverview:
        """Return how every queue stands, with its memory, and the sums. A damaged one says so and hides no other."""
        return await self._inspector.follow(read_queues)

    async def queue(self, name: str, *, days: int = 30) -> QueueDetail:
        """Return one queue in full: how it stands, its past, and which types of tasks are in it.

        Args:
            name: Name of the queue.
            days: Days of its past, 1 to 90.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The number of days is out of bounds.
        """
        return await self._inspector.follow(partial(read_queue, name=name, days=days))

    async def history(self, names: Sequence[str], *, days: int = 30) -> Sequence[DayRow]:
        """Return what queues did together day by day, the oldest first and today last. Days are UTC.

        Args:
            names: Names of the queues; one that is gone adds nothing.
            days: How many days, 1 to 90.

        Raises:
            ConfigurationError: The number of days is out of bounds.
        """
        return await self._inspector.follow(partial(read_history, names=names, days=days))

    async def samples(
        self, names: Sequence[str], *, span: timedelta, until: datetime | None = None, points: int = POINTS
    ) -> Sequence[QueueSeries]:
        """Return how queues stood in a span of time, sampled every ten seconds: what charts are drawn from.

        Args:
            names: Names of the queues; one without samples has an empty series.
            span: How long, from a minute to 31 days. The finest resolution that reaches back so far is read.
            until: Where the span ends; None for now.
            points: Most samples of each queue, 10 to 2000.

        Raises:
            ConfigurationError: The span, its end or the number of points is out of bounds.
        """
        return await self._inspector.follow(partial(read_samples, names=names, span=span, until=until, points=points))

    async def types(self, names: Sequence[str], *, hours: int = 24) -> TypesOverview:
        """Return what became of the runs of queues together, by task type, with how long they took.

        Args:
            names: Names of the queues; one that is gone adds nothing.
            hours: Hours before the one that has begun, 0 to 24.

        Raises:
            ConfigurationError: The number of hours is out of bounds.
        """
        return await self._inspector.follow(partial(read_types, names=names, hours=hours))

    async def state_types(self, name: str, state: TaskState, *, scan: int = STATE_SCAN) -> StateTypes:
        """Return how many tasks of one state are of which type, of at most `scan` that are read, up to 10 000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The tasks of this state stand in groups, or the number is out of bounds.
        """
        return await self._inspector.follow(partial(read_state_types, name=name, state=state, scan=scan))

    async def workers(self) -> WorkersOverview:
        """Return the worker processes that live, Go's too, and what they run, as of their last heartbeats."""
        return await self._inspector.follow(read_workers)

    async def workflows(self, queue: str, *, skip: int = 0, count: int = 50) -> WorkflowsPage:
        """Return workflows whose home a queue is: those that run, then those that have ended, each the newest first.

        Args:
            queue: Name of the queue.
            skip: How many to leave out before.
            count: Most workflows to return, 1 to 1000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: A number is out of bounds.
        """
        return await self._inspector.follow(partial(read_workflows, name=queue, skip=skip, count=count))

    async def workflow(self, queue: str, workflow_id: str) -> WorkflowDetail:
        """Return one workflow with its steps, laid out as a drawing unless they are more than one can show.

        Raises:
            QueueNotFoundError: No queue has this name.
            WorkflowNotFoundError: There is no such workflow, or it is kept no longer.
            WorkflowDamagedError: What Redis keeps of it cannot be read.
        """
        return await self._inspector.follow(partial(read_workflow, name=queue, workflow_id=workflow_id))

    async def workflow_step(
        self, queue: str, workflow_id: str, step: str, *, skip: int = 0, count: int = 50, only_failed: bool = False
    ) -> StepDetail:
        """Return one step of a workflow with what it returned, or a group with members in their order.

        Args:
            queue: Home queue of the workflow.
            workflow_id: Its id.
            step: Name of the step.
            skip: How many members to leave out before.
            count: Most members to return, 1 to 500.
            only_failed: Return members that have failed alone: so many of them, by number, and with no `skip`.

        Raises:
            QueueNotFoundError: No queue has this name.
            WorkflowNotFoundError: There is no such workflow or no such step in it, or it is kept no longer.
            WorkflowDamagedError: What Redis keeps of it cannot be read.
            ConfigurationError: A number is out of bounds.
        """
        return await self._inspector.follow(
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
        """Return how many workflows have each of these queues as their home, by name."""
        return await self._inspector.follow(partial(count_workflows, names=names))

    async def list_workflows(
        self, counts: Sequence[WorkflowCounts], wanted: WorkflowFilter, *, skip: int = 0, count: int = 50
    ) -> Sequence[WorkflowRow]:
        """Return workflows of several queues: those that run, queue by queue, then those that have ended.

        Args:
            counts: How many there are, from `workflow_counts`.
            wanted: Which; nothing for which each has to be looked at.
            skip: How many to leave out before.
            count: Most workflows to return, 1 to 1000.

        Raises:
            ConfigurationError: The filter looks at workflows, or a number is out of bounds.
        """
        return await self._inspector.follow(
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
        """Look at workflows for those that fit.

        Args:
            counts: How many there are, from `workflow_counts`.
            wanted: Which.
            cursor: `WorkflowSearch.cursor` of the call to carry on, with the same filter.
            scan: Most workflows to read, up to 2 000.

        Raises:
            ConfigurationError: The cursor is foreign, or a number is out of bounds.
        """
        return await self._inspector.follow(
            partial(search_workflows, counts=counts, wanted=wanted, cursor=cursor, scan=scan)
        )

    async def store(self) -> StoreRow:
        """Return what the store says of itself; of a cluster, one of its nodes, and where queues stand."""
        return await self._inspector.follow(read_store)

    async def tasks(
        self,
        infos: Sequence[QueueInfo],
        wanted: TaskFilter,
        *,
        skip: int = 0,
        count: int = 50,
        is_newest_first: bool = False,
    ) -> Sequence[TaskRecord]:
        """Return tasks by queue and state, those of `LISTED_STATES` one state after another.

        Args:
            infos: How the queues stand, from `Inspector.queue_infos`.
            wanted: Which tasks; nothing that has to be looked for inside them.
            skip: How many to leave out.
            count: Most tasks to return, up to 1000.
            is_newest_first: Within a state, the newest first instead of those next to run; those that wait for a time
                stay in the order of that.

        Raises:
            ConfigurationError: The filter looks inside tasks, or a number is out of bounds.
        """
        return await self._inspector.follow(
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
        """Look inside tasks for those that fit. A text that is the whole id of tasks finds just these.

        Args:
            infos: How the queues stand, from `Inspector.queue_infos`.
            wanted: Which tasks.
            cursor: `TaskSearch.cursor` of the call to carry on, with the same filter.
            scan: Most tasks to read, up to 10 000.
            limit: Most tasks to return, up to 10 000.

        Raises:
            ConfigurationError: The cursor is foreign, or a number is out of bounds.
        """
        return await self._inspector.follow(
            partial(search_tasks, infos=infos, wanted=wanted, cursor=cursor, scan=scan, limit=limit)
        )

    async def select_tasks(
        self, infos: Sequence[QueueInfo], wanted: TaskFilter, *, states: Sequence[TaskState]
    ) -> TaskSelection:
        """Select all tasks that fit and are in one of these states, at most 10 000, for `Inspector.act_on`.

        Args:
            infos: How the queues stand, from `Inspector.queue_infos`.
            wanted: Which tasks.
            states: States that allow what is to be done, as `ALLOWED_STATES` has them.
        """
        return await self._inspector.follow(partial(select_tasks, infos=infos, wanted=wanted, states=states))
