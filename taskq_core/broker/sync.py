"""The blocking runner: sends operations and reads their answers.

Safe to share between threads: each call has a connection of its own for its time. After a fork the child opens new
connections and leaves its parent's alone. A connection on which anything went wrong is closed, never used again.
"""

import os
import random
import socket
import threading
import time
import weakref
from collections import deque
from typing import Any, Generic, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Endpoint
from taskq_core.broker.failures import CLIENT_ERRORS, as_bytes, is_missing_script, pack, translate, translate_connecting
from taskq_core.broker.operations import Operation
from taskq_core.errors import BrokerUnavailableError

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
        self._cluster: Any = None
        self._cluster_lock = threading.Lock()
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
            BrokerUnavailableError: No answer; `may_have_happened` says whether it can have been carried out.
            BrokerFullError, BrokerAuthenticationError, BrokerReplyError: The store refused; nothing happened.
        """
        return self._finish(operation, None, patience_s)

    def begin(self, operation: Operation[T]) -> "Pending[T]":
        """Send one operation without waiting for its answer, which `Pending.finish` reads."""
        if self.endpoint.is_cluster:
            return Pending(self, operation, None)
        self._check_open()
        try:
            connection = self._take(self._timeout_s)
        except BrokerUnavailableError:
            return Pending(self, operation, None)  # finish() tries again, for as long as its caller has patience
        try:
            self._send(connection, pack(operation.command()), self._timeout_s)
        except CLIENT_ERRORS:
            connection.disconnect()
            return Pending(self, operation, None)
        return Pending(self, operation, connection)

    def _finish(self, operation: Operation[T], sent_on: Any, patience_s: float | None) -> T:
        deadline = None if patience_s is None else time.monotonic() + patience_s
        attempt = 0
        may_have_happened = sent_on is not None
        while True:
            left = self._timeout_s if deadline is None else max(0.001, deadline - time.monotonic())
            try:
                return self._run_once(operation, min(self._timeout_s, left), sent_on)
            except BrokerUnavailableError as error:
                may_have_happened = may_have_happened or error.may_have_happened
                error.may_have_happened = may_have_happened
                pause = random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 1.0)  # noqa: S311 - jitter, no secret
                is_over = deadline is None or time.monotonic() + pause >= deadline
                if not operation.repeatable or is_over or self._closed:
                    raise
                attempt += 1
                sent_on = None
                time.sleep(pause)

    def _run_once(self, operation: Operation[T], timeout_s: float, sent_on: Any) -> T:
        if sent_on is None:
            self._check_open()
        if self.endpoint.is_cluster:
            return operation.read(self._run_on_cluster(operation))
        until = time.monotonic() + timeout_s  # connecting, sending and waiting share the time
        connection = sent_on or self._take(timeout_s)
        try:
            if sent_on is None:
                self._send(connection, pack(operation.command()), timeout_s)
            reply = self._read(connection, until + operation.block_s)
            if is_missing_script(reply):
                self._send(connection, pack(operation.command_with_text()), timeout_s)
                reply = self._read(connection, until + operation.block_s)
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
        self._give_back(connection)
        return operation.read(reply)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailableError.unchanged(f"the client of {self.endpoint.address} is closed")

    def _send(self, connection: Any, packed: bytes, timeout_s: float) -> None:
        if len(packed) > _SENT_AT_ONCE and isinstance(connection._sock, socket.socket):
            connection._sock.settimeout(timeout_s)
        connection.send_packed_command([packed], check_health=False)

    def _read(self, connection: Any, until: float) -> Any:
        try:
            return connection.read_response(timeout=max(0.001, until - time.monotonic()))
        except ResponseError as error:
            return error

    def _take(self, timeout_s: float) -> Any:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect(timeout_s)
            # An idle connection with something to read was closed by the server, or holds a reply nobody waited for.
            try:
                if connection.is_connected and not connection.can_read(timeout=0):
                    return connection
            except CLIENT_ERRORS:
                pass
            connection.disconnect()

    def _connect(self, timeout_s: float) -> Any:
        # The handshake waits no longer than the attempt. Later reads bring their own time, and so do long sends.
        try:
            connection = self.endpoint.connection(
                timeout_s=min(timeout_s, self._timeout_s), connect_timeout_s=min(timeout_s, CONNECT_TIMEOUT_S)
            )
            connection.connect()
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
        primaries = self._cluster_client().get_primaries()
        return [SyncRunner(self.endpoint.node(each.host, each.port), timeout_s=self._timeout_s) for each in primaries]

    def _cluster_client(self) -> Any:
        try:
            with self._cluster_lock:
                if self._cluster is None:
                    self._cluster = self.endpoint.cluster(timeout_s=self._timeout_s)
                return self._cluster
        except CLIENT_ERRORS as error:
            raise translate_connecting(error, self.endpoint.address) from error

    def _run_on_cluster(self, operation: Operation[Any]) -> Any:
        cluster = self._cluster_client()
        try:
            try:
                return cluster.execute_command(*as_bytes(operation.command()))
            except NoScriptError:
                return cluster.execute_command(*as_bytes(operation.command_with_text()))
        except CLIENT_ERRORS as error:
            raise translate(error, self.endpoint.address) from error

    def subscribe(self, channel: str) -> "SyncSubscription":
        """Listen on a channel, on a connection of its own."""
        return SyncSubscription(self.endpoint, channel, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Close all connections. The runner cannot be used afterwards."""
        self._closed = True
        while self._idle:
            self._idle.pop().disconnect()
        if self._cluster is not None:
            self._cluster.close()

    def _forget_after_fork(self) -> None:
        # The parent's sockets are its own: they are let go without a word on the wire.
        for connection in self._idle:
            connection._sock = None
        self._idle = deque()
        self._cluster = None
        self._cluster_lock = threading.Lock()


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
