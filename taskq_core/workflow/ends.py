"""Wait for the end of a workflow, and read calls to add: what differs between blocking code and coroutines."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

from taskq_core.client import AsyncClient, Client
from taskq_core.handles.outcomes import EndSubscription

T = TypeVar("T")


class AsyncEnd:
    """Waits until a workflow may have ended, for coroutines."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, timeout_s: float) -> None:
        """Return when a message says that the workflow ended, when messages may have been missed, or at the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        self._event.clear()


class End:
    """Waits until a workflow may have ended, for blocking code."""

    def __init__(self, subscription: EndSubscription) -> None:
        self._subscription = subscription
        self._is_open = False

    def wait(self, timeout_s: float) -> None:
        """Wait as `AsyncEnd.wait`. The first call only begins to listen: the caller reads the workflow once more."""
        if self._is_open:
            self._subscription.listen(time.monotonic() + timeout_s)
        else:
            self._subscription.open()
            self._is_open = True


@asynccontextmanager
async def alisten(client: AsyncClient, channel: str, workflow_id: str) -> AsyncIterator[AsyncEnd]:
    """Listen for the end of a workflow."""
    async with client.listen(channel, workflow_id) as event:
        yield AsyncEnd(event)


@contextmanager
def listen(client: Client, channel: str, workflow_id: str) -> Iterator[End]:
    """Listen for the end of a workflow, in blocking code."""
    subscription = client.subscribe_end(channel, workflow_id)
    try:
        yield End(subscription)
    finally:
        subscription.close()


async def aiterate(calls: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield from an iterable of either kind."""
    if isinstance(calls, AsyncIterable):
        async for call in calls:
            yield call
        return
    for call in calls:
        yield call
