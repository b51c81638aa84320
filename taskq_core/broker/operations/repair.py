"""Find and repair damage: states in Redis that no operation of taskq produces."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Argument, Operation, command, escape_pattern, script
from taskq_core.wire import QueueKeys, TaskState

CHECK_MAX = 500
"""Maximum number of ids of a structure that one call reads."""
REPAIR_MAX = 50
"""Maximum number of tasks that one call diagnoses."""
MESSAGE_READ_MAX = 16_384
"""Largest message that is decoded to check it, in bytes. Larger messages are checked when their task runs."""
LEASE_S = 30
"""Length of a restored lease in seconds, as Go's leases."""
LONGEST_LEASE_S = 3600
"""Longest lease that a worker may take, in seconds."""
ENDLESS_LEASE_S = 2 * LONGEST_LEASE_S
"""Seconds from now after which the end of a lease is damage: no worker writes such a lease, even if clocks differ."""


def structures(queue: QueueKeys) -> dict[str, str]:
    """Return the type that each list, set and counter of a queue must have, by key."""
    return {
        queue.pending: "list",
        queue.active: "list",
        queue.lease: "zset",
        queue.scheduled: "zset",
        queue.retry: "zset",
        queue.archived: "zset",
        queue.completed: "zset",
        queue.groups: "set",
        queue.aggregation_sets: "zset",
        queue.paused: "string",
        queue.processed: "string",
        queue.failed: "string",
        queue.wake: "list",
        queue.quarantine: "zset",
        queue.combined: "zset",
        queue.delivered: "zset",
    }


class Probed(Struct):
    """Answer of `probe`: Redis's time (Unix ns), numbers of pending and active tasks, and the wrong types by key."""

    now_ns: int
    pending: int
    active: int
    strange: dict[str, str]


def probe(queue: QueueKeys) -> Operation[Probed]:
    """Check that the keys of a queue have the right types, and that Redis accepts writes."""
    kinds = structures(queue)

    def read(reply: Any) -> Probed:
        found = zip(kinds, map(replies.text, reply[3:]), strict=True)
        return Probed(int(reply[0]), int(reply[1]), int(reply[2]), {key: kind for key, kind in found if kind})

    args = (NOW, *kinds.values())
    return script("probe", (queue.absent, *kinds), args, read)


def set_aside(queue: QueueKeys, kinds: Mapping[str, str], *, at_ns: int) -> Operation[dict[str, str]]:
    """Rename keys of a queue that have a wrong type. The answer has the new name of each renamed key, by old name.

    Args:
        queue: Key names of the queue.
        kinds: The type that each key must have, by key; at most `REPAIR_MAX`.
        at_ns: Time in the new names, Unix ns. A repeat with the same time changes nothing.
    """
    places = {key: queue.strange(key, at_ns) for key in kinds}
    keys = (queue.absent, *(each for pair in places.items() for each in pair))

    def read(reply: Any) -> dict[str, str]:
        return {key: place for (key, place), kind in zip(places.items(), reply, strict=True) if kind}

    return script("set_aside", keys, tuple(kinds.values()), read)


def list_aggregation_sets(queue: QueueKeys, *, skip: int, count: int = 200) -> Operation[list[str]]:
    """Read keys of aggregation sets, those with the earliest deadline first."""
    return command("list_aggregation_sets", ("ZRANGE", queue.aggregation_sets, skip, skip + count - 1), replies.names)


class Listed(Struct):
    """Answer of `check_listed`: ids whose task does not belong there, and the cursor of the next call.

    Attributes:
        cursor: Cursor of the next call, "0" at the end.
        doubtful: Ids whose task has another state or group, or is missing.
        ids: All ids read, for a list (the youngest first) or an aggregation set only.
    """

    cursor: str
    doubtful: list[str]
    ids: list[str]


