"""Adapter for docket. It has no bulk enqueue, so 50 coroutines enqueue at the same time."""

import asyncio
from collections.abc import Iterable

from docket import Docket

from benchmarks.peers.tasks import TEXT, URL, ran, waited
from benchmarks.peers.telemetry import configured

configured()
_CALLERS = 50
docket = Docket(url=URL)


async def noop(number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


async def io(number: int, text: str) -> None:
    """Wait for 10 ms."""
    await waited(number, text)


TASKS = {"noop": noop, "io": io}
FUNCTIONS = [noop, io]


async def connect() -> None:
    """Open connections."""
    await docket.__aenter__()


async def close() -> None:
    """Close the connections."""
    await docket.__aexit__(None, None, None)


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    await docket.add(TASKS[kind])(number, TEXT)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks from 50 coroutines."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await docket.add(TASKS[kind])(number, TEXT)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
