"""Members of groups: streamed members, batches of members, and members that a running member adds."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Operation
from taskq_core.broker.operations.workflows import grow_group
from taskq_core.client.preparer import Preparer
from taskq_core.errors import WorkflowDefinitionError, WorkflowError
from taskq_core.execution.context import TaskContext
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.step_options import WorkflowDetails
from taskq_core.workflow.graph import Graph, Node
from taskq_core.workflow.sending import WORKFLOW, WORKFLOW_QUEUE, Outgoing

T = TypeVar("T")

MEMBERS_AT_ONCE = 100
"""Maximum size of a group that is stored together with the workflow. Members of larger groups are streamed."""
HELD_MAX = 10_000
"""Maximum number of members of a group that waits for earlier steps, because such a group is stored as a whole."""
Batch = tuple[Node, int, list[bytes]]
"""A batch of members: the group, the number of the first member, and the stored forms of the members."""


def members_of(node: Node) -> Iterator[Any]:
    """Yield the members of a group that is stored as a whole.

    Raises:
        WorkflowDefinitionError: The group has too many members.
    """
    for number, member in enumerate(node.members):
        if number >= HELD_MAX and node.before.parents:
            raise WorkflowDefinitionError(
                node.name,
                f"the group has more than {HELD_MAX} members; only a group without predecessors may have more",
            )
        yield member


def is_streamed(node: Node) -> bool:
    """Return whether the members of a group are sent in batches after the workflow has begun."""
    is_small = isinstance(node.members, Sequence) and len(node.members) <= MEMBERS_AT_ONCE
    return node.is_group and not node.before.parents and not is_small


class Filler:
    """Collects encoded members of a group into batches. Each batch is sent by one script call.

    Attributes:
        members: The encoded members of the next batch.
    """

    def __init__(self) -> None:
        self.members: list[bytes] = []
        self._first = 0
        self._bytes = 0

    def add(self, packed: bytes) -> bool:
        """Add an encoded member to the batch, and return whether the batch is now full."""
        self.members.append(packed)
        self._bytes += len(packed)
        return len(self.members) >= BATCH_MAX or self._bytes >= BATCH_BYTES

    def take(self) -> tuple[int, list[bytes]]:
        """Return the index of the batch's first member in the group, and the batch. Begin the next batch."""
        first, members = self._first, self.members
        self._first += len(members)
        self.members, self._bytes = [], 0
        return first, members


class Growing:
    """Encodes the members that a running task adds to its own group.

    Args:
        preparer: Makes keys, headers and spans.
        context: Context of the run that adds the members. The context counts the added members, so that the next
            attempt of the task gives the same members the same ids.

    Raises:
        WorkflowError: The task is not a member of a group.
    """

    def __init__(self, preparer: Preparer, context: TaskContext) -> None:
        queue, workflow_id = context.headers.get(WORKFLOW_QUEUE), context.headers.get(WORKFLOW, "")
        name = context.id.removeprefix(f"{workflow_id}.").partition(".")[0]
        if queue is None or not context.id.startswith(f"{workflow_id}.{name}."):
            raise WorkflowError(context.queue, workflow_id, f"task {context.id!r} is not a member of a group")
        home = preparer.keys.queue(queue)
        self.span = preparer.tracing.start_producer(home.name, name, context.id)
        self._outgoing = Outgoing(preparer, Graph(WorkflowDetails()), workflow_id, home, self.span)
        self._node = Node(0, name)
        self._context = context

    def pack(self, call: Any) -> bytes:
        """Encode a new member for storage in Redis, and count it."""
        if not isinstance(call, Signature):
            raise WorkflowDefinitionError(self._node.name, f"a member must be a signature, got {call!r:.200}")
        number = getattr(self._context, "grown", 0)
        self._context.grown = number + 1
        return self._outgoing.pack(self._node, call, f"{self._context.id}-{number}")

    def operation(self, filler: "Filler") -> Operation[int | None]:
        """Return the operation that adds the collected batch to the group."""
        outgoing = self._outgoing
        return grow_group(outgoing.home, outgoing.id, self._node.name, self._context.id, filler.take()[1])

    def read(self, added: int | None) -> int:
        """Return the number of added members, from the reply of `operation`.

        Raises:
            WorkflowError: The group accepts no more members.
        """
        if added is None:
            outgoing, task_id = self._outgoing, self._context.id
            raise WorkflowError(
                outgoing.home.name, outgoing.id, f"the group {self._node.name!r} or the member {task_id!r} has ended"
            )
        return added
