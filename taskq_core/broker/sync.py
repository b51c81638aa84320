"""The blocking runner: sends operations and reads their answers.

Safe to share between threads: each call has a connection of its own for its time. After a fork the child opens new
connections and leaves its parent's alone. A connection on which anything went wrong is closed, never used again.
"""

import contextlib
import os
import random
import socket
import time
import weakref
from collections import deque
from typing import Any, Generic, TypeVar

from redis.exceptions import ResponseError

from taskq_core.broker.cluster import ASKING, REDIRECTIONS_MAX, Server, absent_key, slot_of
from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Endpoint
from taskq_core.broker.failures import (
    CLIENT_ERRORS,
    LateError,
    RedirectedError,
    is_late,
    is_missing_script,
    pack,
    translate,
    translate_connecting,
)
from taskq_core.broker.operations import presence
from taskq_core.broker.operations.operation import Argument, Operation, time_ms
from taskq_core.broker.replication import ANSWER_S, HOW_MANY, Shortfall, forget_command, is_due, shortfall, wait_command
from taskq_core.broker.sockets import SocketStream
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerError,
    BrokerReplicationError,
    BrokerUnavailableError,
)

T = TypeVar("T")

_SENT_AT_ONCE = 1 << 16
"""Bytes that the operating system takes at once on a connection with nothing on the way."""