def check_listed(
    queue: QueueKeys, key: str, kind: str, state: TaskState, *, group: str = "", cursor: str = "0", count: int = 200
) -> Operation[Listed]:
    """Read some ids of a structure whose tasks must be in one state, and check their tasks.

    Args:
        queue: Key names of the queue.
        key: Key of the structure.
        kind: "list", "zset", "members" for an aggregation set, or "lease" for the leases themselves.
        state: State that the tasks must have.
        group: Group that the tasks must name, "" for any.
        cursor: "0", then the cursor of the previous answer.
        count: Approximate number of ids to read, at least 2. Pages of a list overlap by one id.
    """
    return script(
        "check_listed",
        (key, queue.lease, queue.active),
        (
            kind,
            cursor,
            min(count, CHECK_MAX),
            queue.task_prefix,
            state.value,
            group,
            NOW,
            ENDLESS_LEASE_S,
        ),
        lambda reply: Listed(replies.text(reply[0]), replies.names(reply[1]), replies.names(reply[2])),
    )


class Place(StrEnum):
    """Whether a task is in the list or sorted set of its state."""

    LISTED = "1"
    NOT_LISTED = "0"
    IN_A_LIST = "?"
    """Unknown: the state is stored in a list, and the scan does not search lists."""


class CheckedTask(Struct):
    """A task found by the scan over all keys.

    Attributes:
        task_id: Id of the task.
        state: Stored state word, "" if it is missing, None if the key is not a hash.
        message: TaskMessage bytes, b"" if they are missing or larger than `MESSAGE_READ_MAX`.
        pending_since_ns: When the task became pending, Unix ns, 0 if unknown.
        place: Whether the task is in the structure of its state.
    """

    task_id: str
    state: str | None
    message: bytes
    pending_since_ns: int
    place: Place


class Checked(Struct):
    """Answer of `check_stored`: the tasks that were found, damaged locks and sets, and the cursor of the next call.

    Attributes:
        cursor: Cursor of the next call, "0" at the end.
        locks: Keys of unique locks that are not strings.
        sets: Keys of aggregation sets that are missing in the index of sets.
        unheld: Keys of stale unique locks: the task in them does not exist, has ended, or names another lock.
        unlocked: Keys of tasks whose unique lock is missing.
        records: Keys of steps records and emitted values that belong to no task.
        tasks: The tasks.
    """

    cursor: str
    locks: list[str]
    sets: list[str]
    unheld: list[str]
    unlocked: list[str]
    records: list[str]
    tasks: list[CheckedTask]


def _read_checked(reply: Any) -> Checked:
    words = iter(reply[6:])
    return Checked(
        replies.text(reply[0]),
        replies.names(reply[1]),
        replies.names(reply[2]),
        replies.names(reply[3]),
        replies.names(reply[4]),
        replies.names(reply[5]),
        [
            CheckedTask(
                replies.name(task_id),
                None if state == b"!" else replies.shown(state),
                message,
                int(since) if since.isdigit() else 0,
                Place(replies.text(place)),
            )
            for task_id, state, message, since, place in zip(words, words, words, words, words, strict=True)
        ],
    )


def check_stored(queue: QueueKeys, *, cursor: str = "0", count: int = 200) -> Operation[Checked]:
    """Scan about `count` keys of the server. Check the tasks, groups, locks and records of the queue among them."""
    pattern = f"*{escape_pattern(f'{{{queue.name}}}:')}[gstu]*:*"
    args = (cursor, count, queue.prefix, pattern, MESSAGE_READ_MAX, queue.own_prefix)
    keys = (queue.lease, queue.groups, *_sets_keys(queue))
    return script("check_stored", keys, args, _read_checked)


def _sets_keys(queue: QueueKeys) -> tuple[str, str, str]:
    return (queue.aggregation_sets, queue.removed("aggregation_sets"), queue.removed("groups"))


