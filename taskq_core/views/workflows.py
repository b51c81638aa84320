"""Read a workflow with a drawing of its steps, and a step with its result or its members."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from taskq_core.broker.operations import workflows
from taskq_core.broker.operations.workflows import StoredMember, StoredStep
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError, WorkflowNotFoundError
from taskq_core.handles.records import TaskInfo
from taskq_core.handles.workflow_plans import LOOKED_UP_MAX, ask_attempts, ask_graph, ask_step
from taskq_core.handles.workflow_records import StepInfo, StepState, WorkflowGraph, WorkflowState
from taskq_core.inspector.known import known_queue
from taskq_core.settings import check_whole
from taskq_core.views.graphs import GraphDrawing, drawing_of
from taskq_core.wire import Keys, QueueKeys
from taskq_core.workflow.sending import WORKFLOW, WORKFLOW_QUEUE

MEMBERS_MAX = 500
"""Maximum number of members of a group that are read at once."""
STEP_RESULT_BYTES = 64 * 1024
"""Maximum number of bytes of the result of a step that are read."""
MEMBER_RESULT_BYTES = 4 * 1024
"""Maximum number of bytes of the result of a group member that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDetail:
    """One workflow.

    Attributes:
        graph: State and steps of the workflow.
        drawing: Drawing of the steps. None: there are too many steps.
    """

    graph: WorkflowGraph
    drawing: GraphDrawing | None

    @property
    def failures(self) -> int:
        """Number of failed steps and group members, which a retry runs again."""
        return sum(step.failed if step.members is not None else step.state == "failed" for step in self.graph.steps)

    @property
    def can_be_retried(self) -> bool:
        """Whether the workflow has failed steps, and is in a state in which they can run again."""
        return self.failures > 0 and self.graph.info.state in (WorkflowState.RUNNING, WorkflowState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """A member of a group.

    Attributes:
        number: Number of the member, from 0.
        task_id: Id of its task. The task may be deleted.
        queue: Queue of its task.
        state: State of the member. `StepState.STARTED` also while the task moves to another queue.
        error: Text of its failure, or why its result was not stored, cut to 200 bytes. While the member is retried, the
            text of its last error. "" if none applies.
        result: Result of the member as JSON, cut to `MEMBER_RESULT_BYTES`. b"" if there is no result.
        result_size: Number of bytes of the whole result.
        retried: Number of failed runs of a started member.
        max_retry: For a retried member, the maximum number of retries.
    """

    number: int
    task_id: str
    queue: str
    state: StepState
    error: str
    result: bytes
    result_size: int
    retried: int = 0
    max_retry: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDetail:
    """A step of a workflow, or a group with some of its members.

    Attributes:
        queue: Home queue of the workflow.
        workflow_id: Id of the workflow.
        workflow_name: Name of the workflow, or "".
        workflow_state: State of the workflow.
        step: The step.
        result: The result of a single step as JSON, cut to `STEP_RESULT_BYTES`. b"" if it has no result.
        result_size: Number of bytes of the whole result.
        members: The requested members of a group, in order.
    """

    queue: str
    workflow_id: str
    workflow_name: str
    workflow_state: WorkflowState
    step: StepInfo
    result: bytes
    result_size: int
    members: Sequence[MemberRow]


def workflow_of(task: TaskInfo) -> tuple[str, str] | None:
    """Return the home queue and id of the workflow of a task. None if it is not a step of a workflow."""
    queue, workflow_id = task.headers.get(WORKFLOW_QUEUE), task.headers.get(WORKFLOW)
    return (queue, workflow_id) if queue and workflow_id else None


def has_task(step: StepInfo | MemberRow) -> bool:
    """Return whether the task of a step was enqueued, so that a page can link to it. The task may be deleted."""
    return bool(step.task_id and step.state not in (StepState.WAITING, StepState.SKIPPED))


def read_workflow(keys: Keys, queue: str, workflow_id: str) -> RequestPlan[WorkflowDetail]:
    """Return one workflow with its steps. The answer has a drawing of the steps, unless there are too many steps.

    Raises:
        QueueNotFoundError: No queue has this name.
        WorkflowNotFoundError: The workflow does not exist, or no longer exists.
        WorkflowDamagedError: The workflow cannot be read.
    """
    yield from known_queue(keys, queue)
    graph: WorkflowGraph = yield from ask_graph(keys, queue, workflow_id)
    return WorkflowDetail(graph=graph, drawing=drawing_of(graph))


def read_step(
    keys: Keys, queue: str, workflow_id: str, step: str, *, skip: int = 0, count: int = 50, only_failed: bool = False
) -> RequestPlan[StepDetail]:
    """Return one step of a workflow with its result, or a group with a page of its members in order.

    Args:
        queue: Home queue of the workflow.
        workflow_id: Id of the workflow.
        step: Name of the step.
        skip: Number of members to skip.
        count: Maximum number of members to return, 1 to 500.
        only_failed: Return only failed members, at most `count`. `skip` must be 0.

    Raises:
        QueueNotFoundError: No queue has this name.
        WorkflowNotFoundError: The workflow or the step does not exist, or no longer exists.
        WorkflowDamagedError: The workflow cannot be read.
        ConfigurationError: A number is out of bounds.
    """
    check_whole("skip", skip, least=0, most=10**12)
    if only_failed and skip:
        raise ConfigurationError(f"skip must be 0 with only_failed, got {skip}")
    if not 1 <= count <= MEMBERS_MAX:
        raise ConfigurationError(f"count must be from 1 to {MEMBERS_MAX}, got {count}")
    queue_keys = yield from known_queue(keys, queue)
    called, state, number, found = yield from ask_step(keys, queue, workflow_id, step)
    if found is None:
        raise WorkflowNotFoundError(queue, workflow_id, f"the workflow has no step {step!r:.200}")
    most = STEP_RESULT_BYTES if found.members is None else MEMBER_RESULT_BYTES
    stored: StoredStep | None = yield from ask(
        workflows.read_step(
            queue_keys, workflow_id, number, first=skip, count=count, most=most, only_failed=only_failed
        )
    )
    if stored is None:
        raise WorkflowNotFoundError(queue, workflow_id, "there is no such workflow, or it is no longer stored")
    members = [_member(queue_keys, workflow_id, found, each) for each in stored.members]
    started = [number for number, each in enumerate(members) if each.state is StepState.STARTED]
    for number in started[:LOOKED_UP_MAX]:
        each = members[number]
        members[number] = replace(each, **(yield from ask_attempts(keys, each.queue, each.task_id)))
    return StepDetail(
        queue=queue,
        workflow_id=workflow_id,
        workflow_name=called,
        workflow_state=state,
        step=found,
        result=stored.result,
        result_size=stored.size,
        members=members,
    )


def _member(queue: QueueKeys, workflow_id: str, group: StepInfo, stored: StoredMember) -> MemberRow:
    if stored.end:
        state = StepState.FAILED if stored.end == b"f" else StepState.SUCCEEDED
    elif group.state in (StepState.SUCCEEDED, StepState.FAILED):  # the group ended after the read of its members
        state = StepState.STARTED
    elif group.state is StepState.STARTED and stored.queue == queue.name:
        # The member will be enqueued after earlier members.
        state = StepState.WAITING
    else:
        state = group.state
    return MemberRow(
        number=stored.number,
        task_id=stored.task_id or f"{workflow_id}.{group.name}.{stored.number}",
        queue=stored.queue or queue.name,
        state=state,
        error=stored.failure.decode("utf-8", "replace"),
        result=stored.result,
        result_size=stored.size,
    )
