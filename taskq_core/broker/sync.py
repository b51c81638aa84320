"""The blocking runner: sends operations to Redis and reads the answers.

Threads may share it: each call uses a connection that no other call uses at the same time. After a fork, the child
opens new connections and does not touch those of its parent. A connection is closed after any error.

redis-py opens the connections. Two classes with the same methods then write commands and read replies. `SocketStream`
uses the socket itself, because redis-py makes ten system calls per command, mostly to set the timeout before and after
each wait. `SocketStream` makes four: check for an unexpected reply, send, wait, receive. hiredis parses the replies.
`ClientStream` uses redis-py where that is not possible: with TLS, which buffers received bytes, with fakeredis, which
has no socket, and on Windows, which has no `poll`.
"""

import contextlib
import math
import os
import select
import socket
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import hiredis
from redis.exceptions import ResponseError

from taskq_core.broker.cluster import NodeRequest, Server, cluster_exchange, learn_slots
from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, LEAST_S, Endpoint
from taskq_core.broker.exchange import CLOSING, TIME, Attempts, Exchange, Write, exchange, pack
from taskq_core.broker.failures import (
    CLIENT_ERRORS,
    ClosedClientError,
    ProtocolError,
    translate,
    translate_connecting,
)
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import run_plan
from taskq_core.errors import BrokerError, BrokerUnavailableError

T = TypeVar("T")

_RECEIVED_AT_ONCE = 1 << 16
"""Maximum bytes of one receive call."""
_SENT_AT_ONCE = 1 << 16
"""Bytes that an idle connection accepts without blocking."""


