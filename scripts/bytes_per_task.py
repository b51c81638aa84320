"""Measure how many bytes of Redis's memory a task takes, by its state and the size of its payload.

For each state and size, the script starts an empty Redis, measures its memory before and after it adds tasks, and
divides the difference by their number. It prints the table of docs/how-to/set-up-redis.md. The load of the machine does
not matter, because the script measures no time.

    python scripts/bytes_per_task.py --count 2000
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from taskq_core import TaskQ  # noqa: E402 - found above
from taskq_core.broker.operations import runs  # noqa: E402
from taskq_core.worker import Worker, WorkerConfig  # noqa: E402
from tests.redis_server import RedisServer  # noqa: E402

SIZES = {"100 B": 100, "1 KiB": 1024, "10 KiB": 10_240}
DAY_S = 86_400


def application(url: str) -> TaskQ:
    """Return an application with three tasks: one succeeds, one is retried, and one is archived."""
    taskq = TaskQ(url, defaults={"retention": DAY_S})

    @taskq.task(name="work:done")
    async def done(data: str) -> str:
        return "done"

    @taskq.task(name="work:retry", retry_delay=DAY_S)
    async def retried(data: str) -> None:
        raise ValueError("the service did not answer")

    @taskq.task(name="work:fails", max_retry=0)
    async def fails(data: str) -> None:
        raise ValueError("the service did not answer")

    return taskq


Fill = Callable[[TaskQ, str, int], Awaitable[None]]


async def enqueue(taskq: TaskQ, name: str, data: str, count: int, **options: object) -> None:
    """Enqueue `count` tasks with the same data."""
    task = taskq.tasks[name].using(**options)  # type: ignore[arg-type]  # each is an option
    await taskq.async_client.enqueue_many([task.s(data=data) for _ in range(count)])


async def run(taskq: TaskQ) -> None:
    """Run all pending tasks."""
    await Worker(taskq, WorkerConfig(burst=True, concurrency=20)).arun()


async def _pending(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:done", data, count)


async def _scheduled(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:done", data, count, run_after=DAY_S)


async def _aggregating(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:done", data, count, aggregate="group")


async def _unique(taskq: TaskQ, data: str, count: int) -> None:
    task = taskq.tasks["work:done"].using(unique_for=DAY_S)
    calls = [task.s(data=f"{number:08}{data[8:]}") for number in range(count)]
    await taskq.async_client.enqueue_many(calls)


async def _active(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:done", data, count)
    queue, left, call = taskq.runtime.keys.queue("default"), count, 0
    while left > 0:
        call += 1
        take = runs.dequeue(queue, owner="0123456789abcdef", call=call, limit=min(left, 100), lease_s=3600)
        left -= len((await taskq.runtime.async_runner.run(take)).tasks)


async def _completed(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:done", data, count)
    await run(taskq)


async def _retry(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:retry", data, count)
    await run(taskq)


async def _archived(taskq: TaskQ, data: str, count: int) -> None:
    await enqueue(taskq, "work:fails", data, count)
    await run(taskq)


KINDS: Mapping[str, Fill] = {
    "pending": _pending,
    "pending, unique": _unique,
    "active": _active,
    "scheduled": _scheduled,
    "retry": _retry,
    "archived": _archived,
    "completed": _completed,
    "aggregating": _aggregating,
}


async def measure(fill: Fill, size: int, count: int) -> int:
    """Return the bytes that one task takes, if `fill` adds tasks and their payload has `size` bytes."""
    with RedisServer() as server:
        taskq = application(server.unix_url)
        await fill(taskq, "x" * 20, 1)  # creates what exists once: the queue, the scripts, the keys of workers
        before = await used(server, taskq)
        await fill(taskq, "x" * (size - len('{"data":""}')), count)
        after = await used(server, taskq)
    return round((after - before) / count)


async def used(server: RedisServer, taskq: TaskQ) -> int:
    """Return the bytes that Redis uses for data.

    Before it measures, it removes two other parts of the memory. The application disconnects, because connections have
    buffers. `SCRIPT FLUSH` starts a new Lua interpreter, because Redis 8.0 and later with jemalloc count its memory,
    whose garbage grows and shrinks by hundreds of KiB.
    """
    await taskq.aclose()
    while server.client.info("clients")["connected_clients"] > 1:  # noqa: ASYNC110 - the server notices soon
        await asyncio.sleep(0.01)
    server.client.script_flush("SYNC")
    return int(server.client.info("memory")["used_memory"])


async def table(count: int) -> list[str]:
    """Measure all kinds and sizes. Return the lines of a Markdown table."""
    lines = ["| state | " + " | ".join(SIZES) + " |", "|---|" + "---|" * len(SIZES)]
    for name, fill in KINDS.items():
        cells = [f"{await measure(fill, size, count):,}" for size in SIZES.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="tasks of each kind (default: 2000)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the failures of tasks are intended
    print("\n".join(asyncio.run(table(options.count))))


if __name__ == "__main__":
    main()
