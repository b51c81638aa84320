"""Measurement of a rate limit, beside those in `scenarios`: many tasks of which so many may start a second."""

import asyncio
import time
from collections import Counter

from taskq_core import TaskQ
from taskq_core.worker import Worker, WorkerConfig

Figures = dict[str, float]
PER_S = 1000


def limited(url: str, *, count: int) -> Figures:
    """So many tasks, limited to 1,000 a second: the time to enqueue and to run them, and the most in one second."""
    taskq = TaskQ(url)
    started_in: Counter[int] = Counter()

    @taskq.task(name="bench:limited", rate_limit=f"{PER_S}/s")
    async def run(number: int) -> None:
        started_in[int(time.time())] += 1

    async def work() -> None:
        worker = Worker(taskq, WorkerConfig(concurrency=50))
        running = asyncio.create_task(worker.arun())
        while started_in.total() < count:
            if running.done():
                raise SystemExit("the worker has ended")
            await asyncio.sleep(0.01)
        worker.stop()
        await running
        await taskq.runtime.async_runner.aclose()

    begun = time.perf_counter()
    taskq.client.enqueue_many(run.s(number) for number in range(count))
    enqueued = time.perf_counter()
    asyncio.run(work())
    ended = time.perf_counter()
    return {
        "enqueue_s": enqueued - begun,
        "run_s": ended - enqueued,
        "tasks_per_s": count / (ended - enqueued),
        "most_in_a_second": float(max(started_in.values())),
    }