class SyncRunner:
    """Runs operations against one endpoint, blocking the caller.

    Args:
        endpoint: The server.
        timeout_s: Seconds to wait for an answer.
        max_idle: Maximum number of connections that stay open between calls.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S, max_idle: int = 16) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._max_idle = max_idle
        self._idle: deque[_Connection] = deque()
        self._nodes: dict[Server, SyncRunner] = {}
        self._closed = False
        _runners.add(self)

    def run(self, operation: Operation[T], *, patience_s: float | None = None, sent: "Sent | None" = None) -> T:
        """Send one operation and return its answer.

        Args:
            operation: The operation.
            patience_s: Maximum seconds of the whole call. Within this time, a repeatable operation is sent again if
                Redis does not answer. None: one attempt with the runner's own timeouts.
            sent: Result of `begin` with this operation, to wait for its answer.

        Raises:
            BrokerUnavailableError: Redis did not answer.
            BrokerAuthenticationError, BrokerFullError, BrokerReplyError: Redis refused the request.
            BrokerReplicationError: The primary carried out the request, but the required replicas did not confirm it.

        `may_have_happened` of these errors is True if Redis may have carried out one of the attempts.
        """
        deadline = time.monotonic() + (math.inf if patience_s is None else patience_s)
        attempts: Attempts | None = None
        while True:
            try:
                now = time.monotonic()
                until = now + min(self._timeout_s, max(LEAST_S, deadline - now))
                if self._closed and sent is None:
                    raise self._closed_error()
                if self.endpoint.is_cluster:
                    (answer,) = self._ask_cluster(operation, until)
                else:
                    (answer,) = self._attempt((operation,), until, sent)
                if isinstance(answer, BrokerError):
                    raise answer
                return answer  # type: ignore[no-any-return]  # exchange() answers operations of several types
            except BrokerError as error:
                attempts = attempts or Attempts(operation)
                may_repeat = patience_s is not None and not self._closed
                pause_s = attempts.pause_s(error, deadline - time.monotonic(), may_repeat=may_repeat)
            sent = None
            time.sleep(pause_s)

    def begin(self, operation: Operation[Any], after: "Sent | None" = None) -> "Sent | None":
        """Send one operation without waiting for its answer.

        The caller must then call `run` with the returned object, which waits for the answer.

        Args:
            operation: The operation.
            after: Result of an earlier call whose answer was not read yet. Redis carries out both operations in this
                order, because they are sent on the same connection.

        Returns:
            None if the operation was not sent: the server cannot be reached, or is a cluster or in memory. `run` then
            sends it.
        """
        if self.endpoint.is_cluster or self.endpoint.is_memory or self._closed:
            return None
        until = time.monotonic() + self._timeout_s
        try:
            connection = self._take(until, None if after is None else after.connection)
        except BrokerUnavailableError:
            return None
        plan = exchange(self.endpoint, (operation,), connection.left_s)
        connection.until = until
        try:
            write = next(plan)
            if write.commands[0] == TIME:
                write = plan.send(connection.exchange(write))
            connection.begin(write)
        except BrokerError:
            connection.close()
            return None
        connection.begun += 1
        return Sent(connection, plan, write)

    def _attempt(
        self,
        operations: Sequence[Operation[Any]],
        until: float,
        sent: "Sent | None" = None,
        *,
        is_asking: bool = False,
    ) -> list[Any]:
        """Run operations on one connection to this server. `sent`: `begin` has sent them."""
        first = None
        if sent is None:
            connection = self._take(until)
            plan = exchange(self.endpoint, operations, connection.left_s, is_asking=is_asking)
        else:
            connection, plan, first = sent.connection, sent.plan, sent.write
            connection.begun -= 1
        connection.until = until
        try:
            answers = run_plan(plan, connection.exchange, first)
        except BaseException:
            connection.close()
            raise
        if not CLOSING.isdisjoint(map(type, answers)):
            connection.close()
        elif not connection.begun and not connection.is_closed:
            if self._closed or len(self._idle) >= self._max_idle:
                connection.close()
            else:
                self._idle.append(connection)
        return answers

    def _closed_error(self) -> BrokerUnavailableError:
        return ClosedClientError(f"the client of {self.endpoint.address} is closed")

    def _take(self, until: float, preferred: "_Connection | None" = None) -> "_Connection":
        if self.endpoint.follower is not None:
            self.endpoint.follower.keep()
        if preferred is not None and not preferred.is_closed and preferred.takeovers == self.endpoint.takeovers:
            return preferred
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has taken the last idle connection
                break
            # Close a connection that was opened before a failover, was closed by the server, or has an unexpected
            # reply.
            if connection.takeovers == self.endpoint.takeovers and connection.stream.is_clean:
                return connection
            connection.close()
        return _Connection(self.endpoint, min(self._timeout_s, max(LEAST_S, until - time.monotonic())))

    def nodes(self) -> "list[SyncRunner]":
        """Return a new runner for every primary of a cluster, or for the only server. The caller closes the runners."""
        if not self.endpoint.is_cluster:
            return [SyncRunner(self.endpoint, timeout_s=self._timeout_s)]
        until = time.monotonic() + self._timeout_s
        slots, address = self.endpoint.slots, self.endpoint.address
        run_plan(learn_slots(slots, address, lambda: until - time.monotonic()), self._ask_nodes)
        primaries = slots.primaries
        return [SyncRunner(self.endpoint.node(*each), timeout_s=self._timeout_s) for each in primaries]

    def _ask_cluster(self, operation: Operation[Any], until: float) -> list[Any]:
        slots, address = self.endpoint.slots, self.endpoint.address
        plan = cluster_exchange(slots, address, (operation,), lambda: until - time.monotonic())
        return run_plan(plan, self._ask_nodes)

    def _ask_nodes(self, requests: Sequence[NodeRequest]) -> list[list[Any] | BrokerError]:
        outcomes: list[list[Any] | BrokerError] = []
        for request in requests:
            until = time.monotonic() + request.left_s
            try:
                node = self._node(request.server)
                outcomes.append(node._attempt(request.operations, until, is_asking=request.is_asking))
            except BrokerError as error:
                outcomes.append(error)
        return outcomes

    def _node(self, server: Server) -> "SyncRunner":
        node = self._nodes.get(server)
        if node is None:
            new = SyncRunner(self.endpoint.node(*server), timeout_s=self._timeout_s, max_idle=self._max_idle)
            node = self._nodes.setdefault(server, new)
        return node

    def subscribe(self, channel: str) -> "SyncSubscription":
        """Listen on a channel, on a separate connection."""
        return SyncSubscription(self.endpoint, channel, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Close all connections. The runner cannot be used afterwards."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        for node in self._nodes.values():
            node.close()

    def _forget_after_fork(self) -> None:
        for connection in self._idle:
            connection.forget()
        self._idle = deque()


class _Connection:
    """A connection that one caller uses at a time. It raises only taskq's own errors.

    redis-py opens the connection, and a stream uses it afterwards.

    Attributes:
        stream: Writes commands and reads replies.
        takeovers: Number of failovers of the endpoint when the connection was opened.
        until: Deadline of the current caller, by the monotonic clock.
        begun: Number of operations that `SyncRunner.begin` has sent, and that no call of `run` has taken over yet.
        is_closed: True after `close`.
    """

    __slots__ = ("_endpoint", "_raw", "_unread", "begun", "is_closed", "stream", "takeovers", "until")

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._unread: deque[Write] = deque()  # writes whose replies were not read yet, in order
        self.begun = 0
        self.is_closed = False
        self.until = 0.0
        try:
            # These timeouts are for the handshake. Later reads and long sends set their own timeouts.
            connect_timeout_s = min(timeout_s, CONNECT_TIMEOUT_S)
            self._raw = endpoint.connection(timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
            self.takeovers = endpoint.takeovers
            self._raw.connect()
        except CLIENT_ERRORS as error:
            raise translate_connecting(error, endpoint.address) from error
        self.stream = stream_over(self._raw)

    def left_s(self) -> float:
        """Return the seconds until the deadline of the caller."""
        return self.until - time.monotonic()

    def exchange(self, write: Write) -> list[Any]:
        """Send commands unless `begin` has sent them, and return their replies. Error replies are exceptions."""
        unread, until = self._unread, self.until + write.block_s
        try:
            if write.replies is None and self.is_closed:  # redis-py would open the connection again
                raise ConnectionError("the connection is closed")
            if not write.is_sent:
                self._send(write)
                if not unread:
                    return [self.stream.read(until) for _ in write.commands]
                unread.append(write)
            while write.replies is None:
                first = unread.popleft()
                first.replies = [self.stream.read(until) for _ in first.commands]
        except CLIENT_ERRORS as error:
            raise translate(error, self._endpoint.address) from error
        return write.replies

    def begin(self, write: Write) -> None:
        """Send commands whose replies `exchange` reads later, also on behalf of a later write."""
        try:
            self._send(write)
        except CLIENT_ERRORS as error:
            raise translate(error, self._endpoint.address) from error
        write.is_sent = True
        self._unread.append(write)

    def _send(self, write: Write) -> None:
        self.stream.send(b"".join(map(pack, write.commands)), self.until)

    def close(self) -> None:
        """Close the connection. Replies that were not read are lost."""
        self.is_closed = True
        self._raw.disconnect()

    def forget(self) -> None:
        """Drop the connection in a forked child without closing the parent's socket."""
        self._raw._sock = None


