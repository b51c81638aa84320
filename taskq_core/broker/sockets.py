"""Write commands and read replies on a connected socket, for blocking code.

redis-py connects and authenticates. Then this class uses its socket, because redis-py makes ten system calls per
command, mostly to set the timeout before and after each wait. This class makes four: check for an unexpected reply,
send, wait, receive. hiredis parses the replies.
"""

import contextlib
import math
import select
import socket
import time
from typing import Any

import hiredis
from redis.exceptions import ResponseError

_RECEIVED_AT_ONCE = 1 << 16
"""Maximum bytes of one receive call."""
_LEAST_S = 0.001
"""Minimum timeout in seconds, so that a reply that arrives at the deadline is still read."""


class SocketStream:
    """Writes commands to a socket and parses the replies. One caller uses it at a time; the socket's creator closes it.

    Args:
        connected: A connected socket. It becomes non-blocking, because `poll` waits for the remaining time.
    """

    __slots__ = ("_arrivals", "_reader", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._reader = hiredis.Reader(protocolError=ConnectionError, replyError=ResponseError)
        self._arrivals = select.poll()
        self._arrivals.register(connected, select.POLLIN)

    @classmethod
    def over(cls, connection: Any) -> "SocketStream | None":
        """Return a stream over the socket of a redis-py connection, or None if that is not possible.

        It is not possible with TLS, which buffers received bytes, with fakeredis, which has no socket, and on Windows,
        which has no `poll`.
        """
        connected = getattr(connection, "_sock", None)
        if type(connected) is not socket.socket or not hasattr(select, "poll"):
            return None
        return cls(connected)

    @property
    def is_clean(self) -> bool:
        """True if the connection seems to be open and has no unexpected reply."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._reader.has_data()
        except OSError:
            return False
        return False  # readable: the server sent an unexpected reply, or closed the connection

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
            self._send_rest(memoryview(packed)[sent:], max(until, time.monotonic() + _LEAST_S))

    def _send_rest(self, rest: memoryview, until: float) -> None:
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        while rest:
            if not room.poll(_milliseconds(until - time.monotonic())):
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
        least_s = _LEAST_S
        reply = reader.gets()
        while reply is False:  # False: the reply is incomplete; RESP2 has no booleans
            if not self._arrivals.poll(_milliseconds(max(least_s, until - time.monotonic()))):
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


def _milliseconds(seconds: float) -> int:
    return max(0, math.ceil(seconds * 1000))
