"""`Operation`, one request to Redis as a value, and helpers and constants for all operations."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from taskq_core.broker.scripts import Script, load
from taskq_core.errors import ConfigurationError
from taskq_core.settings import ArchiveLimits, check_whole
from taskq_core.wire import QueueKeys

T = TypeVar("T")
Argument = str | bytes | int

NOW = ""
"""Argument of a script that reads Redis's clock. Tests replace it by a time in Unix ns."""
STATISTICS_KEPT_S = 7_776_000
"""Seconds for which a daily counter is stored: 90 days, as in Asynq."""
ARCHIVE = ArchiveLimits()
"""Default limits of the archive: 10 000 tasks and 90 days, as in Asynq."""
RECEIPT_KEPT_S = 120
"""Seconds for which a receipt is stored, by which a script recognizes the repeat of a call."""
REQUEST_LIFETIME_S = 60
"""Seconds after which a script refuses a request that has a deadline. The records by which scripts recognize a repeat
are stored twice as long (enqueue.lua, dequeue.lua), so no accepted request arrives after such a record has expired."""
BATCH_MAX = 200
"""Maximum number of tasks in one script call."""
MESSAGE_MAX = 32 << 20
"""Maximum bytes of a message that is read: 32 MiB, twice the largest payload of clients. A setting changes the limit of
workers. Of a larger message, which may exhaust the memory of its reader, only the size is read."""
BATCH_BYTES = 1 << 20
"""Bytes of messages after which no further task is added to a batch."""


class Confirmation(Struct, frozen=True):
    """Replicas or disks that must have a write before an operation succeeds.

    Attributes:
        replicas: Number of replicas.
        fsynced: Whether the primary and that number of replicas must have the write in the append-only file on disk.
    """

    replicas: int
    fsynced: bool = False


REPLICAS_MAX = 100
"""Largest allowed number of replicas that must confirm a write."""


def replicas_of(replicated: object) -> int:
    """Return the number of replicas for a value of `replicated`: True is one replica, False none.

    Raises:
        ConfigurationError: The value is not valid.
    """
    if not isinstance(replicated, int):
        raise ConfigurationError(f"replicated must be True, False or a number of replicas, got {replicated!r}")
    return check_whole("replicated", int(replicated), least=0, most=REPLICAS_MAX)


def confirmation(replicated: bool | int | None, default: Confirmation | None) -> Confirmation | None:
    """Return what must confirm a request, for the argument `replicated` of its call. None is the default."""
    if replicated is None:
        return default
    replicas = replicas_of(replicated)
    return Confirmation(replicas) if replicas else None


class Operation(Struct, Generic[T]):
    """One request to Redis as a value.

    Attributes:
        name: Name of the operation, for tests.
        script: The script, or None when `args` is a plain command.
        keys: Keys that the script declares. They share one cluster slot.
        args: The script's arguments, or the whole command.
        read: Converts the reply into the typed answer.
        repeatable: True if the runner may send the request again when its outcome is unknown.
        block_s: Seconds for which a blocking command may wait in Redis, in addition to the usual timeout.
        tasks: The new tasks of an enqueue, for test helpers that record them.
        confirm: Replicas or disks that must have the write. The request must write something on a repeat as well.
        receipts: One key per new task. The runner deletes it once the task is confirmed.
        marker: For a request to a task, with `confirm`: a key that the runner writes before it waits, because the
            script may write nothing on a repeat.
        deadline_at: Index in `args` (then a list) of the deadline, Unix ms by Redis's clock. The runner sets it. The
            script refuses a request that arrives later. None: no deadline.
        in_doubt: True once an attempt got no answer and may have been carried out. From then on the deadline does not
            change. So a repeat arrives while the receipt of that attempt is stored, or is refused.
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
    marker: str = ""
    deadline_at: int | None = None
    in_doubt: bool = False


def command(
    name: str,
    words: Sequence[Argument],
    read: Callable[[Any], T],
    *,
    keys: tuple[str, ...] | None = None,
    repeatable: bool = True,
    block_s: float = 0.0,
) -> Operation[T]:
    """Return an operation for one plain command. Without `keys`, the second word is its only key."""
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
    """Return an operation that runs `lua/<file>.lua`. Its name is by default that of the file."""
    return Operation(name or file, load(file), keys, args, read, **options)


def escape_pattern(text: str) -> str:
    """Return the pattern that matches only this text, for `SCAN` and similar commands."""
    return "".join(f"\\{each}" if each in "*?[]\\" else each for each in text)


def run_owner(owner: str, run: int) -> str:
    """Return the fence of a run, "<token of the worker>.<run>". A task stores the fence of the run that owns it."""
    return f"{owner}.{run}"


def owner_of(fence: bytes, expiry: bytes) -> str:
    """Return the worker's token in a fence, "" if the fence does not belong to the task's current lease.

    Go's workers write no fence and do not delete the one of an earlier run. Releases before 0.2 write no run number.
    """
    owner, _, ends = fence.rpartition(b":")
    if not ends or ends != expiry:
        return ""
    token, _, run = owner.rpartition(b".")
    return (token if token and run.isdigit() else owner).decode("utf-8", "replace")


def has_start_mark(fence: bytes, mark: bytes) -> bool:
    """Return whether the run with this fence has marked its start. True for workers that do not mark starts.

    These are Go's workers and releases before 0.2.
    """
    owner = fence.rpartition(b":")[0]
    return b"." not in owner or mark == owner


def housekeeping(queue: QueueKeys, archive: ArchiveLimits) -> tuple[Argument, ...]:
    """Return the arguments by which a script counts runs, publishes ends of tasks, and trims the archive."""
    return (queue.prefix, queue.done, STATISTICS_KEPT_S, archive.kept_s, archive.max_tasks)
