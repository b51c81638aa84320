"""saq. Setting after https://saq-py.readthedocs.io/en/latest/: `concurrency` of the worker's settings, no results kept.

It has no bulk call; 50 coroutines enqueue at once, of which the queue lets `max_concurrent_ops` through.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from benchmarks.peers.tasks import CONCURRENCY, SETTING, TEXT, URL, ran, slept, waited

_CALLERS = 50
queue = RedisQueue(Redis.from_url(URL), name="bench")  # as `Queue.from_url`, which takes no unix socket


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
    """Hold a thread for 10 ms."""
    slept(number, text)


FUNCTIONS = {"noop": plain_noop, "io": plain_io} if SETTING.get("kind") == "plain" else {"noop": noop, "io": io}
settings: dict[str, Any] = {"queue": queue, "functions": list(FUNCTIONS.items()), "concurrency": CONCURRENCY}


async def connect() -> None:
    """Open connections."""
    await queue.connect()


async def close() -> None:
    """Close them."""
    await queue.disconnect()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one, whose result is not kept."""
    await queue.enqueue(kind, number=number, text=TEXT, ttl=-1)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many from 50 coroutines."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await queue.enqueue(kind, number=number, text=TEXT, ttl=-1)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
