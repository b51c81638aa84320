"""Results that pages and their updates share.

An `EventSource` of a page receives `page` with the new contents when they change, `trouble` while Redis does not
answer, and `gone` when the object of the page no longer exists.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

KEPT_MAX = 500
"""Maximum number of stored results."""


@dataclass(frozen=True, slots=True)
class _Read:
    begun: float
    task: "asyncio.Task[Any]"
    loop: asyncio.AbstractEventLoop


class SharedReads:
    """Stores results, and failures, for other requests at about the same time."""

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]], *, age_s: float) -> T:
        """Return the result of `read`, or of an earlier read that began less than `age_s` seconds ago."""
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
        """Drop all results, because something was changed."""
        self._reads.clear()

    def _drop_old(self) -> None:
        if len(self._reads) >= KEPT_MAX:
            for key in sorted(self._reads, key=lambda each: self._reads[each].begun)[: KEPT_MAX // 2]:
                del self._reads[key]


async def _awaited(read: Callable[[], Awaitable[T]]) -> T:
    return await read()


def _noticed(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # retrieved, because all requests that waited for it may have ended
