"""A producer and a worker for several releases of taskq, so it uses only functions that all of them have.

python program.py                          enqueues tasks, waits, and prints the results as JSON
python -m taskq_core worker program:taskq  runs the tasks
"""

import asyncio
import json
import os
import sys
from importlib.metadata import version

import redis.asyncio

from taskq_core import TaskQ, chain, chord, current_task

RELEASE = version("taskq-asynq")
COUNT = 100
URL = os.environ.get("TASKQ_URL", "redis://localhost:6379/0")
taskq = TaskQ(URL, defaults={"retention": 600, "retry_delay": 0}, enqueue_timeout=30)
notes = redis.asyncio.from_url(URL)  # connects when it is used


@taskq.task(name="who")
async def who(number: int, producer: str) -> list[object]:
    """Return the version that ran the task, after workers of two releases have taken such a task."""
    await notes.sadd(f"seen:{producer}", RELEASE)
    while await notes.scard(f"seen:{producer}") < 2:  # noqa: ASYNC110 - a key in Redis
        await asyncio.sleep(0.01)
    return [number, RELEASE]


@taskq.task(name="again", max_retry=5)
async def again(number: int) -> int:
    """Fail in the first attempt, so that each release reads attempts that the other recorded."""
    if current_task().attempt == 1:
        raise ValueError("not yet")
    return number


@taskq.task(name="add")
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@taskq.task(name="total")
async def total(numbers: list[int]) -> int:
    """Add many."""
    return sum(numbers)


async def main() -> None:
    """Enqueue every kind of task and wait for all results."""
    handles = [await who.adelay(number, RELEASE) for number in range(COUNT)]
    retried = [await again.adelay(number) for number in range(COUNT // 10)]
    members = await chord([add.s(number, 1) for number in range(20)], total.s()).adelay()
    line = await chain(add.s(1, 2), add.s(3), add.s(4)).adelay()
    ran = [await handle.aresult(timeout=60) for handle in handles]
    document = {
        "release": RELEASE,
        "numbers": sorted(number for number, _ in ran),
        "by": sorted({by for _, by in ran}),
        "retried": [await handle.aresult(timeout=60) for handle in retried],
        "members": await members.aresult(timeout=60),
        "line": await line.aresult(timeout=60),
    }
    await taskq.aclose()
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
