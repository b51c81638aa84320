"""Server-Sent Events that report a state whenever it changes, for the routes of tasks and the pages of the dashboard.

The id of an event identifies the reported state. A client that reconnects with this id receives only changes. A stream
ends after some time and the client reconnects, so that a stopping server does not have to wait for it.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import StreamingResponse

logger = logging.getLogger("taskq.fastapi")

RECONNECT_MS = 2_000
"""Milliseconds after which the client of an ended stream reconnects."""
FULL_MS = 10_000
"""Milliseconds after which a client reconnects if too many streams are open."""
QUIET_S = 15.0
"""Seconds without an event after which a comment is sent, so that no proxy closes the connection."""


@dataclass(frozen=True, slots=True)
class Event:
    """A state, or the reason for the end of a stream.

    Attributes:
        name: Name of the event.
        data: The state in one line.
        is_last: Whether the stream ends after this event.
    """

    name: str
    data: str
    is_last: bool = False

    @property
    def tag(self) -> str:
        """The id of the event: a hash of the state."""
        return hashlib.blake2b(self.data.encode("utf-8", "replace"), digest_size=9).hexdigest()


class StateUnavailableError(Exception):
    """The state that a stream reports cannot be read at the moment, for example because Redis does not answer.

    Args:
        data: The data of the event `trouble`.
    """

    def __init__(self, data: str) -> None:
        super().__init__(data)
        self.data = data


class Streams:
    """Sends event streams, and bounds how many are open in this process.

    Args:
        most: Maximum number of open streams.
        life_s: Seconds after which a stream ends.
    """

    def __init__(self, *, most: int, life_s: float) -> None:
        self._most = most
        self._life_s = life_s
        self._count = 0

    @property
    def has_room(self) -> bool:
        """Whether another stream may be opened."""
        return self._count < self._most

    def response(self, events: AsyncIterator[str]) -> StreamingResponse:
        """Return the response that sends events."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def events(
        self,
        read: Callable[[], Awaitable[Event]],
        wait: Callable[[bool, float], Awaitable[bool]],
        *,
        last_event_id: str | None,
    ) -> AsyncIterator[str]:
        """Yield an event for each state that the client has not received.

        Args:
            read: Returns the current state, or raises `StateUnavailableError`.
            wait: Waits until the next read, and returns whether the client is still connected. Its arguments are
                whether the state has changed, and the seconds until the stream ends.
            last_event_id: Id of the last event that the client has received.
        """
        if not self.has_room:  # others have opened since the request was checked
            yield f"retry: {FULL_MS}\n\n"
            return
        self._count += 1
        try:
            yield f"retry: {RECONNECT_MS}\n\n"
            loop = asyncio.get_running_loop()
            ends_at, quiet_until = loop.time() + self._life_s, loop.time() + QUIET_S
            is_away, is_connected = False, True
            while is_connected and loop.time() < ends_at:
                text, is_changed, is_last = "", False, False
                try:
                    event = await read()
                except StateUnavailableError as error:
                    if not is_away:
                        logger.warning("an event stream is interrupted: %s", error.__cause__)
                    text = "" if is_away else f"event: trouble\ndata: {error.data}\n\n"
                    is_away = True
                else:
                    is_changed, is_last = event.tag != last_event_id or is_away, event.is_last
                    if is_changed:
                        text = f"event: {event.name}\nid: {event.tag}\ndata: {event.data}\n\n"
                    last_event_id, is_away = event.tag, False
                if not text and not is_last and loop.time() >= quiet_until:
                    text = ": keep-alive\n\n"
                if text:
                    yield text
                    quiet_until = loop.time() + QUIET_S
                if is_last:
                    return
                is_connected = await wait(is_changed, max(0.0, ends_at - loop.time()))
        finally:
            self._count -= 1
