"""Adapter for streaQ. The settings follow https://streaq.readthedocs.io/en/latest/worker.html.

Results are not stored (`ttl=0`). Payloads are JSON instead of pickle, which is as fast for these arguments.
"""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import islice

from streaq import Worker

from benchmarks.peers.tasks import CONCURRENCY, SETTING, TEXT, URL, ran, slept, waited

_BATCH = 500
worker = Worker(
    redis_url=URL,
    concurrency=CONCURRENCY,
    prefetch=SETTING.get("prefetch"),
    queue_name="bench",
    serializer=json.dumps,
    deserializer=json.loads,
)
_open = AsyncExitStack()


async def noop(number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


FUNCTIONS = {"noop": ran, "io": slept} if SETTING.get("kind") == "plain" else {"noop": noop, "io": waited}
TASKS = {name: worker.task(ttl=0, name=name)(function) for name, function in FUNCTIONS.items()}


async def connect() -> None:
    """Open connections."""
    await _open.enter_async_context(worker)


async def close() -> None:
    """Close the connections."""
    await _open.aclose()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    await TASKS[kind].enqueue(number, TEXT)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks in pipelines."""
    left = iter(numbers)
    while some := list(islice(left, _BATCH)):
        await worker.enqueue_many([TASKS[kind].enqueue(number, TEXT) for number in some])


if __name__ == "__main__":  # as `streaq run`, but without a log line for each task
    worker.run_sync()
