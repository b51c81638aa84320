"""Turn groups of tasks into one task each: take a set, read it, store the task it became, delete its members.

A set is the members of a group that are being turned into one task. It is named by the group and an id, which the
caller chooses, and is given back to the group when its deadline has passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.broker.operations.operation import (
    BATCH_BYTES,
    BATCH_MAX,
    RECEIPT_KEPT_S,
    Argument,
    Operation,
    command,
    script,
    time_argument,
)
from taskq_core.wire import QueueKeys

GATHER_MAX = 100
"""Most groups one script call looks at, and most members it moves or deletes one by one."""


def list_groups(queue: QueueKeys, cursor: int) -> Operation[tuple[int, list[str]]]:
    """List names of groups, about 100 from a cursor on. Reads as (next cursor, 0 at the end; names).

    A name may come twice. A group that exists during the whole scan comes at least once.
    """
    return command("list_groups", ("SSCAN", queue.groups, cursor, "COUNT", GATHER_MAX), _read_groups)


def _read_groups(reply: Any) -> tuple[int, list[str]]:
    return int(reply[0]), replies.names(reply[1])


class CollectCode(StrEnum):
    """What became of one group of a gathering."""

    TAKEN = "1"
    NOT_DUE = "0"
    SEND_AGAIN = "2"
    NO_GROUP = "x"


@dataclass(slots=True)
class GroupCheck:
    """A group to look at, and what makes it due.

    Attributes:
        group: Its name.
        set_id: Id of the set its members are taken into.
        timeout_s: Seconds from now until the set is given back.
        grace_s: It is due when no member came for this long.
        max_delay_s: It is due when its oldest member has waited this long, 0 for no limit.
        max_size: It is due with this many members, and no more are taken, 0 for no limit.
    """

    group: str
    set_id: str
    timeout_s: int
    grace_s: int
    max_delay_s: int = 0
    max_size: int = 0


def collect_groups(
    queue: QueueKeys, checks: Sequence[GroupCheck], *, limit: int, now_ns: int | None = None
) -> Operation[str]:
    """Take the members of groups that are due into sets, at most `limit`, of at most `GATHER_MAX` groups.

    Reads as one `CollectCode` character per group.
    """
    args: list[Argument] = [time_argument(now_ns), queue.prefix, limit]
    for each in checks:
        args += (each.group, each.set_id, each.timeout_s, each.grace_s, each.max_delay_s, each.max_size)
    return script("collect_groups", (queue.groups, queue.aggregation_sets, queue.absent), args, replies.text)


def read_members(
    queue: QueueKeys,
    group: str,
    set_id: str,
    *,
    skip: int,
    count: int = BATCH_MAX,
    max_bytes: int = BATCH_BYTES,
) -> Operation[list[tuple[str, bytes]] | None]:
    """Read a page of a set: pairs of id and message bytes (b"" if it is missing), oldest member first.

    Reads as None if the set does not exist, and as an empty list behind its end.
    """
    keys = (queue.aggregation_set(group, set_id), queue.aggregation_sets)
    return script("read_members", keys, (skip, count, max_bytes, queue.task_prefix), _read_members)


def _read_members(reply: Any) -> list[tuple[str, bytes]] | None:
    if not reply[0]:
        return None
    pairs = iter(reply[1:])
    return [(replies.name(task_id), message) for task_id, message in zip(pairs, pairs, strict=True)]


class CombineCode(StrEnum):
    """What became of a set. The first three are those of an enqueue."""

    STORED = "1"
    ID_CONFLICT = "0"
    DUPLICATE = "d"
    GONE = "g"


def combine(
    queue: QueueKeys,
    group: str,
    set_id: str,
    size: int,
    task: NewTask | None,
    *,
    now_ns: int | None = None,
) -> Operation[CombineCode]:
    """Store the task that a set was turned into and take the set away, both or neither.

    Args:
        queue: Key names of the queue, for the set and the task alike.
        group: Name of the group.
        set_id: Id of the set.
        size: Members it had when it was read; with any other number, or after its deadline, it is refused.
        task: The task; None drops the members for nothing.
        now_ns: Replaces Redis's time in tests.
    """
    keys = (
        queue.aggregation_set(group, set_id),
        queue.aggregation_sets,
        queue.combined,
        queue.combined_set(set_id),
        queue.pending,
        queue.scheduled,
        queue.groups,
        queue.wake,
        queue.receipt(set_id),
        queue.absent,
    )
    args: list[Argument] = [time_argument(now_ns), queue.prefix, queue.done, set_id, size, RECEIPT_KEPT_S]
    if task is not None:
        rule = task.unique_rule  # a set becomes a new task or stays
        args += replace(task, unique_rule=f"{rule[0]}d{rule[2:]}" if rule else "").arguments(queue)
    return script("combine", keys, args, lambda reply: CombineCode(replies.text(reply)))


def sweep(queue: QueueKeys) -> Operation[tuple[int, int]]:
    """Delete members of sets that were combined, at most 100. Reads as (members deleted, sets left)."""
    args = (queue.combined_set(""), queue.prefix, queue.done)
    return script("sweep", (queue.combined, queue.absent), args, lambda reply: (int(reply[0]), int(reply[1])))


@dataclass(slots=True)
class Reclaimed:
    """Answer to a reclaim.

    Attributes:
        leads: True if this worker leads; nothing was done otherwise.
        sets: Sets given back whole.
        moved: Members moved one by one, into groups that had others.
        dropped: Entries that named no set.
        put_off: Sets whose group cannot take them, because its key holds something else.
        to_sweep: Combined sets whose members are still to be deleted.
    """

    leads: bool
    sets: int
    moved: int
    dropped: int
    put_off: int
    to_sweep: int


def reclaim(
    queue: QueueKeys,
    service: str,
    *,
    owner: str,
    leader_ms: int,
    sets: int = 20,
    members: int = GATHER_MAX,
    now_ns: int | None = None,
) -> Operation[Reclaimed]:
    """Give members of sets past their deadline back to their groups, if this worker leads or takes the lead."""
    keys = (queue.aggregation_sets, queue.groups, queue.combined, queue.leader(service))
    args = (time_argument(now_ns), owner, leader_ms, queue.prefix, sets, members)
    return script(
        "reclaim", keys, args, lambda reply: Reclaimed(int(reply[0]) == 1, *(int(number) for number in reply[1:]))
    )


def give_back(queue: QueueKeys, group: str, set_id: str) -> Operation[None]:
    """End the time of a set now, so that the next reclaim, Go's too, gives its members back."""
    key = queue.aggregation_set(group, set_id)
    return command("give_back", ("ZADD", queue.aggregation_sets, "XX", 0, key), replies.nothing)


def expel(
    queue: QueueKeys, group: str, set_id: str, task_ids: Sequence[str], *, now_ns: int | None = None
) -> Operation[int]:
    """Set members of a set aside whose message cannot be read; at most `BATCH_MAX`. Reads as how many."""
    keys = (queue.aggregation_set(group, set_id), queue.quarantine, queue.aggregation_sets)
    args = (time_argument(now_ns), queue.task_prefix, queue.quarantined(""), *task_ids)
    return script("expel", keys, args, replies.integer)
