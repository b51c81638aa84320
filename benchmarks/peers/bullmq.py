"""Adapter for BullMQ in Python. The settings follow https://docs.bullmq.io/python/introduction and /guide/workers.

Finished jobs are removed (`removeOnComplete`), as https://docs.bullmq.io/guide/going-to-production recommends.
`python -m benchmarks.peers.bullmq` runs a worker.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

from bullmq import Queue, Worker

from benchmarks.peers.tasks import CONCURRENCY, TEXT, URL, ran, waited

_BATCH = 500
_OPTIONS = {"removeOnComplete": True}
queue: Queue


async def connect() -> None:
    """Open connections."""
    global queue
    queue = Queue("bench", {"connection": URL})


async def close() -> None:
    """Close the connections."""
    await queue.close()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    await queue.add(kind, {"number": number, "text": TEXT}, _OPTIONS)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks in bulk calls."""
    left = iter(numbers)
    while some := list(islice(left, _BATCH)):
        jobs = [{"name": kind, "data": {"number": number, "text": TEXT}, "opts": _OPTIONS} for number in some]
        await queue.addBulk(jobs)


async def process(job: Any, token: str) -> None:
    """Run a job."""
    if job.name == "io":
        await waited(job.data["number"], job.data["text"])
    else:
        ran(job.data["number"], job.data["text"])


async def work() -> None:
    """Run a worker until the process is ended."""
    Worker("bench", process, {"connection": URL, "concurrency": CONCURRENCY})
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(work())
