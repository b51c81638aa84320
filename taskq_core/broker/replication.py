"""Create and decode the requests that wait until replicas or disks have received new tasks. Without I/O.

`WAIT` and `WAITAOF` count the replicas that have all writes of the connection. So these commands must follow the write
on the same connection, and a repeated request must write something again.
"""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.operations.operation import Argument, Confirmation, Operation
from taskq_core.errors import BrokerReplicationError

ANSWER_S = 0.5
"""Redis must end its wait this many seconds before the timeout, because it answers up to 0.1 s late, and later if it is
busy. If less time is left, no further attempt is made."""
_STORED = frozenset((StoreCode.STORED, StoreCode.CHANGED, StoreCode.STORED_BEFORE))
OK = "ok"
"""Answer of a script that has carried out a request to a task."""
_SHARE = 0.4
"""Maximum fraction of a short timeout that is reserved for the answer instead of `ANSWER_S`."""

REPLICATION_INFO = ("INFO", "replication")
"""Command that is sent after a failed wait, so that the error can say how many replicas are connected."""


def confirm_commands(operation: Operation[Any], left_s: float) -> list[tuple[Argument, ...]]:
    """Return the commands that wait for the confirmation, with `left_s` seconds left until the timeout.

    If the operation has a marker, it is written first, so that the connection has a write to wait for.
    """
    assert operation.confirm is not None
    wait_ms = max(1, int((left_s - min(ANSWER_S, _SHARE * left_s)) * 1000))
    wait = ("WAITAOF", 1) if operation.confirm.fsynced else ("WAIT",)
    marker = [("SET", operation.marker, "1", "EX", 60)] if operation.marker else []
    return [*marker, (*wait, operation.confirm.replicas, wait_ms)]


def is_due(operation: Operation[Any], reply: Any) -> bool:
    """Return whether an operation has stored something that must be confirmed."""
    if operation.marker:
        return _codes(operation, reply) == OK
    return operation.confirm is not None and not _STORED.isdisjoint(_codes(operation, reply))


def forget_command(operation: Operation[Any], reply: Any) -> tuple[Argument, ...]:
    """Return the command that deletes the receipts of confirmed tasks."""
    codes = zip(operation.receipts, _codes(operation, reply), strict=True)
    return ("UNLINK", *[key for key, code in codes if code in _STORED])


def _codes(operation: Operation[Any], reply: Any) -> str:
    return str(operation.read(reply))


class Shortfall:
    """The reason why not enough replicas or disks confirmed a write.

    Attributes:
        is_final: True if waiting again cannot help.
        confirmed: Replicas that have the write.
        problem: The reason, as the rest of a sentence.
    """

    __slots__ = ("confirmed", "is_final", "problem")

    def __init__(self, confirmed: int, problem: str, *, is_final: bool = False) -> None:
        self.confirmed = confirmed
        self.problem = problem
        self.is_final = is_final

    def error(self, operation: Operation[Any], reply: Any, address: str, info: Any = None) -> BrokerReplicationError:
        """Return the error for a write that is not confirmed. `info` is the answer to `REPLICATION_INFO`, if any."""
        assert operation.confirm is not None
        connected = _connected(info)
        problem = self.problem
        if connected is not None and connected < operation.confirm.replicas:
            problem += f"; {'none' if connected == 0 else connected} {'are' if connected > 1 else 'is'} connected"
        return BrokerReplicationError(
            f"{address}: {problem}",
            operation.confirm.replicas,
            self.confirmed,
            is_final=self.is_final,
            answer=operation.read(reply),
        )


def shortfall(confirmation: Confirmation, replies: Sequence[Any]) -> Shortfall | None:
    """Decode the replies to `confirm_commands`. Return None if the write is confirmed."""
    reply: Any = next((each for each in replies if isinstance(each, Exception)), replies[-1])
    if isinstance(reply, RedisError) and confirmation.fsynced and "unknown command" in str(reply):
        return Shortfall(0, "the server does not support WAITAOF, which needs Redis 7.2", is_final=True)
    if isinstance(reply, RedisError):
        return Shortfall(0, str(reply), is_final=_is_final(str(reply)))
    local, replicas = (int(reply[0]), int(reply[1])) if confirmation.fsynced else (1, int(reply))
    if local < 1:
        return Shortfall(replicas, "the append-only file was not synced to disk in time")
    if replicas < confirmation.replicas:
        return Shortfall(replicas, f"{replicas} of {confirmation.replicas} replicas confirmed in time")
    return None


def _is_final(refusal: str) -> bool:
    """Return whether a repeat would be refused too. If the server became a replica, a repeat goes to another server."""
    return not refusal.startswith("UNBLOCKED") and "replica instances" not in refusal


def _connected(info: Any) -> int | None:
    if not isinstance(info, bytes | str):
        return None
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else info
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "connected_slaves" and value.isascii() and value.isdigit():
            return int(value)
    return None
