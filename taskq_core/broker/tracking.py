"""Receive changes of keys instead of polling.

Redis watches a key that was read on a `TrackingPipeline` until it next changes. Then Redis sends one message, and the
key must be read again to receive the next change. Redis calls this tracking (`CLIENT TRACKING`).
No change between the read and the message is lost, because both use one connection. If that connection breaks, the
owner of the pipeline is notified as if the key had changed.

Without tracking on the server or rights to it, the pipeline works without messages. Then `is_tracking` is False, and
its owner has to poll.
"""

from collections.abc import Callable
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from taskq_core.broker.connection import ANSWER_TIMEOUT_S, Endpoint
from taskq_core.broker.failures import CLIENT_ERRORS, pack, translate_connecting
from taskq_core.broker.pipelines import Pipeline
from taskq_core.broker.stream import ReplyStream

Changed = Callable[[list[str] | None], object]
_MORE = object()
"""Result of the parser while a reply is incomplete. It cannot be `False`, which is a value in RESP3."""
_TRIES_MOST = 2
"""Number of connections that may end when tracking is requested. Afterwards it is not requested any more."""
_BEGIN = pack(("HELLO", "3")) + pack(("CLIENT", "TRACKING", "ON"))


class TrackingStream(ReplyStream):
    """A connection that also receives messages about changed keys.

    Args:
        transport: A connected transport.
        changed: Called with the names of keys that were read and have changed, or with None if all may have changed,
            because the connection has ended or the database was emptied.
    """

    def __init__(self, transport: Any, changed: Changed) -> None:
        super().__init__(transport)
        self._reader = hiredis.Reader(protocolError=ConnectionError, replyError=ResponseError, notEnoughData=_MORE)
        self._changed = changed

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, report changed keys, and wake the caller once all its replies are complete."""
        names: list[str] = []
        are_all = False
        replies: list[Any] = []
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                if not isinstance(reply, hiredis.PushNotification):
                    replies.append(reply)
                elif reply[0] == b"invalidate":
                    are_all = are_all or reply[1] is None
                    names += [name.decode(errors="replace") for name in reply[1] or ()]
        except ConnectionError as error:
            self._fail(error)
            self._transport.abort()
            return
        if names or are_all:
            self._changed(None if are_all else names)
        if not replies:
            return
        waiter = self._waiter
        if waiter is None or len(self._replies) + len(replies) > self._expected:
            self._transport.abort()
            self._fail(ConnectionError("the server sent an unexpected reply"))
            return
        self._replies += replies
        if len(self._replies) == self._expected and not waiter.done():
            waiter.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the current exchange, and report that all keys may have changed."""
        super().connection_lost(exc)
        self._changed(None)


class TrackingPipeline(Pipeline):
    """A `Pipeline` that reports changes of the keys that were read on its connection.

    Args:
        endpoint: The server; not a cluster.
        changed: Called on the event loop with the names of changed keys, None for all keys.
        timeout_s: Seconds to wait for the answers of one exchange.
    """

    def __init__(self, endpoint: Endpoint, *, changed: Changed, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        super().__init__(endpoint, timeout_s=timeout_s)
        self._changed = changed
        self._tries_left = _TRIES_MOST

    def _stream_on(self, transport: Any) -> ReplyStream:
        return TrackingStream(transport, self._changed) if self._tries_left else super()._stream_on(transport)

    async def _connect_if_needed(self, timeout_s: float) -> None:
        if self.is_connected:
            return
        self.is_tracking = False
        await super()._connect_if_needed(timeout_s)
        if self._stream is None or not self._tries_left:
            return
        try:
            replies = await self._stream.exchange(_BEGIN, 2, timeout_s)
        except CLIENT_ERRORS as error:  # a proxy may close the connection on an unknown command
            self._tries_left -= 1
            await self.close()
            raise translate_connecting(error, self._endpoint.address) from error
        except BaseException:
            await self.close()
            raise
        self.is_tracking = not any(isinstance(reply, Exception) for reply in replies)
        if self.is_tracking:
            self._tries_left = _TRIES_MOST
