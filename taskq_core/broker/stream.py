"""Write commands and read replies on a connected transport, for asyncio.

redis-py connects and authenticates. Then `ReplyStream` uses the transport of the connection, because redis-py takes
tens of microseconds to read a reply, and `ReplyStream` takes two. hiredis parses the replies, and one future waits for
all replies of one write.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from taskq_core.broker.failures import ProtocolError

Changed = Callable[[list[str] | None], object]
"""Called with the names of keys that were read on a connection and have changed, or with None if all may have changed,
because the connection has ended or the database was emptied. See `taskq_core.broker.tracking`."""
_INCOMPLETE = object()
"""Value that the parser returns while a reply is incomplete. hiredis's default, `False`, is a valid reply in RESP3."""
_yield_processor: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class ReplyStream(asyncio.Protocol):
    """Writes commands to a transport and parses the replies. One caller uses it at a time.

    Args:
        transport: A connected transport. The `ReplyStream` becomes the protocol of this transport.
        changed: Receives the messages about changed keys.

    Attributes:
        transport: The transport. It is closing once the connection has ended.
    """

    def __init__(self, transport: asyncio.Transport, changed: Changed | None = None) -> None:
        self.transport = transport
        self._changed = changed
        self._reader = hiredis.Reader(protocolError=ProtocolError, replyError=ResponseError, notEnoughData=_INCOMPLETE)
        self._replies: list[Any] = []
        self._expected = 0
        self._waiter: asyncio.Future[list[Any]] | None = None
        self._timer: asyncio.TimerHandle | None = None  # fails the current exchange when its time is over
        self._loop = asyncio.get_running_loop()
        transport.set_protocol(self)

    def exchange(
        self, packed: bytes, count: int, timeout_s: float, *, spin_s: float = 0.0
    ) -> "asyncio.Future[list[Any]]":
        """Write commands and return a future of their `count` replies; an error reply is an exception in the list.

        For the first `spin_s` seconds, the event loop polls the socket without sleeping, which reduces latency. Other
        callbacks still run, and each iteration yields the processor to other processes.

        A caller that is cancelled must call `abort`, so that a late reply cannot reach another caller.

        Raises:
            ConnectionError: The connection ended. Also raised by the future.
            TimeoutError: Raised by the future if the replies did not arrive in time. The connection is then closed.
        """
        if self.transport.is_closing():
            raise ConnectionError("the connection is closed")
        waiter = self._waiter = self._loop.create_future()
        self._expected = count
        self._replies = []
        self._timer = self._loop.call_later(timeout_s, self._fail, TimeoutError("no answer in time"))
        self.transport.write(packed)
        if spin_s > 0:
            self._loop.call_soon(self._spin, waiter, time.monotonic() + spin_s)
        return waiter

    def _spin(self, waiter: "asyncio.Future[list[Any]]", until: float) -> None:
        if not waiter.done() and time.monotonic() < until:
            _yield_processor()
            self._loop.call_soon(self._spin, waiter, until)

    def _fail(self, error: Exception) -> None:
        """Close the connection and fail the current exchange."""
        self.abort()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, report changed keys, and wake the caller once all its replies are complete."""
        reader, replies = self._reader, self._replies
        messages: list[Any] = []
        try:
            reader.feed(data)
            # Without tracking, read only the expected replies. Then `has_data` shows whether the server sent more
            # bytes.
            while self._changed is not None or len(replies) < self._expected:
                reply = reader.gets()
                if reply is _INCOMPLETE:
                    break
                (messages if isinstance(reply, hiredis.PushNotification) else replies).append(reply)
        except ConnectionError as error:
            self._fail(error)
            return
        if messages:
            self._report(messages)
        missing = self._expected - len(replies)
        if missing < 0 or (not missing and self._changed is None and reader.has_data()):
            # The replies no longer match the requests, so the connection is useless.
            self._fail(ConnectionError("the server sent an unexpected reply"))
        elif not missing and self._waiter is not None and self._timer is not None and not self._waiter.done():
            waiter, self._waiter = self._waiter, None
            self._replies, self._expected = [], 0
            self._timer.cancel()
            waiter.set_result(replies)

    def _report(self, messages: list[Any]) -> None:
        changes = [message[1] for message in messages if message[0] == b"invalidate"]
        if changes and self._changed is not None:
            are_all = None in changes
            self._changed(None if are_all else [name.decode(errors="replace") for names in changes for name in names])

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the current exchange, and report that all keys may have changed."""
        self._fail(exc or ConnectionError("the server closed the connection"))
        if self._changed is not None:
            self._changed(None)

    def abort(self) -> None:
        """Close the connection at once, which fails the current exchange."""
        if self._timer is not None:
            self._timer.cancel()
        self.transport.abort()
