"""Pages that keep themselves up to date.

The same address answers an `EventSource` with what the page shows, again and again, and all who look share what is
read.

Events: `page` with the new contents of the page, `trouble` while Redis does not answer, `gone` when what was shown is
no longer there. The id of an event stands for what it shows, so who comes back with it hears only of what is new. A
stream ends after a while, so that a server that stops need not wait for it and a login that has ended is noticed; the
browser comes back by itself.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from taskq_core.errors import BrokerError, TaskQError

logger = logging.getLogger("taskq.fastapi")

T = TypeVar("T")

RECONNECT_MS = 2_000
STREAM_S = 30.0
QUIET_S = 15.0
"""Seconds without an event after which a comment is sent, so that nobody on the way takes the stream for dead."""
STREAMS_MAX = 200
KEPT_MAX = 500
"""Most results that are kept for others who look."""
AWAY = "Redis does not answer. What is shown may be out of date; it is tried again."


@dataclass(frozen=True, slots=True)
class _Read:
    begun: float
    task: "asyncio.Task[Any]"
    loop: asyncio.AbstractEventLoop


class SharedReads:
    """What was read for one is shown to others who look at about the same time, a failure too."""

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]], *, age_s: float) -> T:
        """Return what `read` returns, or returned for another one not longer ago than `age_s` seconds."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        found = self._reads.get(key)
        if found is None or found.loop is not loop or now - found.begun >= age_s:
            self._drop_old(now)
            found = self._reads[key] = _Read(now, loop.create_task(_awaited(read)), loop)
            found.task.add_done_callback(_noticed)
        result: T = await asyncio.shield(found.task)
        return result

    def clear(self) -> None:
        """Forget everything: something was changed."""
        self._reads.clear()

    def _drop_old(self, now: float) -> None:
        if len(self._reads) >= KEPT_MAX:
            for key in sorted(self._reads, key=lambda each: self._reads[each].begun)[: KEPT_MAX // 2]:
                del self._reads[key]


async def _awaited(read: Callable[[], Awaitable[T]]) -> T:
    return await read()


def _noticed(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # whoever waited for it may have left


class Streams:
    """The streams of one dashboard."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def has_room(self) -> bool:
        """Whether another stream may begin."""
        return self._count < STREAMS_MAX

    async def events(
        self,
        render: Callable[[], Awaitable[str]],
        *,
        interval_s: float,
        seen: str | None,
        has_left: Callable[[], Awaitable[bool]],
    ) -> AsyncIterator[str]:
        """Yield the events of a page.

        Args:
            render: Returns the contents of the page as they are now.
            interval_s: Seconds between two looks.
            seen: Id of the last event that the browser has.
            has_left: Says whether nobody listens any more.
        """
        self._count += 1
        try:
            yield f"retry: {RECONNECT_MS}\n\n"
            loop = asyncio.get_running_loop()
            ends_at, quiet_until = loop.time() + STREAM_S, loop.time() + QUIET_S
            is_away = False
            while loop.time() < ends_at and not await has_left():
                event = None
                try:
                    html = await render()
                except BrokerError as error:
                    if not is_away:
                        logger.warning("a page of the dashboard is held up: %s", error)
                        event = _event("trouble", AWAY)
                    is_away = True
                except TaskQError as error:
                    yield _event("gone", str(error))
                    return
                else:
                    tag = hashlib.sha256(html.encode("utf-8", "replace")).hexdigest()[:32]
                    if tag != seen or is_away:
                        event = _event("page", html, tag)
                    seen, is_away = tag, False
                if event is None and loop.time() >= quiet_until:
                    event = ": still here\n\n"
                if event is not None:
                    yield event
                    quiet_until = loop.time() + QUIET_S
                await asyncio.sleep(interval_s)
        finally:
            self._count -= 1


def _event(word: str, text: str, tag: str | None = None) -> str:
    """Return an event. JSON holds any text in one line."""
    name = "" if tag is None else f"id: {tag}\n"
    return f"event: {word}\n{name}data: {json.dumps(text)}\n\n"
