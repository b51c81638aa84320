"""Adapter for saq. The settings follow https://saq-py.readthedocs.io/en/latest/: `concurrency`, and no stored results.

saq has no bulk enqueue, so 50 coroutines enqueue at the same time. The queue limits them to `max_concurrent_ops`.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from benchmarks.peers.tasks import CONCURRENCY, SETTING, TEXT, URL, ran, slept, waited

_CALLERS = 50
queue = RedisQueue(Redis.from_url(URL), name="bench")  # what `Queue.from_url` does, which accepts no unix socket


async def noop(context: Any, *, number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


async def io(context: Any, *, number: int, text: str) -> None:
    """Wait for 10 ms."""
    await waited(number, text)


def plain_noop(context: Any, *, number: int, text: str) -> None:
    """Do nothing, in a thread."""
    ran(number, text)


def plain_io(context: Any, *, number: int, text: str) -> None:
    """Block a thread for 10 ms."""
    slept(number, text)


FUNCTIONS = {"noop": plain_noop, "io": plain_io} if SETTING.get("kind") == "plain" else {"noop": noop, "io": io}
settings: dict[str, Any] = {"queue": queue, "functions": list(FUNCTIONS.items()), "concurrency": CONCURRENCY}


async def connect() -> None:
    """Open connections."""
    await queue.connect()


async def close() -> None:
    """Close the connections."""
    await queue.disconnect()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task, whose result is not stored."""
    await queue.enqueue(kind, number=number, text=TEXT, ttl=-1)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks from 50 coroutines."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await queue.enqueue(kind, number=number, text=TEXT, ttl=-1)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
