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
from taskq_core.settings.language import marked, translated_with
from taskq_fastapi.dashboard.languages import catalogue
from taskq_fastapi.dashboard.refusals import told
from taskq_fastapi.streams import FULL_MS, QUIET_S, RECONNECT_MS
from taskq_fastapi.throttle import Visit

logger = logging.getLogger("taskq.fastapi")

T = TypeVar("T")

STREAM_S = 30.0
STREAMS_MAX = 200
"""Most streams of one dashboard at a time in this process; further ones are answered 503."""
KEPT_MAX = 500
"""Most results that are kept for others who look."""
AWAY = marked("Redis does not answer. What is shown may be out of date; it is tried again.")


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
            self._drop_old()
            found = self._reads[key] = _Read(now, loop.create_task(_awaited(read)), loop)
            found.task.add_done_callback(_noticed)
        result: T = await asyncio.shield(found.task)
        return result

    def clear(self) -> None:
        """Forget everything: something was changed."""
        self._reads.clear()

    def _drop_old(self) -> None:
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
        visit: Visit,
        language: str,
    ) -> AsyncIterator[str]:
        """Yield the events of a page.

        Args:
            render: Returns the contents of the page as they are now.
            interval_s: Seconds between two looks.
            seen: Id of the last event that the browser has.
            has_left: Says whether nobody listens any more.
            visit: The request for it, whose address has so many streams and not more.
            language: In which language somebody is told what is wrong.
        """
        if not (self.has_room and visit.has_room_for_stream):  # others have begun since it was answered
            yield f"retry: {FULL_MS}\n\n"
            return
        self._count += 1
        visit.stream_begins()
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
                        event = _event("trouble", catalogue(language).gettext(AWAY))
                    is_away = True
                except TaskQError as error:
                    with translated_with(catalogue(language)):
                        event = _event("gone", told(error))
                    yield event
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
            visit.stream_ends()
            self._count -= 1


def _event(word: str, text: str, tag: str | None = None) -> str:
    """Return an event. JSON holds any text in one line."""
    name = "" if tag is None else f"id: {tag}\n"
    return f"event: {word}\n{name}data: {json.dumps(text)}\n\n"
