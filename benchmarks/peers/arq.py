"""Adapter for arq. The settings follow https://arq-docs.helpmanual.io/: `max_jobs`, `keep_result=0` without results.

`poll_delay` and `queue_read_limit` come from the measured setting. arq has no bulk enqueue, so 50 coroutines enqueue at
the same time. `python -m benchmarks.peers.arq` runs a worker.
"""

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

import arq
from arq.connections import ArqRedis, RedisSettings

from benchmarks.peers.tasks import CONCURRENCY, SETTING, TEXT, URL, ran, waited

_CALLERS = 50


def _redis() -> RedisSettings:
    if URL.startswith("unix:"):
        return RedisSettings(unix_socket_path=urlsplit(URL).path)
    return RedisSettings.from_dsn(URL)


async def noop(context: object, number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


async def io(context: object, number: int, text: str) -> None:
    """Wait for 10 ms."""
    await waited(number, text)


class WorkerSettings:
    """The configuration of arq's worker."""

    functions = (noop, io)
    redis_settings = _redis()
    max_jobs = CONCURRENCY
    keep_result = 0
    poll_delay = SETTING.get("poll_delay", 0.5)
    queue_read_limit = SETTING.get("read_limit")


pool: ArqRedis


async def connect() -> None:
    """Open connections."""
    global pool
    pool = await arq.create_pool(WorkerSettings.redis_settings)


async def close() -> None:
    """Close the connections."""
    await pool.aclose()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    await pool.enqueue_job(kind, number, TEXT)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks from 50 coroutines."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await pool.enqueue_job(kind, number, TEXT)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))


if __name__ == "__main__":
    import uvloop

    asyncio.set_event_loop(uvloop.new_event_loop())
    arq.run_worker(WorkerSettings)
