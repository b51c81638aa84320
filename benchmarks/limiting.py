"""Measure limited tasks: the number of starts per second, and the delay of a task that may start."""

import asyncio
import time
from collections import Counter
from itertools import pairwise

from taskq_core import TaskQ
from taskq_core.worker import Worker, WorkerConfig

Figures = dict[str, float]
PER_S = 1000
SLOW_PER_S = 20


def limited(url: str, *, count: int) -> Figures:
    """Run tasks with a limit of 1,000 per second. Measure the times to enqueue and run them, and the most in 1 s."""
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


def allowed(url: str, *, count: int) -> Figures:
    """Measure how many milliseconds after its earliest allowed start a task starts that had to wait for a limit.

    At 20 per second, a task may start a twentieth of a second after the previous task. With `concurrency=1`, it may
    start when the function of the previous task has returned.
    """
    taskq = TaskQ(url)
    rated: list[float] = []
    starts_of_single: list[float] = []
    ended: list[float] = []

    @taskq.task(name="bench:rated", rate_limit=f"{SLOW_PER_S}/s")
    async def rated_task(number: int) -> None:
        rated.append(time.perf_counter())

    @taskq.task(name="bench:one_at_a_time", concurrency=1)
    async def single_task(number: int) -> None:
        starts_of_single.append(time.perf_counter())
        await asyncio.sleep(0.01)
        ended.append(time.perf_counter())

    async def work() -> None:
        worker = Worker(taskq, WorkerConfig(concurrency=50))
        running = asyncio.create_task(worker.arun())
        while len(rated) + len(ended) < 2 * count:
            if running.done():
                raise SystemExit("the worker has ended")
            await asyncio.sleep(0.01)
        worker.stop()
        await running
        await taskq.runtime.async_runner.aclose()

    taskq.client.enqueue_many(rated_task.s(number) for number in range(count))
    taskq.client.enqueue_many(single_task.s(number) for number in range(count))
    asyncio.run(work())
    late = {
        "rate": sorted(start - before - 1 / SLOW_PER_S for before, start in pairwise(rated)),
        "permit": sorted(start - end for start, end in zip(starts_of_single[1:], ended, strict=False)),
    }
    figures = {}
    for name, seconds in late.items():
        figures[f"{name}_median_ms"] = seconds[len(seconds) // 2] * 1e3
        figures[f"{name}_p99_ms"] = seconds[int(len(seconds) * 0.99)] * 1e3
    return figures
