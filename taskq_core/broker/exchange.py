"""Logic that both runners share: commands, deadlines, missing scripts, confirmations and retries. Without I/O.

`exchange` is a generator that yields a `Write`, receives one reply per command, and returns one answer per operation.
`run_plan` and `arun_plan` execute it. If a write fails, its `yield` raises a `BrokerError`. After a failure, `Attempts`
decides whether and when the operation is sent again.
"""

import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import hiredis
from msgspec import Struct

from taskq_core.broker.cluster import ASKING, absent_key
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.failures import LateError, is_late, is_missing_script, translate, translate_connecting
from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import REQUEST_LIFETIME_S, Argument, Operation
from taskq_core.broker.operations.replies import time_ms
from taskq_core.broker.replication import (
    ANSWER_S,
    REPLICATION_INFO,
    Shortfall,
    confirm_commands,
    forget_command,
    is_due,
    shortfall,
)
from taskq_core.errors import BrokerError, BrokerReplicationError, BrokerUnavailableError

Command = tuple[Argument, ...]


class Write(Struct):
    """Commands to send in one write.

    Attributes:
        commands: The commands. Each has one reply; an error reply is an exception.
        block_s: Seconds for which Redis may block before it answers, in addition to the usual timeout.
        spin_s: Seconds for which the event loop polls without sleeping while it waits. Blocking code ignores it.
        is_sent: Whether blocking code has sent the commands.
        replies: The replies, once blocking code has read them. It may read them on behalf of a later write.
    """

    commands: Sequence[Command]
    block_s: float = 0.0
    spin_s: float = 0.0
    is_sent: bool = False
    replies: list[Any] | None = None


Exchange = Generator[Write, list[Any], list[Any]]
"""Yields writes, receives their replies, and returns the answers of some operations."""
TIME: Command = ("TIME",)
WITH_STEPS = b"\0steps"
"""Begins the reply of a script that has stored steps of workflows; see `with_steps` in `_flow.lua`."""
CLOSING = frozenset((BrokerUnavailableError, BrokerReplicationError))
"""Types of answers after which the connection must be closed, because its server may be the wrong one."""


def exchange(
    endpoint: Endpoint,
    operations: Sequence[Operation[Any]],
    left_s: Callable[[], float],
    *,
    is_asking: bool = False,
    spin_s: float = 0.0,
) -> Exchange:
    """Send operations on one connection, and return one answer for each, a `BrokerError` if it was refused.

    Args:
        endpoint: The server of the connection.
        operations: The operations, which are sent in one write.
        left_s: Returns the seconds left until the timeout.
        is_asking: Send `ASKING` before each operation, which a cluster needs while the slot of the operations moves to
            this node.
        spin_s: As in `Write`.
    """
    commands: list[Command] = []
    confirming: list[Command] = []
    block_s = 0.0
    for operation in operations:
        # An operation that Redis may already have carried out keeps its deadline.
        if operation.deadline_at is not None and not operation.in_doubt:
            offset_s = endpoint.clock_offset_s  # copied, because another thread may reset the attribute
            if offset_s is None:
                offset_s = yield from _learn_time(endpoint)
            deadline_ms = int((offset_s + time.monotonic() + REQUEST_LIFETIME_S) * 1000)
            operation.args[operation.deadline_at] = deadline_ms  # type: ignore[index]  # a list, as it takes a deadline
        if operation.block_s > block_s:
            block_s = operation.block_s
        if is_asking:
            commands.append(ASKING)
        commands.append(words_of(operation, *absent_key(operation)) if endpoint.is_node else words_of(operation))
        if operation.confirm is not None and not endpoint.is_memory:
            confirming += confirm_commands(operation, left_s())
    sent = len(commands)
    commands += confirming  # in the same write, which saves a round trip; the replies are ignored if nothing was stored
    replies = yield Write(commands, block_s, spin_s)
    own_replies = replies[1:sent:2] if is_asking else replies[:sent]
    waits = iter(replies[sent:]) if confirming else None
    answers: list[Any] = []
    for operation, reply in zip(operations, own_replies, strict=True):
        waited: Sequence[Any] | None = None
        if waits is not None and operation.confirm is not None:
            waited = [next(waits) for _ in range(2 if operation.marker else 1)]
        try:
            if isinstance(reply, Exception):
                reply = yield from _send_again(endpoint, operation, reply, block_s, is_asking)
                waited = None  # Redis answered before this write
            if type(reply) is list and reply and reply[0] == WITH_STEPS:
                reply = _count_steps(endpoint, reply)
            if operation.confirm is not None and is_due(operation, reply):
                yield from _confirm(endpoint, operation, reply, waited, left_s)
            answers.append(operation.read(reply))
        except BrokerError as error:
            answers.append(error)
    return answers


def _count_steps(endpoint: Endpoint, reply: list[Any]) -> Any:
    """Report the steps of workflows that a script has stored, and return the reply of the script itself."""
    _, own, queue, *counts = reply
    for name, count in zip(counts[::2], counts[1::2], strict=True):
        endpoint.count_steps(replies.shown(queue), replies.shown(name), int(count))
    return own


