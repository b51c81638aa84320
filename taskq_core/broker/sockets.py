"""Encode commands. For blocking code, also write commands and read replies on a connection opened by redis-py.

Two classes with the same methods write commands and read replies. `SocketStream` uses the socket itself, because
redis-py makes ten system calls per command, mostly to set the timeout before and after each wait. `SocketStream` makes
four: check for an unexpected reply, send, wait, receive. hiredis parses the replies. `ClientStream` uses redis-py where
that is not possible: with TLS, which buffers received bytes, with fakeredis, which has no socket, and on Windows, which
has no `poll`.
"""

import contextlib
import math
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from taskq_core.broker.connection import LEAST_S
from taskq_core.broker.failures import CLIENT_ERRORS, ProtocolError
from taskq_core.broker.operations.operation import Argument

_RECEIVED_AT_ONCE = 1 << 16
"""Maximum bytes of one receive call."""
_SENT_AT_ONCE = 1 << 16
"""Bytes that an idle connection accepts without blocking."""


def pack(command: Sequence[Argument]) -> bytes:
    """Return the bytes of a command in Redis's protocol. Ids from Redis may contain bytes that are not valid UTF-8."""
    words: Any = tuple(command)  # `Any`, because hiredis accepts any tuple, but its type hints do not
    try:
        packed: bytes = hiredis.pack_command(words)
    except UnicodeEncodeError:
        words = [word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word for word in command[1:]]
        packed = hiredis.pack_command((command[0], *words))
    return packed


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
