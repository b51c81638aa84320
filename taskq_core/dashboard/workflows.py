"""Workflows of a queue: a list of them, and one with its steps laid out as a drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from taskq_core.broker import operations
from taskq_core.dashboard.graphs import GraphDrawing, drawing_of
from taskq_core.errors import BrokerReplyError, ConfigurationError, WorkflowDamagedError
from taskq_core.inspector.known import known_queue
from taskq_core.records import TaskInfo
from taskq_core.steps import Steps, ask
from taskq_core.wire import Keys, QueueKeys
from taskq_core.workflow.reading import Stored, ask_graph
from taskq_core.workflow.records import WorkflowGraph, WorkflowState
from taskq_core.workflow.sending import WORKFLOW, WORKFLOW_QUEUE

WORKFLOWS_MAX = 1_000
"""Most workflows of one page."""
_FIELDS = ("state", "name", "created", "ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRow:
    """A workflow in a list.

    Attributes:
        id: Its id.
        name: Its name, "" for none.
        state: How it stands.
        created_at: When it began, aware UTC; None of a damaged one.
        ended_at: When it ended, None while it runs.
    """

    id: str
    name: str
    state: WorkflowState
    created_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowsPage:
    """Part of the workflows whose home a queue is.

    Attributes:
        queue: Name of the queue.
        rows: Those that run first, then those that have ended; of both the newest first.
        running: How many run.
        ended: How many have ended and are kept.
    """

    queue: str
    rows: Sequence[WorkflowRow]
    running: int
    ended: int

    @property
    def total(self) -> int:
        """How many there are."""
        return self.running + self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDetail:
    """One workflow.

    Attributes:
        graph: How it stands, with its steps.
        drawing: Its steps laid out; None where they are more than a drawing can show.
    """

    graph: WorkflowGraph
    drawing: GraphDrawing | None

    @property
    def failures(self) -> int:
        """How many steps have failed, members of groups each as one: what a retry runs again."""
        return sum(step.failed if step.members is not None else step.state == "failed" for step in self.graph.steps)


def workflow_of(task: TaskInfo) -> tuple[str, str] | None:
    """Return the home queue and the id of the workflow that a task is a step of; None if it is none."""
    queue, workflow_id = task.headers.get(WORKFLOW_QUEUE), task.headers.get(WORKFLOW)
    return (queue, workflow_id) if queue and workflow_id else None


def read_workflows(keys: Keys, name: str, *, skip: int, count: int) -> Steps[WorkflowsPage]:
    """Return part of a queue's workflows. Five calls, and one more for each workflow.

    One that is forgotten while it is read is left out; one that is damaged says so and hides no other.
    """
    if skip < 0:
        raise ConfigurationError(f"skip must be at least 0, got {skip}")
    if not 1 <= count <= WORKFLOWS_MAX:
        raise ConfigurationError(f"count must be from 1 to {WORKFLOWS_MAX}, got {count}")
    queue = yield from known_queue(keys, name)
    running = yield from ask(operations.count_workflows(queue, ended=False))
    ended = yield from ask(operations.count_workflows(queue, ended=True))
    ids: list[str] = []
    if skip < running:
        ids += yield from ask(operations.list_workflows(queue, ended=False, skip=skip, count=count))
    if len(ids) < count and skip + count > running:
        first = max(0, skip - running)
        ids += yield from ask(operations.list_workflows(queue, ended=True, skip=first, count=count - len(ids)))
    rows = []
    for workflow_id in dict.fromkeys(ids):  # one that ends meanwhile stands in both lists
        try:
            values = yield from ask(operations.look_at_workflow(queue, workflow_id, _FIELDS))
        except BrokerReplyError:  # a key of another type
            rows.append(_damaged(workflow_id))
            continue
        if values is not None:
            rows.append(_row(queue, workflow_id, *values))
    return WorkflowsPage(queue=name, rows=rows, running=running, ended=ended)


def _row(
    queue: QueueKeys,
    workflow_id: str,
    state: bytes | None,
    name: bytes | None,
    created: bytes | None,
    ended: bytes | None,
) -> WorkflowRow:
    stored = Stored(queue, workflow_id)
    called = (name or b"").decode("utf-8", "replace")
    try:
        return WorkflowRow(
            id=workflow_id,
            name=called,
            state=stored.state(state),
            created_at=stored.time("created", created),
            ended_at=stored.time("ended", ended) if ended else None,
        )
    except WorkflowDamagedError:
        return _damaged(workflow_id, called)


def _damaged(workflow_id: str, name: str = "") -> WorkflowRow:
    return WorkflowRow(id=workflow_id, name=name, state=WorkflowState.DAMAGED, created_at=None, ended_at=None)


def read_workflow(keys: Keys, name: str, workflow_id: str) -> Steps[WorkflowDetail]:
    """Return one workflow with its steps and their drawing."""
    queue = yield from known_queue(keys, name)
    graph: WorkflowGraph = yield from ask_graph(queue, workflow_id)
    return WorkflowDetail(graph=graph, drawing=drawing_of(graph))
