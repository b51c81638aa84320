"""Combine groups of tasks into one task each: move members to a set, read it, store the combined task, delete the set.

A set contains the members of a group that are being combined. Its name consists of the group and an id that the caller
chooses. After its deadline, its members return to the group.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.new_tasks import NewTask, StoreCode
from taskq_core.broker.operations.operation import (
    BATCH_BYTES,
    BATCH_MAX,
    MESSAGE_MAX,
    NOW,
    RECEIPT_KEPT_S,
    Argument,
    Operation,
    command,
    script,
)
from taskq_core.wire import QueueKeys

GATHER_MAX = 100
"""Maximum number of groups that one script call reads, and of members that it moves or deletes one by one."""


def list_groups(queue: QueueKeys, cursor: int) -> Operation[tuple[int, list[str]]]:
    """List names of groups, about 100 from a cursor on. The answer is the next cursor, 0 at the end, and the names.

    A scan may return a name twice. It returns every group that exists during the whole scan.
    """
    return command("list_groups", ("SSCAN", queue.groups, cursor, "COUNT", GATHER_MAX), _read_groups)


def _read_groups(reply: Any) -> tuple[int, list[str]]:
    return int(reply[0]), replies.names(reply[1])


class CollectCode(StrEnum):
    """Result of `collect_groups` for one group."""

    TAKEN = "1"
    NOT_DUE = "0"
    SEND_AGAIN = "2"
    NO_GROUP = "x"


class GroupCheck(Struct):
    """A group to check, and the conditions that make it due.

    Attributes:
        group: Name of the group.
        set_id: Id of the set that takes its members.
        timeout_s: Seconds from now until the members return to the group.
        grace_s: Seconds without a new task after which the group is due.
        max_delay_s: Seconds for which the oldest member waits until the group is due. 0: no limit.
        max_size: Number of members at which the group is due, and maximum number of members of a set. 0: no limit.
    """

    group: str
    set_id: str
    timeout_s: int
    grace_s: int
    max_delay_s: int = 0
    max_size: int = 0


def collect_groups(queue: QueueKeys, checks: Sequence[GroupCheck], *, limit: int) -> Operation[str]:
    """Move the members of due groups into at most `limit` sets, one per group. Checks at most `GATHER_MAX` groups.

    The answer has one `CollectCode` character per group.
    """
    args: list[Argument] = [NOW, queue.prefix, limit]
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
    max_message: int = MESSAGE_MAX,
) -> Operation[list[tuple[str, bytes]] | None]:
    """Read some members of a set, the oldest first: pairs of id and message bytes (b"" if the message is missing).

    Of a message over `max_message` bytes only the size is read. `decode_message` then raises an error that names it.

    The answer is None if the set does not exist, and an empty list after its last page.
    """
    keys = (queue.aggregation_set(group, set_id), queue.aggregation_sets)
    return script("read_members", keys, (skip, count, max_bytes, queue.task_prefix, max_message), _read_members)


def _read_members(reply: Any) -> list[tuple[str, bytes]] | None:
    if not reply[0]:
        return None
    return [(replies.name(task_id), message) for task_id, message in replies.pairs(reply[1:])]


def combine(queue: QueueKeys, group: str, set_id: str, size: int, task: NewTask | None) -> Operation[StoreCode]:
    """Store the combined task of a set and remove the set, both or neither.

    Args:
        queue: Key names of the queue of both the set and the task.
        group: Name of the group.
        set_id: Id of the set.
        size: Number of members that were read. If the set has another number, or its deadline has passed, the script
            answers `GONE`.
        task: The combined task. None: delete the members and store no task.
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
    args: list[Argument] = [NOW, queue.prefix, queue.done, set_id, size, RECEIPT_KEPT_S]
    if task is not None:
        rule = task.unique_rule  # "d" refuses a duplicate; with another rule, a duplicate would delete the members
        args += replace(task, unique_rule=f"{rule[0]}d{rule[2:]}" if rule else "").arguments(queue)
    return script("combine", keys, args, lambda reply: StoreCode(replies.text(reply)))


def sweep(queue: QueueKeys) -> Operation[tuple[int, int]]:
    """Delete at most 100 members of sets that were combined.

    The answer is the number of deleted members and of sets left.
    """
    args = (queue.combined_set(""), queue.prefix, queue.done)
    return script("sweep", (queue.combined, queue.absent), args, lambda reply: (int(reply[0]), int(reply[1])))


class Reclaimed(Struct):
    """Answer of `reclaim`: how many sets and members have returned to their groups, and what is left to do.

    Attributes:
        leads: True if this worker leads. Otherwise nothing was changed.
        sets: Number of sets that were renamed back to their group.
        moved: Number of members that were moved one by one, because their group has other members.
        dropped: Number of entries removed from the index of sets because their set does not exist.
        put_off: Number of sets whose members could not return, because the key of their group has a wrong type.
        to_sweep: Number of combined sets whose members `sweep` must still delete.
    """

    leads: bool
    sets: int
    moved: int
    dropped: int
    put_off: int
    to_sweep: int


def reclaim(
    queue: QueueKeys, service: str, *, owner: str, leader_ms: int, sets: int = 20, members: int = GATHER_MAX
) -> Operation[Reclaimed]:
    """Move the members of sets whose deadline is over back to their groups, unless another worker leads."""
    keys = (queue.aggregation_sets, queue.groups, queue.combined, queue.leader(service))
    args = (NOW, owner, leader_ms, queue.prefix, sets, members)
    return script(
        "reclaim", keys, args, lambda reply: Reclaimed(int(reply[0]) == 1, *(int(number) for number in reply[1:]))
    )


def give_back(queue: QueueKeys, group: str, set_id: str) -> Operation[None]:
    """Expire a set, so that the next `reclaim` of a taskq or Go worker returns its members to their group."""
    key = queue.aggregation_set(group, set_id)
    return command("give_back", ("ZADD", queue.aggregation_sets, "XX", 0, key), replies.nothing)


def expel(queue: QueueKeys, group: str, set_id: str, task_ids: Sequence[str]) -> Operation[int]:
    """Quarantine members of a set whose message cannot be read; at most `BATCH_MAX`. The answer is their number."""
    keys = (queue.aggregation_set(group, set_id), queue.quarantine, queue.aggregation_sets)
    args = (NOW, queue.task_prefix, queue.quarantined(""), *task_ids)
    return script("expel", keys, args, replies.integer)