class SyncRunner:
    """Runs operations against one endpoint, blocking the caller.

    Args:
        endpoint: Where the store is.
        timeout_s: Seconds to wait for an answer.
        max_idle: Connections kept open between calls.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S, max_idle: int = 16) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._max_idle = max_idle
        self._idle: deque[Any] = deque()
        self._nodes: dict[Server, SyncRunner] = {}
        self._closed = False
        self._process = os.getpid()
        _runners.add(self)

    def run(self, operation: Operation[T], *, patience_s: float | None = None) -> T:
        """Send one operation and return its answer.

        Args:
            operation: What to send.
            patience_s: Most seconds this may take in all. A repeatable operation is sent again within them when the
                store does not answer. None: one attempt with the runner's own timeouts.

        Raises:
            BrokerUnavailableError: No answer.
            BrokerAuthenticationError, BrokerFullError, BrokerReplyError: The store refused.
            BrokerReplicationError: It was done, and the replicas that had to confirm it did not.
                `may_have_happened` of each says whether the store may have carried out this attempt, or one before.
        """
        return self._finish(operation, None, patience_s)

    def begin(self, operation: Operation[T]) -> "Pending[T]":
        """Send one operation without waiting for its answer, which `Pending.finish` reads."""
        if self.endpoint.is_cluster:
            return Pending(self, operation, None)
        self._check_open()
        until = time.monotonic() + self._timeout_s
        try:
            connection = self._take(until)
        except BrokerUnavailableError:
            return Pending(self, operation, None)  # finish() tries again, for as long as its caller has patience
        try:
            if operation.takes_deadline:
                self._set_deadline(connection, operation, until)
            self._send(connection, pack(operation.command()), until)
        except (*CLIENT_ERRORS, BrokerError):
            connection.disconnect()
            return Pending(self, operation, None)
        return Pending(self, operation, connection)

    def _finish(self, operation: Operation[T], sent_on: Any, patience_s: float | None) -> T:
        now = time.monotonic()
        deadline = None if patience_s is None else now + patience_s
        attempt = 0
        unconfirmed: BrokerReplicationError | None = None
        while True:
            until = now + self._timeout_s  # connecting, sending and waiting share the time
            if deadline is not None:
                until = min(until, max(now + 0.001, deadline))
            try:
                return operation.read(self._run_once(operation, until, sent_on))
            except BrokerReplicationError as error:
                failure: BrokerError = error
                unconfirmed = error
                is_worth_it = deadline is not None and deadline - time.monotonic() > ANSWER_S
                may_repeat = not error.is_final and is_worth_it
            except BrokerUnavailableError as error:
                failure = unconfirmed or error
                operation.in_doubt = error.may_have_happened = operation.in_doubt or error.may_have_happened
                may_repeat = operation.repeatable and not isinstance(error, LateError)
            except BrokerError as error:
                if unconfirmed is not None:
                    raise unconfirmed from error
                error.may_have_happened = error.may_have_happened or operation.in_doubt
                raise
            pause = random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 1.0)  # noqa: S311 - jitter, no secret
            is_over = deadline is None or time.monotonic() + pause >= deadline
            if not may_repeat or is_over or self._closed:
                raise failure
            attempt += 1
            sent_on = None
            time.sleep(pause)
            now = time.monotonic()

    def _run_once(self, operation: Operation[Any], until: float, sent_on: Any) -> Any:
        if sent_on is None:
            self._check_open()
        if self.endpoint.is_cluster:
            return self._run_on_cluster(operation, until)
        return self._attempt(operation, until, sent_on)

    def _attempt(
        self,
        operation: Operation[Any],
        until: float,
        sent_on: Any = None,
        *,
        more_keys: tuple[str, ...] = (),
        is_asking: bool = False,
    ) -> Any:
        """Send an operation to this server, or read what it answers to one that was sent, and return the reply."""
        connection = sent_on or self._take(until)
        try:
            if sent_on is None:
                if operation.takes_deadline:
                    self._set_deadline(connection, operation, until)
                reply = self._exchange(connection, operation.command(*more_keys), until, operation.block_s, is_asking)
            else:
                reply = self._read(connection, until + operation.block_s)
            must_correct = is_late(reply) and operation.takes_deadline
            if must_correct:
                self.endpoint.forget_time()
                self._set_deadline(connection, operation, until)
            if must_correct or is_missing_script(reply):
                text = operation.command_with_text(*more_keys)
                reply = self._exchange(connection, text, until, operation.block_s, is_asking)
        except CLIENT_ERRORS as error:
            connection.disconnect()
            raise translate(error, self.endpoint.address) from error
        except BaseException:
            connection.disconnect()
            raise
        if isinstance(reply, Exception):
            failure = translate(reply, self.endpoint.address)
            if isinstance(failure, BrokerUnavailableError):
                connection.disconnect()  # a failover leaves us on the wrong server
            else:
                self._give_back(connection)
            raise failure from reply
        if operation.confirm is not None and is_due(operation, reply):
            self._confirm(connection, operation, reply, until)
        self._give_back(connection)
        return reply

    def _set_deadline(self, connection: Any, operation: Operation[Any], until: float) -> None:
        """Set the deadline of an operation that has one. The server's clock is read first if it is not known."""
        sent_at = time.monotonic()
        deadline_ms = self.endpoint.deadline_ms(sent_at)
        if deadline_ms is None:
            try:
                reply = self._exchange(connection, ("TIME",), until)
            except CLIENT_ERRORS as error:
                raise translate_connecting(error, self.endpoint.address) from error  # the operation was not sent
            if isinstance(reply, Exception):
                raise reply
            self.endpoint.learn_time(time_ms(reply), sent_at)
            deadline_ms = self.endpoint.deadline_ms(sent_at)
        operation.args[operation.deadline_at] = deadline_ms  # type: ignore[index]  # a list, as it has one

    def _confirm(self, connection: Any, operation: Operation[Any], reply: Any, until: float) -> None:
        """Wait until what was written on a connection is confirmed, or raise."""
        assert operation.confirm is not None
        try:
            missing = None
            if not self.endpoint.is_memory:
                command = wait_command(operation.confirm, until - time.monotonic())
                missing = shortfall(operation.confirm, self._exchange(connection, command, until))
            if missing is None and operation.receipts:
                said = self._exchange(connection, forget_command(operation, reply), until)
                if isinstance(said, Exception):
                    missing = Shortfall(operation.confirm.replicas, str(said))
        except CLIENT_ERRORS as error:
            connection.disconnect()
            missing = Shortfall(0, str(translate(error, self.endpoint.address)))
            raise missing.error(operation, reply, self.endpoint.address) from error
        except BaseException:
            connection.disconnect()
            raise
        if missing is None:
            return
        info = None
        with contextlib.suppress(*CLIENT_ERRORS):  # only to say more
            info = self._exchange(connection, HOW_MANY, until)
        connection.disconnect()
        raise missing.error(operation, reply, self.endpoint.address, info)

    def _exchange(
        self,
        connection: Any,
        command: tuple[Argument, ...],
        until: float,
        block_s: float = 0.0,
        is_asking: bool = False,
    ) -> Any:
        packed = pack(ASKING) + pack(command) if is_asking else pack(command)
        self._send(connection, packed, until)
        if is_asking:
            self._read(connection, until)
        return self._read(connection, until + block_s)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailableError.unchanged(f"the client of {self.endpoint.address} is closed")

    def _send(self, connection: Any, packed: bytes, until: float) -> None:
        stream: SocketStream | None = connection.taskq_stream
        if stream is not None:
            stream.send(packed, until)
            return
        if len(packed) > _SENT_AT_ONCE and isinstance(connection._sock, socket.socket):
            connection._sock.settimeout(_left_s(until))
        connection.send_packed_command([packed], check_health=False)

    def _read(self, connection: Any, until: float) -> Any:
        stream: SocketStream | None = connection.taskq_stream
        if stream is not None:
            return stream.read(until)
        try:
            return connection.read_response(timeout=_left_s(until))
        except ResponseError as error:
            return error

    def _take(self, until: float) -> Any:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect(_left_s(until))
            if connection.taskq_takeovers == self.endpoint.takeovers and _is_clean(connection):
                return connection
            connection.disconnect()

    def _connect(self, timeout_s: float) -> Any:
        # The handshake waits no longer than the attempt. Later reads bring their own time, and so do long sends.
        try:
            connection = self.endpoint.connection(
                timeout_s=min(timeout_s, self._timeout_s), connect_timeout_s=min(timeout_s, CONNECT_TIMEOUT_S)
            )
            connection.taskq_takeovers = self.endpoint.takeovers
            connection.connect()
            connection.taskq_stream = SocketStream.over(connection)
        except CLIENT_ERRORS as error:
            raise translate_connecting(error, self.endpoint.address) from error
        return connection

    def _give_back(self, connection: Any) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            connection.disconnect()
        else:
            self._idle.append(connection)

    def nodes(self) -> "list[SyncRunner]":
        """Return a new runner for every primary of a cluster, or one for the only server. The caller closes them."""
        if not self.endpoint.is_cluster:
            return [SyncRunner(self.endpoint, timeout_s=self._timeout_s)]
        self._learn_slots(time.monotonic() + self._timeout_s)
        primaries = self.endpoint.slots.primaries
        return [SyncRunner(self.endpoint.node(*each), timeout_s=self._timeout_s) for each in primaries]

    def _run_on_cluster(self, operation: Operation[Any], until: float) -> Any:
        slots = self.endpoint.slots
        slot = slot_of(operation)
        if not slots.is_known:
            self._learn_slots(until)
        server = slots.owner(slot)
        if server is None:
            slots.forget()
            raise BrokerUnavailableError.unchanged(f"no node of {self.endpoint.address} serves slot {slot}")
        is_asking = False
        for _ in range(REDIRECTIONS_MAX):
            try:
                return self._node(server)._attempt(
                    operation, until, more_keys=absent_key(operation), is_asking=is_asking
                )
            except RedirectedError as away:
                is_asking = away.is_ask
                server = (away.server[0] or server[0], away.server[1])
                if not is_asking:
                    slots.move(away.slot, server)
            except BrokerUnavailableError:
                slots.forget()
                raise
        slots.forget()
        raise BrokerUnavailableError.unchanged(f"the nodes of {self.endpoint.address} send slot {slot} round and round")

    def _node(self, server: Server) -> "SyncRunner":
        node = self._nodes.get(server)
        if node is None:
            new = SyncRunner(self.endpoint.node(*server), timeout_s=self._timeout_s, max_idle=self._max_idle)
            node = self._nodes.setdefault(server, new)
        return node

    def _learn_slots(self, until: float) -> None:
        """Ask one node after the other who serves which slot, each for its share of the time."""
        problems = []
        sources = self.endpoint.slots.sources()
        for index, server in enumerate(sources):
            now = time.monotonic()
            share_s = (until - now) / (len(sources) - index)
            if share_s <= 0:
                break
            try:
                shards = self._node(server)._attempt(presence.read_shards(), now + share_s)
            except BrokerAuthenticationError:
                raise
            except BrokerError as error:
                problems.append(str(error))
            else:
                self.endpoint.slots.learn(shards, server)
                return
        raise BrokerUnavailableError.unchanged(f"cannot reach {self.endpoint.address}: {'; '.join(problems)}")

    def subscribe(self, channel: str) -> "SyncSubscription":
        """Listen on a channel, on a connection of its own."""
        return SyncSubscription(self.endpoint, channel, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Close all connections. The runner cannot be used afterwards."""
        self._closed = True
        while self._idle:
            self._idle.pop().disconnect()
        for node in self._nodes.values():
            node.close()

    def _forget_after_fork(self) -> None:
        # The parent's sockets are its own: they are let go without a word on the wire.
        for connection in self._idle:
            connection._sock = None
        self._idle = deque()


def _is_clean(connection: Any) -> bool:
    """Whether an idle connection may be used: with something to read it was closed, or holds a reply to nobody."""
    stream: SocketStream | None = connection.taskq_stream
    if stream is not None:
        return stream.is_clean
    try:
        return connection.is_connected and not connection.can_read(timeout=0)
    except CLIENT_ERRORS:
        return False


def _left_s(until: float) -> float:
    """Return the seconds until a moment of the monotonic clock, but no less than a millisecond."""
    return max(0.001, until - time.monotonic())


class Pending(Generic[T]):
    """An operation that was sent and not yet answered."""

    __slots__ = ("_connection", "_operation", "_runner")

    def __init__(self, runner: SyncRunner, operation: Operation[T], connection: Any) -> None:
        self._runner = runner
        self._operation = operation
        self._connection = connection

    def finish(self, *, patience_s: float | None = None) -> T:
        """Wait for the answer and return it. Repeats and raises as `SyncRunner.run`."""
        return self._runner._finish(self._operation, self._connection, patience_s)


class SyncSubscription:
    """Messages published on one channel."""

    def __init__(self, endpoint: Endpoint, channel: str, *, timeout_s: float) -> None:
        self._address = endpoint.address
        connection = None
        try:
            connection = endpoint.connection(timeout_s=timeout_s)
            connection.send_packed_command([pack(("SUBSCRIBE", channel))], check_health=False)
            connection.read_response()  # the confirmation: from here on nothing is missed
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if isinstance(error, CLIENT_ERRORS):
                raise translate(error, self._address) from error
            raise
        self._connection = connection

    def next(self, timeout_s: float) -> str | None:
        """Return the next message, or None after the time."""
        try:
            if not self._connection.can_read(timeout=timeout_s):
                return None
            data: bytes = self._connection.read_response()[2]
        except CLIENT_ERRORS as error:
            raise translate(error, self._address) from error
        return data.decode("utf-8", "replace")

    def close(self) -> None:
        """Stop listening."""
        self._connection.disconnect()


_runners: "weakref.WeakSet[SyncRunner]" = weakref.WeakSet()


def _forget_all_after_fork() -> None:
    for runner in list(_runners):
        runner._forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_after_fork)