def relist(queue: QueueKeys, sets: Sequence[str], *, repair: bool) -> Operation[list[bool]]:
    """Add aggregation sets to their index, at most `REPAIR_MAX`. The answer says of each whether it was missing."""
    listed, *removed = _sets_keys(queue)
    keys = (listed, queue.groups, *removed, queue.absent, *sets)
    args = (NOW, queue.prefix, 1 if repair else 0, len(sets))
    return script("relist", keys, args, replies.flags)


def drop_records(queue: QueueKeys, records: Sequence[str], *, repair: bool) -> Operation[list[bool]]:
    """Delete steps records and emitted values without a task, at most `REPAIR_MAX`. The answer says which have none."""
    args = (queue.prefix, queue.own_prefix, 1 if repair else 0, len(records))
    return script("drop_records", tuple(records), args, replies.flags)


def relock(queue: QueueKeys, locks: Sequence[str], tasks: Sequence[str], *, repair: bool) -> Operation[list[str]]:
    """Release stale unique locks, and restore missing locks of tasks; at most `REPAIR_MAX` keys in all.

    The answer has one text per key: "" if nothing is wrong, else the task id in a lock, or the lock named by a task.
    """
    keys = (queue.absent, *locks, *tasks)
    args = (queue.prefix, 1 if repair else 0, len(locks), len(locks) + len(tasks))
    return script("relock", keys, args, replies.names)


class Suspect(Struct, frozen=True):
    """A task that may be damaged.

    Attributes:
        task_id: Id of the task.
        unreadable: Its message, if that cannot be decoded, else b"".
        group: Group named in its message.
        archived_s: Time of its last failure, Unix s, 0 if unknown. Used if the time of archiving is lost.
        kept_s: End of its retention after a success, Unix s, 0 if unknown.
        diagnosis: Diagnosis of an earlier call. `repair_tasks` repairs only if it is the same; "" never repairs.
    """

    task_id: str
    unreadable: bytes = b""
    group: str = ""
    archived_s: int = 0
    kept_s: int = 0
    diagnosis: str = ""


class RepairedTask(Struct):
    """Result of the diagnosis of one task.

    Attributes:
        diagnosis: The whole diagnosis as text, to pass as `Suspect.diagnosis`; "" if nothing is wrong.
        kind: Kind of damage.
        state: Stored state word.
        places: Structures that list the task, for example "pending,retry", or "pending*2" if one lists it twice.
        belongs: Where the task belongs: a state, "drop" or "quarantine".
        repaired: Whether this call moved the task to the place named by `belongs`.
        was_looked_at: False if this call had no time for the task; send it again.
    """

    diagnosis: str
    kind: str
    state: str
    places: str
    belongs: str
    repaired: bool
    was_looked_at: bool


def _read_repaired(reply: Any) -> list[RepairedTask]:
    words = iter(replies.names(reply))
    return [
        RepairedTask(diagnosis, kind, state, places, belongs, code == "1", code != "2")
        for diagnosis, kind, state, places, belongs, code in zip(words, words, words, words, words, words, strict=True)
    ]


def repair_tasks(queue: QueueKeys, suspects: Sequence[Suspect]) -> Operation[list[RepairedTask]]:
    """Diagnose tasks, at most `REPAIR_MAX`, and repair those whose diagnosis has not changed."""
    keys = (
        queue.pending,
        queue.active,
        queue.lease,
        queue.scheduled,
        queue.retry,
        queue.archived,
        queue.completed,
        queue.groups,
        queue.aggregation_sets,
        queue.wake,
        queue.quarantine,
        queue.combined,
        queue.absent,
    )
    args: list[Argument] = [NOW, queue.prefix, queue.done, queue.quarantined(""), LEASE_S]
    args += (queue.removed(""), ENDLESS_LEASE_S)
    for each in suspects:
        args += (each.task_id, each.diagnosis, each.unreadable, each.group, each.archived_s, each.kept_s)
    return script("repair_tasks", keys, args, _read_repaired)
