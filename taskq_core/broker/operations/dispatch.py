"""Requests for workflows whose steps run in several queues: send steps there, and report how they ended.

The home queue of a workflow stores the workflow. The dispatcher of a queue is a service of one of its workers.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Argument, Operation, script
from taskq_core.broker.operations.workflows import step_keys
from taskq_core.wire import QueueKeys

DISPATCH_MAX = 100
"""Maximum number of steps, ends of steps and abandoned workflows, each, that one pass of a dispatcher reads."""
SWEEP_MAX = 200
"""Maximum number of started steps that one `sweep_steps` checks."""
PUT_S = 60
"""Seconds in which a fetched step must be stored in its queue. Later, another dispatcher may already have stored it."""
STEP_RECEIPT_S = 3_600
"""Seconds for which the receipt of a step from another queue is stored."""


class DueSteps(Struct):
    """Steps, and ends of steps, that the dispatcher of a queue has to send to other queues.

    Attributes:
        leads: Whether this worker leads.
        steps: Number of started steps of all workflows in this queue.
        ends: Ends of steps whose workflow has another home queue, by field.
        out: Steps to start in other queues.
        queues: Other queues that steps were sent to, while workflows run.
        abandoned: Ids of workflows whose client added no members for too long.
    """

    leads: bool
    steps: int = 0
    ends: dict[bytes, bytes] = field(default_factory=dict)
    out: list[bytes] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)


def read_due(queue: QueueKeys, *, owner: str, leader_ms: int) -> Operation[DueSteps]:
    """Read what the dispatcher of a queue has to send, if the worker `owner` leads. With "", read it in any case."""

    def read(reply: Any) -> DueSteps:
        if not int(reply[0]):
            return DueSteps(False)
        _, steps, words, out, queues, abandoned = reply
        ends = dict(zip(words[::2], words[1::2], strict=True))
        return DueSteps(True, int(steps), ends, out, replies.names(queues), replies.names(abandoned))

    keys = (
        queue.leader("carrier"),
        queue.workflow_notes,
        queue.workflows_out,
        queue.steps,
        queue.workflows_open,
        queue.workflows_running,
        queue.workflow_queues,
    )
    args = (NOW, owner, leader_ms, DISPATCH_MAX)
    return script("read_due", keys, args, read)


def record_ends(queue: QueueKeys, ends: Sequence[tuple[Argument, Argument, Argument]]) -> Operation[bool]:
    """Record in this queue's workflows how steps in other queues ended: key, node and end of each step.

    The answer is True if the dispatcher has more work afterwards.
    """
    args: list[Argument] = [NOW, queue.own_prefix]
    for end in ends:
        args += end
    return script("record_ends", (*step_keys(queue), queue.absent), args, replies.boolean)


def forget_ends(queue: QueueKeys, ends: Sequence[tuple[bytes, bytes]]) -> Operation[int]:
    """Delete ends of steps (`DueSteps.ends`) that their home queue has recorded, unless they have changed."""
    args = [word for end in ends for word in end]
    return script("forget_ends", (queue.workflow_notes,), args, replies.integer)


class StepToSend(Struct):
    """A step to store in another queue, as arguments of scripts."""

    member: bytes
    queue: str
    task_id: bytes
    step: bytes
    message: bytes
    start: bytes
    receipt: bytes


def fetch_steps(queue: QueueKeys, members: Sequence[bytes]) -> Operation[tuple[int, list[StepToSend]]]:
    """Read steps to send to other queues, and start further members of groups. The answer has Redis's time (s) too."""

    def read(reply: Any) -> tuple[int, list[StepToSend]]:
        found = []
        for at in range(1, len(reply), 7):
            member, name, *rest = reply[at : at + 7]
            found.append(StepToSend(member, replies.name(name), *rest))
        return int(reply[0]), found

    args: tuple[Argument, ...] = (NOW, queue.own_prefix, *members)
    return script("fetch_steps", step_keys(queue), args, read)


