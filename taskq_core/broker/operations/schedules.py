"""Requests of a scheduler: read and advance the marks of entries, enqueue their tasks, publish entries and history."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import NOW, RECEIPT_KEPT_S, Argument, Operation, command, script
from taskq_core.wire import QueueKeys

MARK_KEPT_S = 7_776_000
"""Seconds for which the mark of an entry is stored after the last scheduler with this entry has stopped: 90 days."""
MARK_AHEAD_S = 86_400
"""Maximum seconds by which a mark may be ahead of Redis's clock. If it is further ahead, the clock was set back."""
ADOPT_MAX = 100
"""Maximum number of entries in one `adopt`."""
TICK_MAX = 100
"""Maximum number of firings in one `tick`."""
RUNS_MAX = 500
"""Maximum number of names in one `take_runs` or `acknowledge_runs`."""
ENTRIES_SHOWN = 1000
"""Maximum number of entries of a scheduler that tools can read."""
HISTORY_MAX = 1000
"""Maximum number of firings in the history of an entry, as in Asynq."""


class Mark(Struct):
    """How far the firings of an entry have been processed, in Unix seconds.

    Attributes:
        at_s: The last firing that was processed, or when the entry began.
        enqueued_s: The last firing that enqueued a task, or None.
    """

    at_s: int
    enqueued_s: int | None


class Adopted(Struct):
    """Result of `adopt`: Redis's time (Unix ns) and the mark of each entry."""

    now_ns: int
    marks: list[Mark]


def _read_adopted(reply: Any) -> Adopted:
    marks = []
    for each in reply[1:]:
        at_s, _, enqueued_s = replies.text(each).partition(":")
        marks.append(Mark(int(at_s), int(enqueued_s) if enqueued_s else None))
    return Adopted(int(reply[0]), marks)


def adopt(queue: QueueKeys, entries: Sequence[str]) -> Operation[Adopted]:
    """Read the marks of entries of a queue. New entries begin now. At most `ADOPT_MAX`."""
    keys = tuple(queue.tick(entry) for entry in entries)
    args = (NOW, MARK_KEPT_S, MARK_AHEAD_S, len(keys))
    return script("adopt", keys, args, _read_adopted)


class TickCode(StrEnum):
    """Whether a firing was processed."""

    STORED = "1"
    ID_CONFLICT = "0"
    DUPLICATE = "d"
    EXISTING = "x"
    CHANGED = "u"
    DROPPED = "-"
    SUPERSEDED = "s"
    EARLY = "e"


class Tick(Struct):
    """A firing of an entry.

    Attributes:
        entry: The entry, as in its mark's key.
        before_s: The mark that the entry must have, Unix s.
        at_s: The firing, Unix s.
        task: The task to store, or None to skip the firing.
        run_key: Name under which the run is counted if the task is stored; "" does not count it.
    """

    entry: str
    before_s: int
    at_s: int
    task: NewTask | None
    run_key: str = ""


class Ticked(Struct):
    """Result of `tick`: Redis's time (Unix ns) and one `TickCode` character per firing."""

    now_ns: int
    codes: str


def tick(queue: QueueKeys, ticks: Sequence[Tick], slot: ReceiptSlot) -> Operation[Ticked]:
    """Process firings of the periodic entries of one queue: store their tasks and advance the marks of the entries.

    At most `TICK_MAX` firings, about `BATCH_BYTES` in total. Firings of one entry must be in order. If Redis is over
    its memory limit, it refuses all of them.
    """
    slot.call += 1
    keys = (queue.pending, queue.scheduled, queue.wake, queue.receipt(slot.token), queue.groups, queue.runs)
    args: list[Argument] = [NOW, slot.call, RECEIPT_KEPT_S, queue.prefix, queue.tick(""), MARK_KEPT_S]
    for each in ticks:
        stored = ("", "", "", "", 0, "", "") if each.task is None else each.task.arguments(queue)
        args += (each.entry, each.before_s, each.at_s, *stored, each.run_key)
    return script("tick", keys, args, lambda reply: Ticked(int(reply[0]), replies.text(reply[1])))


class Ran(Struct, frozen=True):
    """Tasks that an entry has enqueued since the last report: their number, and the last firing (Unix s)."""

    run_key: str
    count: int
    last_s: int


def take_runs(queue: QueueKeys, run_keys: Sequence[str]) -> Operation[list[Ran]]:
    """Read the runs of entries that were not reported to their provider yet, for at most `RUNS_MAX` run keys."""

    def read(reply: Any) -> list[Ran]:
        found = []
        for run_key, answer in zip(run_keys, map(replies.text, reply), strict=True):
            count, _, last_s = answer.partition(":")
            if answer:
                found.append(Ran(run_key, int(count), int(last_s)))
        return found

    return script("take_runs", (queue.runs,), tuple(run_keys), read)


def acknowledge_runs(queue: QueueKeys, runs: Sequence[Ran]) -> Operation[int]:
    """Delete at most `RUNS_MAX` runs that were reported to their provider. The answer is the number of deleted runs."""
    args = [word for each in runs for word in (each.run_key, f"{each.count}:{each.last_s}")]
    return script("acknowledge_runs", (queue.runs,), tuple(args), replies.integer)


def announce(scheduler_key: str, entries: Sequence[bytes], *, ttl_s: int) -> Operation[None]:
    """Publish the entries of a scheduler for tools that show schedules, at most `ENTRIES_SHOWN`."""
    return script("announce", (scheduler_key,), (ttl_s, *entries), replies.nothing)


def withdraw_entries(scheduler_key: str) -> Operation[int]:
    """Delete the entries of a scheduler."""
    return command("withdraw_entries", ("DEL", scheduler_key), replies.integer)


def record_firing(history_key: str, event: bytes, *, at_s: int, kept_s: int | None = None) -> Operation[bool]:
    """Record a firing in the history of an entry. The answer is True if it is new.

    The history expires after `kept_s` seconds, or never for None.
    """
    args = (at_s, event, HISTORY_MAX, "" if kept_s is None else kept_s)
    return script("record_firing", (history_key,), args, replies.boolean)
