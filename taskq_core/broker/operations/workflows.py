"""Workflows: store them, start their steps, and read their state."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.new_tasks import ReceiptSlot, StoreCode
from taskq_core.broker.operations.operation import NOW, Argument, Confirmation, Operation, command, script
from taskq_core.broker.operations.outbox import DELIVERED_KEPT_S
from taskq_core.wire import QueueKeys

T = TypeVar("T")

BUILDING_S = 3_600
"""Seconds in which all parts of a workflow must be stored. An incomplete workflow is deleted afterwards."""
OPENING_S = 60
"""Seconds after which a caller that has stopped adding members to an open group counts as dead."""
FIELDS_MAX = 1_000
"""Maximum number of fields of a workflow that one call reads."""


def step_keys(queue: QueueKeys) -> tuple[str, ...]:
    """Return the keys of a queue that a script may read or write when it starts a step of a workflow."""
    return (queue.pending, queue.scheduled, queue.wake, queue.steps, queue.workflows_out)


def create_workflow(
    queue: QueueKeys,
    workflow_id: str,
    entries: Sequence[tuple[str, str, Argument]],
    slot: ReceiptSlot,
    *,
    roots: Sequence[int] | None,
    has_parent: bool = False,
    confirm: Confirmation | None = None,
) -> Operation[bool]:
    """Store a workflow or a part of one, at most about `BATCH_BYTES`. The last part starts it.

    Args:
        queue: Home queue of the workflow.
        workflow_id: Id of the workflow.
        entries: Fields to store: suffix of the key ("" for the workflow itself), field and value.
        slot: Numbers the calls. By this number, a script recognizes a late duplicate, even of a deleted workflow.
        roots: Nodes without predecessors, or None if more parts follow.
        has_parent: True for sub-tasks of a running task. A full Redis accepts them, so that the task can continue.
        confirm: Replicas or disks that must have the write before the operation succeeds.

    The answer is False if the first parts were deleted.
    """
    head: list[Argument] = [BUILDING_S, "" if roots is None else _begin(roots), "", "", ""]
    return _store_part(
        queue, workflow_id, head, entries, slot, replies.boolean, has_parent=has_parent, confirm=confirm, deadline_at=6
    )


def _store_part(
    queue: QueueKeys,
    workflow_id: str,
    head: Sequence[Argument],
    entries: Sequence[tuple[str, str, Argument]],
    slot: ReceiptSlot,
    read: Callable[[Any], T],
    *,
    has_parent: bool = False,
    **options: Any,
) -> Operation[T]:
    slot.call += 1
    args: list[Argument] = [NOW, queue.own_prefix, workflow_id, *head, slot.call, "1" if has_parent else ""]
    for entry in entries:
        args += entry
    keys = (queue.workflow(workflow_id), queue.workflows_running, *step_keys(queue), queue.delivered)
    return script("create_workflow", (*keys, queue.receipt(slot.token), queue.absent), args, read, **options)


def _begin(roots: Sequence[int]) -> str:
    return "".join(f"{number} " for number in roots)


class WorkflowPart(msgspec.Struct, array_like=True):
    """Part of a workflow in a row of an outbox.

    Attributes:
        count: Number of parts of the workflow.
        roots: Nodes without predecessors.
        entries: Fields to store, as in `create_workflow`.
    """

    count: int
    roots: list[int]
    entries: list[tuple[str, str, Any]]

    def pack(self) -> bytes:
        """Encode the part as bytes for a row of an outbox."""
        return msgspec.msgpack.encode(self)


def deliver_workflow(
    queue: QueueKeys,
    receipt: str,
    workflow_id: str,
    packed: bytes,
    slot: ReceiptSlot,
    *,
    claim_ends_ms: int,
    confirm: Confirmation | None = None,
) -> Operation[str]:
    """Store the part of a workflow in a row of an outbox, once. The last missing part starts the workflow.

    As in `deliver`, nothing is stored after `claim_ends_ms`. The answer is a `StoreCode`.
    """
    part = msgspec.msgpack.decode(packed, type=WorkflowPart)
    head: list[Argument] = [DELIVERED_KEPT_S, _begin(part.roots), receipt, claim_ends_ms, part.count]

    def read(reply: Any) -> str:
        return _DELIVERED[int(reply)]

    return _store_part(queue, workflow_id, head, part.entries, slot, read, name="deliver_workflow", confirm=confirm)


_DELIVERED = {1: StoreCode.STORED, 2: StoreCode.STORED_BEFORE, 3: StoreCode.TOO_LATE}


def add_members(
    queue: QueueKeys, workflow_id: str, node: int, *, first: int, members: Sequence[bytes]
) -> Operation[bool]:
    """Add members to an open group of a workflow, at most `BATCH_MAX` of about `BATCH_BYTES`.

    The answer is False if the group is closed, or if the workflow has ended or was deleted.
    """
    keys = (queue.workflow(workflow_id), *step_keys(queue))
    args: tuple[Argument, ...] = (
        NOW,
        queue.own_prefix,
        node,
        first,
        OPENING_S,
        workflow_id,
        *members,
    )
    return script("add_members", keys, args, replies.boolean)


def grow_group(
    queue: QueueKeys, workflow_id: str, name: str, by: str, members: Sequence[bytes]
) -> Operation[int | None]:
    """Add members to a group on behalf of its running member `by`, at most `BATCH_MAX` of about `BATCH_BYTES`.

    The answer is the number of new members, None if the task `by` is not a running member of the group.
    """
    keys = (queue.workflow(workflow_id), *step_keys(queue))
    args: tuple[Argument, ...] = (NOW, queue.own_prefix, name, by, *members)
    return script("grow_group", keys, args, lambda reply: None if reply is None else int(reply))


def close_groups(
    queue: QueueKeys, workflow_id: str, *, problem: str = "", if_abandoned: bool = False
) -> Operation[int]:
    """Close the open groups of a workflow: no members can be added. With a `problem`, the groups fail as incomplete."""
    keys = (queue.workflow(workflow_id), *step_keys(queue))
    args: tuple[Argument, ...] = (NOW, queue.own_prefix, problem, int(if_abandoned), workflow_id)
    return script("close_groups", keys, args, replies.integer)


def read_workflow(
    queue: QueueKeys, workflow_id: str, fields: Sequence[str], *, publish_end: bool = False
) -> Operation[list[bytes | None] | None]:
    """Read fields of a workflow, at most `FIELDS_MAX`. The answer is None if the workflow does not exist.

    `publish_end` requests that its end is published on `queue.done`.
    """

    def read(reply: Any) -> list[bytes | None] | None:
        return None if reply is None else list(reply)

    args: tuple[Argument, ...] = (int(publish_end), *fields)
    return script("read_workflow", (queue.workflow(workflow_id),), args, read)


def read_results(
    queue: QueueKeys, workflow_id: str, kind: str, node: int, *, first: int, count: int
) -> Operation[list[bytes | None]]:
    """Read the results (`kind` "g") or the errors ("f") of some members of a group, by number."""
    key = f"{queue.workflow(workflow_id)}:{kind}{node}"
    return command("read_results", ("HMGET", key, *range(first, first + count)), list)


class StoredWorkflow(Struct, frozen=True):
    """A workflow in a list, as Redis stores it.

    Attributes:
        id: Id of the workflow.
        state: State, b"" if its key has another type.
        name: Name of the workflow.
        created: When it started, Unix ms.
        ended: When it ended, Unix ms, b"" while it runs.
        steps: Number of steps. Each member of a group counts as one.
        steps_ended: Number of ended steps.
        steps_failed: Number of failed steps. Steps whose failure the workflow ignores are not counted.
    """

    id: str
    state: bytes
    name: bytes
    created: bytes
    ended: bytes
    steps: int
    steps_ended: int
    steps_failed: int


class StoredWorkflows(Struct, frozen=True):
    """Some workflows of a home queue, and the numbers of all its running and ended workflows.

    Attributes:
        running: Number of running workflows.
        ended: Number of ended workflows that are still stored.
        rows: The workflows that were read.
    """

    running: int
    ended: int
    rows: Sequence[StoredWorkflow]


def list_workflows(queue: QueueKeys, *, which: str = "b", skip: int = 0, count: int) -> Operation[StoredWorkflows]:
    """Read workflows with a home queue, the newest first. Deleted workflows are omitted.

    Args:
        queue: The home queue.
        which: "r" running ones, "e" ended ones, "b" running ones, then ended ones.
        skip: Number of workflows to skip.
        count: Maximum number to read; 0 only counts them.
    """

    def read(reply: Any) -> StoredWorkflows:
        rows = [StoredWorkflow(replies.shown(each[0]), *each[1:5], *map(int, each[5:])) for each in reply[2]]
        return StoredWorkflows(int(reply[0]), int(reply[1]), rows)

    keys = (queue.workflows_running, queue.workflows_ended)
    args: tuple[Argument, ...] = (queue.own_prefix, which, skip, count)
    return script("list_workflows", keys, args, read)


class StoredMember(Struct, frozen=True):
    """A member of a group, as Redis stores it.

    Attributes:
        number: Number of the member, from 0.
        end: b"d" if it has succeeded, b"f" if it has failed, b"" if it has not ended.
        failure: Error text of a failed member.
        task_id: Id of its task, "" if the id is derived from the number.
        queue: Its queue if it waits to be enqueued or has another queue than the home queue; else "".
        result: Result, cut to the requested size.
        size: Size of the whole result in bytes.
    """

    number: int
    end: bytes
    failure: bytes
    task_id: str
    queue: str
    result: bytes
    size: int


class StoredStep(Struct, frozen=True):
    """Result of a step, and some members of a group, as Redis stores them.

    Attributes:
        result: Result of a step that is not a group, cut to the requested size; b"" if there is none.
        size: Size of the whole result in bytes.
        members: Members of a group.
    """

    result: bytes = b""
    size: int = 0
    members: Sequence[StoredMember] = ()


def read_step(
    queue: QueueKeys, workflow_id: str, node: int, *, first: int, count: int, most: int, only_failed: bool = False
) -> Operation[StoredStep | None]:
    """Read the result of a step, or members of a group, at most `most` bytes of each result.

    The answer is None if the workflow was deleted. With `only_failed` it has some failed members, and `first` is
    ignored.
    """

    def member(reply: Any) -> StoredMember:
        number, end, failure, task_id, name, result, size = reply
        return StoredMember(int(number), end, failure, replies.shown(task_id), replies.shown(name), result, int(size))

    def read(reply: Any) -> StoredStep | None:
        if reply is None:
            return None
        return StoredStep(reply[0], int(reply[1]), [member(each) for each in reply[2]])

    keys = (queue.workflow(workflow_id),)
    return script("read_step", keys, (node, first, count, most, int(only_failed)), read)


# --- cancel, retry, clean ---------------------------------------------------------------------------------------------

CANCELLED_KEPT_S = 30 * 86_400
"""Seconds for which workers of other queues drop the steps of a cancelled workflow."""


def cancel_workflow(queue: QueueKeys, workflow_id: str) -> Operation[Any]:
    """Cancel a workflow. The answer is whether it is cancelled, and its other queues; None if it does not exist."""
    key = queue.workflow(workflow_id)
    keys = (key, f"{key}:q", queue.workflows_open, queue.workflows_running, queue.workflows_ended)

    def read(reply: Any) -> tuple[bool, list[str]] | None:
        return None if reply is None else (int(reply[0]) > 0, [each.decode() for each in reply[1:]])

    args = (NOW, queue.own_prefix)
    return script("cancel_workflow", keys, args, read)


def revoke_steps(queue: QueueKeys, workflow_id: str) -> Operation[list[str]]:
    """Let workers drop the waiting steps of a workflow in a queue. The answer is the ids of its running steps."""
    keys = (queue.workflow_cancelled(workflow_id),)
    args = (f"{workflow_id}.", CANCELLED_KEPT_S, queue.active)
    return script(
        "revoke_steps",
        keys,
        args,
        replies.names,
    )


def retry_steps(
    queue: QueueKeys, workflow_id: str, node: int, name: str, *, cursor: str = ""
) -> Operation[tuple[str, int]]:
    """Run a failed step of a workflow again, or, with a cursor, some of the failed members of a group.

    The answer is the next cursor, "0" at the end, and the number of steps that run again.
    """
    keys = (queue.workflow(workflow_id), *step_keys(queue), queue.archived)
    args = (NOW, queue.own_prefix, node, cursor, name)
    return script("retry_steps", keys, args, lambda reply: (reply[0].decode(), int(reply[1])), repeatable=False)


def clean_workflows(queue: QueueKeys, *, limit: int = 100) -> Operation[int]:
    """Delete workflows whose retention has ended."""
    args = (NOW, queue.own_prefix, limit)
    return script("clean_workflows", (queue.workflows_ended,), args, replies.integer)