def put_steps(queue: QueueKeys, steps: Sequence[StepToSend], *, until_s: int) -> Operation[bool]:
    """Store steps whose workflow has another home queue, each once. The answer is False if `until_s` has passed."""
    stored = (queue.pending, queue.scheduled, queue.wake, queue.steps)
    keys = (*stored, queue.workflow_receipts, queue.archived, queue.absent)
    args: list[Argument] = [NOW, queue.own_prefix, queue.prefix, until_s, STEP_RECEIPT_S]
    for each in steps:
        args += (each.receipt, each.task_id, each.step, each.message, each.start)
    return script("put_steps", keys, args, replies.boolean)


def steps_sent(queue: QueueKeys, steps: Sequence[StepToSend]) -> Operation[int]:
    """Record that steps were stored in other queues."""
    args: list[Argument] = [queue.own_prefix]
    for each in steps:
        args += (each.member, each.receipt)
    return script("steps_sent", (queue.workflows_out,), args, replies.integer)


def record_target(home: QueueKeys, workflow_keys: Sequence[str], *, target: str) -> Operation[list[str]]:
    """Record that steps of workflows move to another queue. The answer is the ids of the cancelled workflows."""
    args = (home.own_prefix, target, *workflow_keys)
    keys = (home.workflow_queues,)
    return script("record_target", keys, args, lambda reply: [replies.shown(each) for each in reply])


class FollowedSteps(Struct):
    """Answer of `follow_failed`.

    Attributes:
        checked: Number of failed steps that were checked.
        gone: Number of these steps that are no longer listed.
        has_ends: Whether outcomes must be sent to another queue.
        queues: Other queues that steps were sent to, if workflows are stored in this queue.
    """

    checked: int
    gone: int
    has_ends: bool
    queues: list[str]


def follow_failed(queue: QueueKeys, *, first: int = 0, count: int = SWEEP_MAX) -> Operation[FollowedSteps]:
    """Check failed steps of this queue, and report to their workflows which have succeeded since.

    Taskq's own workers report the end of a task that runs again. Go's workers do not.
    """
    keys = (
        *step_keys(queue),
        queue.failed_steps,
        queue.completed,
        queue.workflow_queues,
        queue.workflows_running,
        queue.workflows_ended,
    )
    args = (NOW, queue.own_prefix, queue.prefix, first, count)

    def read(reply: Any) -> FollowedSteps:
        return FollowedSteps(int(reply[0]), int(reply[1]), int(reply[2]) == 1, replies.names(reply[3]))

    return script("follow_failed", keys, args, read)


CHECKED_WORKFLOWS = 10
"""Maximum number of running workflows that one `check_workflows` reads."""
CHECKED_MEMBERS = 1_000
"""Maximum number of members of a group that `check_workflows` looks at."""


def check_workflows(queue: QueueKeys, *, skip: int) -> Operation[tuple[int, list[tuple[str, str]]]]:
    """List unfinished steps of running workflows that are not listed as started in this queue.

    The answer is the number of workflows read, at most `CHECKED_WORKFLOWS`, and the queue and the field `taskq_step` of
    each step. Steps of other queues are always listed.
    """

    def read(reply: Any) -> tuple[int, list[tuple[str, str]]]:
        words = iter(replies.names(reply[1:]))
        return int(reply[0]), [(name or queue.name, step) for name, step in zip(words, words, strict=True)]

    keys = (queue.workflows_running, queue.steps, queue.workflows_out)
    args = (queue.own_prefix, skip, CHECKED_WORKFLOWS, CHECKED_MEMBERS)
    return script("check_workflows", keys, args, read)


def relist_steps(queue: QueueKeys, steps: Sequence[str], *, repair: bool) -> Operation[list[bool]]:
    """List steps again as started, at most `SWEEP_MAX`. The answer says of each whether it was missing."""
    keys = (queue.steps, queue.workflow_notes, queue.absent)
    return script("relist_steps", keys, (NOW, 1 if repair else 0, *steps), replies.flags)


def sweep_steps(queue: QueueKeys, *, first: int = 0, count: int = SWEEP_MAX) -> Operation[tuple[int, int, bool]]:
    """Check started steps, and record the ends that are missing in their workflows.

    The answer is the number of steps read, the number of ends found, and True if the dispatcher has more work.
    """
    keys = (*step_keys(queue), queue.completed, queue.archived)
    args = (NOW, queue.own_prefix, queue.prefix, first, count)
    return script("sweep_steps", keys, args, lambda reply: (int(reply[0]), int(reply[1]), int(reply[2]) == 1))
