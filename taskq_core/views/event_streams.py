"""Stream changes of a state, or the values that a task emits, as Server-Sent Events, for FastAPI and Django.

The id of an event identifies the reported state, or the position of the value. A client that reconnects with this id
receives only later events. A stream ends after some time and the client reconnects, so that a stopping server does not
have to wait for it.
"""

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from taskq_core.errors import BrokerError
from taskq_core.handles.durable import POSITION, StreamPosition
from taskq_core.handles.subscription import LONGEST_PAUSE_S, TaskFollower

logger = logging.getLogger("taskq.streams")

HEADERS: Mapping[str, str] = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of the HTTP response that is an event stream."""
LAST_ID = "end"
"""Id of the event that ends a stream of a task's values."""

RECONNECT_MS = 2_000
"""Milliseconds after which the client of an ended stream reconnects."""
FULL_MS = 10_000
"""Milliseconds after which a client reconnects if too many streams are open."""
QUIET_S = 15.0
"""Seconds without an event after which a comment is sent, so that no proxy closes the connection."""


@dataclass(frozen=True, slots=True)
class Event:
    """One Server-Sent Event: a state, a value, or the reason for the end of the stream.

    Attributes:
        name: Name of the event.
        data: The state or value in one line.
        is_last: Whether the stream ends after this event.
        id: Id of the event, "" to use a hash of the data.
    """

    name: str
    data: str
    is_last: bool = False
    id: str = ""

    @property
    def tag(self) -> str:
        """Id that the client receives."""
        return self.id or hashlib.blake2b(self.data.encode("utf-8", "replace"), digest_size=9).hexdigest()


class StateUnavailableError(Exception):
    """The state that a stream reports cannot be read at the moment, for example because Redis does not answer.

    Args:
        data: The data of the event `trouble`.
    """

    def __init__(self, data: str) -> None:
        super().__init__(data)
        self.data = data


class Streams:
    """Sends event streams, and limits the number of open streams in this process.

    Args:
        most: Maximum number of open streams.
        life_s: Seconds after which a stream ends.
        most_each: Maximum number of open streams of one viewer; None for no separate limit.
    """

    def __init__(self, *, most: int, life_s: float, most_each: int | None = None) -> None:
        self._most = most
        self._most_each = most if most_each is None else most_each
        self._life_s = life_s
        self._open: Counter[str] = Counter()

    def has_room(self, viewer: str = "") -> bool:
        """Return whether this viewer may open another stream."""
        return self._open.total() < self._most and self._open[viewer] < self._most_each

    async def events(
        self,
        read: Callable[[], Awaitable[Sequence[Event]]],
        wait: Callable[[bool, float], Awaitable[bool]],
        *,
        last_event_id: str | None,
        viewer: str = "",
    ) -> AsyncIterator[str]:
        """Yield the events that the client has not received.

        Args:
            read: Returns the current state or the next values, or raises `StateUnavailableError`.
            wait: Waits until the next read, and returns whether the client is still connected. It takes two arguments:
                whether there was an event, and the seconds until the stream ends.
            last_event_id: Id of the last event that the client has received.
            viewer: Name of the person for whose limit the stream counts.
        """
        if not self.has_room(viewer):  # other streams were opened after the check of the request
            yield f"retry: {FULL_MS}\n\n"
            return
        self._open[viewer] += 1
        try:
            yield f"retry: {RECONNECT_MS}\n\n"
            loop = asyncio.get_running_loop()
            ends_at, quiet_until = loop.time() + self._life_s, loop.time() + QUIET_S
            is_away, is_connected = False, True
            while is_connected and loop.time() < ends_at:
                text, is_changed, is_last = "", False, False
                try:
                    events = await read()
                except StateUnavailableError as error:
                    if not is_away:
                        logger.warning("event stream interrupted, because its data cannot be read: %s", error.__cause__)
                    text = "" if is_away else f"event: trouble\ndata: {error.data}\n\n"
                    is_away = True
                else:
                    for event in events:
                        if event.tag != last_event_id or is_away:
                            text += f"event: {event.name}\nid: {event.tag}\ndata: {event.data}\n\n"
                        last_event_id, is_last = event.tag, event.is_last
                    is_changed, is_away = text != "", False
                if not text and not is_last and loop.time() >= quiet_until:
                    text = ": keep-alive\n\n"
                if text:
                    yield text
                    quiet_until = loop.time() + QUIET_S
                if is_last:
                    return
                is_connected = await wait(is_changed, max(0.0, ends_at - loop.time()))
        finally:
            self._open[viewer] -= 1
            if not self._open[viewer]:
                del self._open[viewer]


async def emitted_events(streams: Streams, follower: TaskFollower, last_event_id: str | None) -> AsyncIterator[str]:
    """Yield an event `item` for each value that a task emits, and the event `end` when the task has ended.

    If values were deleted before the client received them, an event `gap` with their number comes before the next item.

    Args:
        streams: Limits the number of open streams.
        follower: Reads the task.
        last_event_id: Id of the last event that the client has received.
    """
    position = StreamPosition(last_event_id if last_event_id and POSITION.fullmatch(last_event_id) else "")

    async def read() -> list[Event]:
        try:
            page = await follower.read_stream(position.after)
        except BrokerError as error:
            position.pause_s = LONGEST_PAUSE_S
            raise StateUnavailableError(json.dumps({"detail": "the queue does not answer"})) from error
        position.move(page)
        events = []
        for each in page.values:
            if each.gap:
                time, _, number = each.id.partition("-")
                events.append(Event("gap", json.dumps({"values": each.gap}), id=f"{time}-{int(number) - 1}"))
            facts = json.dumps({"attempt": each.attempt, "step": each.step})
            events.append(Event("item", f'{facts[:-1]}, "value": {each.data.decode()}}}', id=each.id))
        if position.is_last:
            events.append(Event("end", json.dumps({"state": page.state or "gone"}), is_last=True, id=LAST_ID))
        return events

    async def wait(is_changed: bool, left_s: float) -> bool:
        if position.pause_s:
            await follower.wait(min(position.pause_s, left_s))
        return True

    async with follower:
        async for text in streams.events(read, wait, last_event_id=last_event_id):
            yield text