class Sent(NamedTuple):
    """An operation that `SyncRunner.begin` has sent.

    Attributes:
        connection: The connection.
        plan: The unfinished exchange.
        write: The write of the exchange whose replies come next.
    """

    connection: _Connection
    plan: Exchange
    write: Write


def stream_over(connection: Any) -> "SocketStream | ClientStream":
    """Return the stream that uses an open connection of redis-py."""
    connected = getattr(connection, "_sock", None)
    if type(connected) is socket.socket and hasattr(select, "poll"):
        return SocketStream(connected)
    return ClientStream(connection)


class SocketStream:
    """Writes commands to a socket and parses the replies. One caller uses it at a time; the socket's creator closes it.

    Args:
        connected: A connected socket. It becomes non-blocking, because `poll` waits for the remaining time.
    """

    __slots__ = ("_arrivals", "_reader", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._reader = hiredis.Reader(protocolError=ProtocolError, replyError=ResponseError)
        self._arrivals = select.poll()
        self._arrivals.register(connected, select.POLLIN)

    @property
    def is_clean(self) -> bool:
        """True if the connection seems to be open and has no unexpected reply."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._reader.has_data()
        except OSError:
            return False
        return False  # bytes are ready: an unexpected reply, or the server closed the connection

    def send(self, packed: bytes, until: float) -> None:
        """Send commands.

        Args:
            packed: Bytes of the commands.
            until: Deadline by the monotonic clock; the call waits at least 1 ms.

        Raises:
            OSError: The connection ended.
            TimeoutError: The bytes were not sent in time.
        """
        try:
            sent = self._socket.send(packed)
        except BlockingIOError:
            sent = 0
        if sent < len(packed):
            self._send_rest(memoryview(packed)[sent:], max(until, time.monotonic() + LEAST_S))

    def _send_rest(self, rest: memoryview, until: float) -> None:
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        while rest:
            if not room.poll(max(0, math.ceil((until - time.monotonic()) * 1000))):
                raise TimeoutError("the request was not sent in time")
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._socket.send(rest) :]

    def read(self, until: float) -> Any:
        """Wait for one reply and return it; an error reply is returned as an exception.

        Args:
            until: Deadline by the monotonic clock; the call waits at least 1 ms.

        Raises:
            OSError: The connection ended, or sent invalid bytes.
            TimeoutError: The reply did not arrive in time. The connection must not be used afterwards.
        """
        reader = self._reader
        least_s = LEAST_S
        reply = reader.gets()
        while reply is False:  # `False` means an incomplete reply: RESP2 has no booleans
            if not self._arrivals.poll(math.ceil(max(least_s, until - time.monotonic()) * 1000)):
                raise TimeoutError("no answer in time")
            least_s = 0.0
            try:
                data = self._socket.recv(_RECEIVED_AT_ONCE)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError("the server closed the connection")
            reader.feed(data)
            reply = reader.gets()
        return reply


class ClientStream:
    """Writes commands and reads replies with an open connection of redis-py. Like `SocketStream`."""

    __slots__ = ("_client",)

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def is_clean(self) -> bool:
        """True if the connection seems to be open and has no unexpected reply."""
        try:
            return self._client.is_connected and not self._client.can_read(timeout=0)
        except CLIENT_ERRORS:
            return False

    def send(self, packed: bytes, until: float) -> None:
        """Send commands. Like `SocketStream.send`."""
        if len(packed) > _SENT_AT_ONCE and isinstance(self._client._sock, socket.socket):
            self._client._sock.settimeout(max(LEAST_S, until - time.monotonic()))
        self._client.send_packed_command([packed], check_health=False)

    def read(self, until: float) -> Any:
        """Wait for one reply and return it. Like `SocketStream.read`."""
        try:
            return self._client.read_response(timeout=max(LEAST_S, until - time.monotonic()))
        except ResponseError as error:
            return error


class SyncSubscription:
    """A subscription to one Redis channel, which returns the messages that are published on it."""

    def __init__(self, endpoint: Endpoint, channel: str, *, timeout_s: float) -> None:
        self._address = endpoint.address
        connection = None
        try:
            connection = endpoint.connection(timeout_s=timeout_s)
            connection.send_packed_command([pack(("SUBSCRIBE", channel))], check_health=False)
            connection.read_response()  # Redis confirms the subscription, so no later message is missed
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if isinstance(error, CLIENT_ERRORS):
                raise translate(error, self._address) from error
            raise
        self._connection = connection

    def next(self, timeout_s: float) -> str | None:
        """Return the next message, or None after `timeout_s`."""
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
