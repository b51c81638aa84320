"""Disturb a server from a thread while a test goes on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def disturbed(disturb: Callable[[], object], pause_s: float) -> AsyncIterator[Callable[[], bool]]:
    """Disturb repeatedly from a thread during the block. Yield a function that returns whether it was often enough."""
    done, times = False, 0

    def again() -> None:
        nonlocal times
        while not done:
            disturb()
            times += 1
            time.sleep(pause_s)  # so that the server gets to do something else, too

    disturbing = asyncio.create_task(asyncio.to_thread(again))
    try:
        yield lambda: times >= 5 or disturbing.done()
    finally:
        done = True
        await disturbing
