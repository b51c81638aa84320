"""Measure enqueues in comparison with redis-py alone, and the memory of a client that enqueues from a generator."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis
import uvloop

from benchmarks.raw import QUEUE, batches
from benchmarks.scenarios import app, calls
from taskq_core.broker.exchange import words_of
from taskq_core.broker.operations import new_tasks
from taskq_core.broker.operations.new_tasks import ReceiptSlot

Figures = dict[str, float]
SLICES = 10
"""Number of slices in which taskq and redis-py take turns, so that a slow period of the machine affects both."""


def _bare_calls(count: int) -> list[tuple[Any, ...]]:
    """Return the EVALSHA arguments of `count` enqueues, each with a unique id and message."""
    lane = ReceiptSlot("bare")
    return [words_of(new_tasks.enqueue(QUEUE, tasks, lane))[1:] for tasks in batches(count, 1)]


def beside_bare(url: str, *, count: int) -> Figures:
    """Measure blocking `.delay()`, and `evalsha` of redis-py for the same script with arguments of the same size."""
    taskq = app(url)
    task = taskq.tasks["bench:plain"]
    task.delay(0, "warm")  # so that Redis has loaded the script
    words = iter(_bare_calls(count))

    with redis.Redis.from_url(url) as client:
        client.ping()

        def bare(number: int) -> None:
            client.evalsha(*next(words))

        def ours(number: int) -> None:
            task.delay(number, "some text")

        def timed(call: Callable[[int], None]) -> float:
            started = time.perf_counter()
            for number in range(count // SLICES):
                call(number)
            return time.perf_counter() - started

        gc.collect()
        spent = {"bare": 0.0, "ours": 0.0}
        for turn in range(SLICES):
            for name, call in (("bare", bare), ("ours", ours))[:: 1 - 2 * (turn % 2)]:
                spent[name] += timed(call)
    taskq.close()
    return _compared(count, spent)


def beside_bare_async(url: str, *, count: int) -> Figures:
    """Measure `.adelay()` of one coroutine and `evalsha` of redis-py's asyncio client, as `beside_bare` does."""
    taskq = app(url)
    task = taskq.tasks["bench:coroutine"]
    words = iter(_bare_calls(count))

    async def main() -> Figures:
        await task.adelay(0, "warm")
        client: Any = redis.asyncio.Redis.from_url(url)
        await client.ping()

        async def bare(number: int) -> None:
            await client.evalsha(*next(words))

        async def ours(number: int) -> None:
            await task.adelay(number, "some text")

        async def timed(call: Callable[[int], Awaitable[None]]) -> float:
            started = time.perf_counter()
            for number in range(count // SLICES):
                await call(number)
            return time.perf_counter() - started

        gc.collect()
        spent = {"bare": 0.0, "ours": 0.0}
        for turn in range(SLICES):
            for name, call in (("bare", bare), ("ours", ours))[:: 1 - 2 * (turn % 2)]:
                spent[name] += await timed(call)
        await client.aclose()
        await taskq.aclose()
        return _compared(count, spent)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def _compared(count: int, spent: dict[str, float]) -> Figures:
    made = count // SLICES * SLICES
    return {
        "bare_per_s": made / spent["bare"],
        "tasks_per_s": made / spent["ours"],
        "share_percent": spent["bare"] / spent["ours"] * 100,
    }


def streamed(url: str, *, count: int) -> Figures:
    """Measure the peak memory of a client that enqueues tasks from a generator and keeps the result."""
    taskq = app(url)
    taskq.client.enqueue_many(calls(taskq, "bench:plain", 200))
    gc.collect()
    started = time.perf_counter()
    result = taskq.client.enqueue_many(calls(taskq, "bench:plain", count))
    seconds = time.perf_counter() - started
    if len(result) != count:
        raise SystemExit(f"{len(result)} of {count} tasks were enqueued")
    figures = {"peak_mb": peak_mb(), "tasks_per_s": count / seconds}
    taskq.close()
    return figures


def peak_mb() -> float:
    """Return the peak resident memory of this process.

    `getrusage` is not usable, because its value includes the memory of the parent process before the fork.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
