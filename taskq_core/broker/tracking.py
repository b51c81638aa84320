"""Receive messages from Redis about changed keys, instead of polling the keys.

Redis watches a key that was read on a `TrackingPipeline` until it next changes. Then Redis sends one message, and the
key must be read again to receive the next change. Redis calls this tracking (`CLIENT TRACKING`).
No change between the read and the message is lost, because both use one connection. If that connection breaks, the
owner of the pipeline is notified as if the key had changed.

Without tracking on the server or rights to it, the pipeline works without messages. Then `is_tracking` is False, and
its owner has to poll.
"""

from typing import Any

from taskq_core.broker.connection import ANSWER_TIMEOUT_S, Endpoint
from taskq_core.broker.exchange import pack
from taskq_core.broker.failures import CLIENT_ERRORS, translate_connecting
from taskq_core.broker.pipelines import Pipeline
from taskq_core.broker.stream import Changed, ReplyStream

_TRIES_MOST = 2
"""Number of connections that may break while they request tracking. Afterwards, tracking is not requested any more."""
_BEGIN = pack(("HELLO", "3")) + pack(("CLIENT", "TRACKING", "ON"))


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
        return ReplyStream(transport, self._changed if self._tries_left else None)

    async def _connect(self, timeout_s: float) -> None:
        self.is_tracking = False
        await super()._connect(timeout_s)
        if self._stream is None or not self._tries_left:
            return
        try:
            replies = await self._stream.exchange(_BEGIN, 2, timeout_s)
        except CLIENT_ERRORS as error:  # for example, a proxy refuses CLIENT TRACKING
            self._tries_left -= 1
            await self.close()
            raise translate_connecting(error, self._endpoint.address) from error
        except BaseException:
            await self.close()
            raise
        self.is_tracking = not any(isinstance(reply, Exception) for reply in replies)
        if self.is_tracking:
            self._tries_left = _TRIES_MOST
