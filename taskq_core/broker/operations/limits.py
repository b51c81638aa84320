"""Limits of tasks: take a permit when a worker fetches a task, admit waiting tasks, read and change the limits.

A slot is one limit with one key, for example `per_customer` with customer 7. Its tasks wait in a line.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Argument, Operation, command, escape_pattern, run_owner, script
from taskq_core.wire import QueueKeys
from taskq_core.wire.durations import LATEST_S

ADMIT_MAX = 100
"""Maximum number of slots that one `admit` checks."""
WAITING_SCORE_S = LATEST_S
"""Score in Asynq's scheduled set of a task that waits for a limit: the last second of the year 9999."""


class ClaimCode(StrEnum):
    """Whether a fetched task may run."""

    RUN = "1"
    WAITS = "2"
    NOT_OWNED = "0"


def claim(queue: QueueKeys, task_id: str, limit: str, *, owner: str, run: int) -> Operation[ClaimCode]:
    """Take a permit for a task that the worker `owner` has fetched. If no permit is free, the task joins the line."""
    args = (NOW, run_owner(owner, run), queue.prefix, task_id, limit)
    keys = (queue.active, queue.lease, queue.task(task_id))
    return script("claim", keys, args, lambda reply: ClaimCode(str(int(reply))))


class AdmittedNow(Struct):
    """Answer of `admit`: how many waiting tasks became pending, and when to call it again.

    Attributes:
        now_ns: Redis's time, Unix ns.
        leads: Whether this worker leads. Otherwise nothing was changed.
        admitted: Number of tasks that became pending.
        next_ms: Milliseconds until the next slot must be checked, None if there is none.
    """

    now_ns: int
    leads: bool
    admitted: int
    next_ms: int | None


def admit(queue: QueueKeys, *, owner: str, leader_ms: int, limit: int = ADMIT_MAX) -> Operation[AdmittedNow]:
    """Make waiting tasks pending if their limits allow it. Does nothing while another worker leads."""
    keys = (
        queue.limits_due,
        queue.limit_checks,
        queue.leader("limiter"),
        queue.absent,
        queue.limits,
        queue.limit_workers,
    )

    def read(reply: Any) -> AdmittedNow:
        left = replies.text(reply[3])
        return AdmittedNow(int(reply[0]), int(reply[1]) == 1, int(reply[2]), int(left) if left else None)

    args = (NOW, owner, leader_ms, queue.prefix, limit)
    return script("admit", keys, args, read)


class LimitsChecked(Struct):
    """Result of one page of `check_limits`.

    Attributes:
        cursor: Cursor of the next page.
        looked: Number of waiting tasks that were read.
        freed: Number of permits that were released.
        lost: Number of waiting tasks that were in no line. They were rescheduled.
    """

    cursor: str
    looked: int
    freed: int
    lost: int


def check_limits(
    queue: QueueKeys, *, cursor: str | None, skip: int | None, count: int = 200
) -> Operation[LimitsChecked]:
    """Repair a page of limits: release permits of ended tasks, and remove deleted tasks from lines.

    Waiting tasks that are in no line are rescheduled.

    `cursor` is the position in a scan of holders and lines ("0" at the start and at the end), `skip` the offset among
    the waiting tasks. With None, the call does not check that part.
    """
    args = (
        NOW,
        queue.prefix,
        "" if cursor is None else cursor,
        _slots_pattern(queue),
        -1 if skip is None else skip,
        count,
    )
    return script(
        "check_limits",
        (queue.scheduled, queue.absent),
        args,
        lambda reply: LimitsChecked(replies.text(reply[0]), int(reply[1]), int(reply[2]), int(reply[3])),
    )


def wait_for_limits(queue: QueueKeys, *, timeout_s: float) -> Operation[bool]:
    """Wait for the signal that a limit can admit a task earlier than `admit` reported. False on timeout."""
    return command(
        "wait_for_limits",
        ("BLPOP", queue.limit_wake, f"{timeout_s:.3f}"),
        replies.is_given,
        block_s=timeout_s,
    )


def limits_move(queue: QueueKeys) -> Operation[bool]:
    """Return whether tasks wait for a rate limit, which admits them without any further event."""
    return script("limits_move", (queue.limits_due,), (queue.limits_prefix,), replies.boolean)


def declare_limits(queue: QueueKeys, specs: Mapping[str, str]) -> Operation[int]:
    """Store the values of limits that the code declares, by kind and name."""
    words: list[Argument] = ["HSET", queue.limits]
    for name, spec in specs.items():
        words += (f"d:{name}", spec)
    return command("declare_limits", words, replies.integer)


def set_limit(queue: QueueKeys, name: str, spec: str, *, checks: bool, cursor: str) -> Operation[tuple[str, str]]:
    """Override the value of a limit, or clear the override with "", and let the limiter check a page of its slots.

    The answer is the next cursor ("0" at the start and at the end) and the previous override. Call it for both values
    of `checks`.
    """
    keys = (queue.limits, queue.limits_due, queue.limit_checks, queue.limit_wake)
    args = (name, spec, 3 if checks else 2, cursor)
    return script("set_limit", keys, args, lambda reply: (replies.text(reply[0]), replies.text(reply[1])))


def read_limits(queue: QueueKeys) -> Operation[dict[str, str]]:
    """Read the values of limits: declared ones by "d:<kind>:<name>", overrides by "o:<kind>:<name>"."""

    def read(reply: Any) -> dict[str, str]:
        found = replies.shown_fields(reply)
        return {name: replies.shown(value) for name, value in found.items() if name[:2] in ("d:", "o:")}

    return command("read_limits", ("HGETALL", queue.limits), read)


def list_limits(
    queue: QueueKeys, cursor: str, *, count: int = 500
) -> Operation[tuple[str, dict[str, tuple[int, int]]]]:
    """Read some slots. The answer is the next cursor ("0" at the end), and holders and waiting tasks by slot."""

    def read(reply: Any) -> tuple[str, dict[str, tuple[int, int]]]:
        words = iter(reply[1:])
        return replies.text(reply[0]), {
            replies.shown(slot): (int(held), int(waits)) for slot, held, waits in zip(words, words, words, strict=True)
        }

    args = (cursor, queue.limits_prefix, _slots_pattern(queue), count)
    return script("list_limits", (queue.limits,), args, read)


def list_limit_workers(queue: QueueKeys) -> Operation[list[str]]:
    """Read the tokens of the workers that can admit tasks of a queue. A stopped worker is listed for up to a minute."""
    words = ("ZRANGE", queue.limit_workers, 0, -1)
    return command("list_limit_workers", words, lambda reply: [replies.shown(each) for each in reply])


def has_limits(queue: QueueKeys) -> Operation[bool]:
    """Return whether a task of the queue ever had a limit."""
    return command("has_limits", ("EXISTS", queue.limits), replies.boolean)


def count_limited(queue: QueueKeys) -> Operation[int]:
    """Count the tasks that wait for a limit."""
    words = ("ZCOUNT", queue.scheduled, WAITING_SCORE_S, WAITING_SCORE_S)
    return command("count_limited", words, replies.integer)


def _slots_pattern(queue: QueueKeys) -> str:
    """Return the glob pattern of the keys that list the holders of limits and the tasks that wait for limits."""
    return escape_pattern(queue.limits_prefix) + "[hw]:*"
