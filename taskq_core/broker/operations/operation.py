"""One request to Redis as a value, and what all of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskq_core.broker.scripts import Script, load
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys

T = TypeVar("T")
Argument = str | bytes | int

STATISTICS_KEPT_S = 7_776_000
"""Seconds a daily counter is kept: 90 days, as upstream."""
ARCHIVE = ArchiveLimits()
"""Default limits of the archive: 10 000 tasks and 90 days, as upstream."""
RECEIPT_KEPT_S = 120
"""Seconds a receipt is kept, by which a script recognizes the repeat of a call."""
REQUEST_LIFETIME_S = 60
"""Seconds after which a script refuses a request that has a deadline. The records by which scripts recognize a repeat
live twice as long (enqueue.lua, dequeue.lua), so no request arrives after the record of its repeat has expired."""
BATCH_MAX = 200
"""Most tasks one script call handles."""
BATCH_BYTES = 1 << 20
"""Bytes of messages after which a batch takes no further task."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Replicas or disk that must have a write before it counts as done.

    Attributes:
        replicas: How many replicas.
        fsynced: Whether it must be on disk, in the append-only file: of the primary, and of so many replicas.
    """

    replicas: int
    fsynced: bool = False


@dataclass(slots=True)
class Operation(Generic[T]):
    """One request to Redis as a value.

    Attributes:
        name: Name of the operation, for tests.
        script: The script, or None when `args` is a plain command.
        keys: Keys the script declares. They share one cluster slot.
        args: The script's arguments, or the whole command.
        read: Turns the reply into the typed answer.
        repeatable: True if it may be sent again when its outcome is unknown.
        block_s: Seconds a blocking command may wait in Redis, beyond the usual time for an answer.
        tasks: The new tasks of an enqueue, for test helpers that record them.
        confirm: Who must have the new tasks before it counts as done. It must write, also when it is repeated.
        receipts: Per new task a key that is deleted once the task is confirmed.
        deadline_at: Index in `args`, a list then, of the request's deadline (Unix ms by Redis's clock). The runner sets
            it, and the script refuses a request that arrives later. None: no deadline.
        in_doubt: True once an attempt may have been carried out and got no answer. From then on the deadline stays: a
            repeat arrives while the receipt of that attempt is kept, or is refused.
    """

    name: str
    script: Script | None
    keys: tuple[str, ...]
    args: Sequence[Argument]
    read: Callable[[Any], T]
    repeatable: bool = True
    block_s: float = 0.0
    tasks: Sequence[Any] = ()
    confirm: Confirmation | None = None
    receipts: tuple[str, ...] = ()
    deadline_at: int | None = None
    in_doubt: bool = False

    @property
    def takes_deadline(self) -> bool:
        """Whether the runner sets the deadline before the next attempt."""
        return self.deadline_at is not None and not self.in_doubt

    def command(self, *more_keys: str) -> tuple[Argument, ...]:
        """The words to send; a script declares further keys as well."""
        if self.script is None:
            return tuple(self.args)
        return ("EVALSHA", self.script.sha, len(self.keys) + len(more_keys), *self.keys, *more_keys, *self.args)

    def command_with_text(self, *more_keys: str) -> tuple[Argument, ...]:
        """The words to send to a server that does not know the script yet."""
        assert self.script is not None
        return ("EVAL", self.script.text, len(self.keys) + len(more_keys), *self.keys, *more_keys, *self.args)


def command(
    name: str,
    words: Sequence[Argument],
    read: Callable[[Any], T],
    *,
    keys: tuple[str, ...] | None = None,
    repeatable: bool = True,
    block_s: float = 0.0,
) -> Operation[T]:
    """Return an operation that is one plain command. Its second word is its key where `keys` is not given."""
    if keys is None:
        keys = (str(words[1]),)
    return Operation(name, None, keys, words, read, repeatable=repeatable, block_s=block_s)


def script(
    file: str,
    keys: tuple[str, ...],
    args: Sequence[Argument],
    read: Callable[[Any], T],
    *,
    name: str = "",
    **options: Any,
) -> Operation[T]:
    """Return an operation that runs `lua/<file>.lua`. It is named after the file where `name` is not given."""
    return Operation(name or file, load(file), keys, args, read, **options)


def time_argument(now_ns: int | None) -> str:
    """Return the time that replaces Redis's, empty in production."""
    return "" if now_ns is None else str(now_ns)


def run_owner(owner: str, run: int) -> str:
    """Return how a fence names one run of a worker: "<token of the worker>.<run>"."""
    return f"{owner}.{run}"


def owner_of(fence: bytes, expiry: bytes) -> str:
    """Return the token of the worker that a fence names, "" if the fence belongs to another lease.

    Go's workers write no fence and leave the one of an earlier run. Releases before 0.2 write no run.
    """
    owner, _, ends = fence.rpartition(b":")
    if not ends or ends != expiry:
        return ""
    token, _, run = owner.rpartition(b".")
    return (token if token and run.isdigit() else owner).decode("utf-8", "replace")


def has_start_mark(fence: bytes, mark: bytes) -> bool:
    """Return whether the mark is that of the run with this fence. True where the worker marks no starts.

    Go's workers and releases before 0.2 mark none.
    """
    owner = fence.rpartition(b":")[0]
    return b"." not in owner or mark == owner


def housekeeping(queue: QueueKeys, archive: ArchiveLimits) -> tuple[Argument, ...]:
    """Return the arguments by which a script counts, announces and trims."""
    return (queue.prefix, queue.done, STATISTICS_KEPT_S, archive.kept_s, archive.max_tasks)
