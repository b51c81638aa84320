"""Measure tasks that only wait, like tasks that call another server. All slots of the worker should always be used."""

import asyncio
import time

import uvloop

from benchmarks.scenarios import PATIENCE_S
from taskq_core import Signature, TaskQ
from taskq_core.worker import Worker, WorkerConfig

Figures = dict[str, float]
IO_S = 0.01


def io_drain(url: str, *, kind: str, concurrency: int, count: int) -> Figures:
    """Measure how fast a worker in one process drains a queue of tasks that wait for 10 ms each.

    The time is from the start of the first task to the end of the last one. Each task must have run once.

    Args:
        url: URL of Redis.
        kind: `coroutine` or `plain`, which occupies a thread.
        concurrency: Concurrency of the worker.
        count: Number of tasks.
    """
    taskq = TaskQ(url, enqueue_timeout=PATIENCE_S)
    runs = bytearray(count)
    starts: list[float] = []
    ends: list[float] = []

    @taskq.task(name="bench:coroutine", headers={"tenant": "acme"})
    async def coroutine(number: int, text: str) -> None:
        starts.append(time.perf_counter())
        await asyncio.sleep(IO_S)
        runs[number] += 1
        ends.append(time.perf_counter())

    @taskq.task(name="bench:plain", headers={"tenant": "acme"})
    def plain(number: int, text: str) -> None:
        starts.append(time.perf_counter())
        time.sleep(IO_S)
        runs[number] += 1
        ends.append(time.perf_counter())

    task = taskq.tasks[f"bench:{kind}"]
    taskq.client.enqueue_many(Signature(task, (number, "some text"), {}) for number in range(count))
    before_s = time.process_time()
    Worker(taskq, WorkerConfig(concurrency=concurrency, burst=True)).run()
    spent_s = time.process_time() - before_s
    taskq.close()
    if runs.count(1) != count:
        raise SystemExit(f"{runs.count(1)} of {count} tasks ran once")
    return {"tasks_per_s": count / (max(ends) - min(starts)), "worker_cpu_us": spent_s / count * 1e6}


def bare_waits(url: str, *, concurrency: int, count: int) -> Figures:
    """Run coroutines that wait for 10 ms on an event loop without a queue, to measure the limit of the loop itself."""

    async def wait() -> None:
        await asyncio.sleep(IO_S)

    async def slot() -> None:
        for _ in range(count // concurrency):
            await asyncio.create_task(wait())

    async def main() -> Figures:
        started, before_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(slot() for _ in range(concurrency)))
        seconds, spent_s = time.perf_counter() - started, time.process_time() - before_s
        made = count // concurrency * concurrency
        return {"tasks_per_s": made / seconds, "loop_cpu_us": spent_s / made * 1e6}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
