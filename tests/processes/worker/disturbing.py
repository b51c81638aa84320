"""Disturb a server from a thread during a test."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def disturbed(disturb: Callable[[], object], pause_s: float) -> AsyncIterator[Callable[[], bool]]:
    """Call a function repeatedly in a thread during the block. Yield a check whether it ran at least five times."""
    done, times = False, 0

    def again() -> None:
        nonlocal times
        while not done:
            disturb()
            times += 1
            time.sleep(pause_s)  # so that the server can do other work

    disturbing = asyncio.create_task(asyncio.to_thread(again))
    try:
        yield lambda: times >= 5 or disturbing.done()
    finally:
        done = True
        await disturbing