def pack(command: Sequence[Argument]) -> bytes:
    """Return the bytes of a command in Redis's protocol. Ids from Redis may contain bytes that are not valid UTF-8."""
    words: Any = tuple(command)  # `Any`, because hiredis accepts any tuple, but its type hints do not
    try:
        packed: bytes = hiredis.pack_command(words)
    except UnicodeEncodeError:
        words = [word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word for word in command[1:]]
        packed = hiredis.pack_command((command[0], *words))
    return packed


def words_of(operation: Operation[Any], *more_keys: str, with_text: bool = False) -> Command:
    """Return the command of an operation. A script also declares `more_keys`.

    With `with_text`, the command contains the script itself, for a server that does not have the script yet.
    """
    if operation.script is None:
        return tuple(operation.args)
    name, script = ("EVAL", operation.script.text) if with_text else ("EVALSHA", operation.script.sha)
    return (name, script, len(operation.keys) + len(more_keys), *operation.keys, *more_keys, *operation.args)


def _learn_time(endpoint: Endpoint) -> Generator[Write, list[Any], float]:
    """Ask the server for its time. Return its clock minus the monotonic clock of this process, in seconds."""
    sent_at = time.monotonic()
    try:
        (reply,) = yield Write([TIME])
    except BrokerError as error:  # only TIME was sent, so the operation changed nothing
        raise translate_connecting(error, endpoint.address) from error
    if isinstance(reply, Exception):
        raise translate(reply, endpoint.address) from reply
    return endpoint.learn_time(time_ms(reply), sent_at)


def _send_again(
    endpoint: Endpoint, operation: Operation[Any], refused: Exception, block_s: float, is_asking: bool
) -> Generator[Write, list[Any], Any]:
    """Send an operation again if the server lacks its script or its deadline was wrong. Otherwise raise the error.

    After a restart on another host, both may be the case: the script is missing, and the clock differs.
    """
    has_corrected = False
    while True:
        must_correct = is_late(refused) and operation.deadline_at is not None and not operation.in_doubt
        if must_correct and not has_corrected:
            has_corrected = True
            offset_s = yield from _learn_time(endpoint)  # the clock of the Redis server was changed
            deadline_ms = int((offset_s + time.monotonic() + REQUEST_LIFETIME_S) * 1000)
            operation.args[operation.deadline_at] = deadline_ms  # type: ignore[index]  # a list, as it takes a deadline
        elif not is_missing_script(refused):
            raise translate(refused, endpoint.address) from refused
        with_text = words_of(operation, *(absent_key(operation) if endpoint.is_node else ()), with_text=True)
        reply = (yield Write([ASKING, with_text] if is_asking else [with_text], block_s))[-1]
        if not isinstance(reply, Exception):
            return reply
        refused = reply


def _confirm(
    endpoint: Endpoint,
    operation: Operation[Any],
    reply: Any,
    waited: Sequence[Any] | None,
    left_s: Callable[[], float],
) -> Generator[Write, list[Any], None]:
    """Return if replicas or disks have the writes of this connection. Raise `BrokerReplicationError` otherwise.

    `waited` contains the replies to `confirm_commands`. None: the commands were not sent after the write.
    """
    assert operation.confirm is not None
    missing: Shortfall | None = None
    info = None
    try:
        if not endpoint.is_memory:
            if waited is None:
                waited = yield Write(confirm_commands(operation, left_s()))
            missing = shortfall(operation.confirm, waited)
        if missing is None and operation.receipts:
            (deleted,) = yield Write([forget_command(operation, reply)])
            if isinstance(deleted, Exception):
                missing = Shortfall(operation.confirm.replicas, str(deleted))
        if missing is None:
            return
        (info,) = yield Write([REPLICATION_INFO])
    except BrokerError as error:
        missing = missing or Shortfall(0, str(error))
        raise missing.error(operation, reply, endpoint.address) from error
    raise missing.error(operation, reply, endpoint.address, info)


class Attempts:
    """Decides whether and when a failed operation is sent again.

    Args:
        operation: The operation to send.
    """

    __slots__ = ("_number", "_operation", "_unconfirmed")

    def __init__(self, operation: Operation[Any]) -> None:
        self._operation = operation
        self._number = 0
        self._unconfirmed: BrokerReplicationError | None = None

    def pause_s(self, error: BrokerError, left_s: float, *, may_repeat: bool) -> float:
        """Return the seconds to wait before the next attempt, or raise the error of the call.

        Args:
            error: The error of the last attempt.
            left_s: Seconds until the deadline of all attempts together.
            may_repeat: False to make no further attempt, for example because the runner is closed.
        """
        operation = self._operation
        failure: BrokerError = error
        if isinstance(error, BrokerReplicationError):
            self._unconfirmed = error
            may_repeat = may_repeat and not error.is_final and left_s > ANSWER_S
        elif isinstance(error, BrokerUnavailableError):
            failure = self._unconfirmed or error
            operation.in_doubt = error.may_have_happened = operation.in_doubt or error.may_have_happened
            may_repeat = may_repeat and operation.repeatable and not isinstance(error, LateError)
        else:
            may_repeat = False
            failure = self._unconfirmed or error
            error.may_have_happened = error.may_have_happened or operation.in_doubt
        pause_s = random.uniform(0.5, 1.0) * min(0.05 * 2.0**self._number, 1.0)  # noqa: S311 - jitter, no secret
        if may_repeat and pause_s < left_s:
            self._number += 1
            return pause_s
        if failure is error:
            raise error
        raise failure from error
