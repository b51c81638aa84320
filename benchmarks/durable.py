"""Measure durable tasks: `python -m benchmarks.durable`. Each measurement has its own Redis, and its worker runs here.

- Memory in Redis of each sleeping task, and CPU time of an idle worker and of Redis beside all of them.
- Time from `handle.signal` to the run that gets the value, beside all sleeping tasks.
- Emitted values per second of one task.
- Time and commands of a step that does nothing.
- Commands of Redis for each plain task, which durable tasks do not change.
"""

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import uvloop

from taskq_core import TaskContext, TaskQ
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer

Figures = dict[str, float]


@asynccontextmanager
async def working(taskq: TaskQ, concurrency: int = 50) -> AsyncIterator[Worker]:
    """Run a worker in this event loop for the time of a block."""
    worker = Worker(taskq, WorkerConfig(concurrency=concurrency))
    running = asyncio.create_task(worker.arun())
    try:
        yield worker
    finally:
        worker.stop()
        await running


def _used_memory(server: RedisServer) -> int:
    return int(server.client.info("memory")["used_memory"])


def _cpu_s(server: RedisServer) -> float:
    cpu: Any = server.client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _commands(server: RedisServer) -> int:
    stats: Any = server.client.info("commandstats")
    return int(sum(each["calls"] for name, each in stats.items() if name != "cmdstat_config|resetstat"))


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - it waits for Redis
        await asyncio.sleep(0.05)


async def sleeping(server: RedisServer, count: int, signals: int) -> Figures:
    """Let tasks sleep, and wake others by a signal beside them."""
    taskq = TaskQ(server.unix_url, enqueue_timeout=60)
    woken: asyncio.Queue[float] = asyncio.Queue()

    @taskq.task(name="bench:sleep")
    async def sleep(context: TaskContext, number: int) -> None:
        await context.astep("before", int, number)
        await context.asleep(timedelta(days=3))

    @taskq.task(name="bench:receive")
    async def receive(context: TaskContext, number: int) -> None:
        await context.areceive("go", int)
        woken.put_nowait(time.perf_counter())

    queue = taskq.runtime.keys.queue("default")
    empty = _used_memory(server)
    await taskq.async_client.enqueue_many(sleep.s(number) for number in range(count))
    pending = _used_memory(server)
    figures = {"memory of a pending task (bytes)": (pending - empty) / count}
    async with working(taskq):
        started = time.perf_counter()
        await _until(lambda: server.client.zcard(queue.scheduled) == count)
        figures["runs up to the sleep per second"] = count / (time.perf_counter() - started)
        await asyncio.sleep(3)
        figures["memory of a sleeping task with one step (bytes)"] = (_used_memory(server) - empty) / count
        before, redis_before, began = _own_cpu_s(), _cpu_s(server), time.perf_counter()
        await asyncio.sleep(15)
        passed = time.perf_counter() - began
        figures["CPU of the idle worker (%)"] = (_own_cpu_s() - before) / passed * 100
        figures["CPU of Redis (%)"] = (_cpu_s(server) - redis_before) / passed * 100
        handles = [await receive.adelay(number) for number in range(signals)]
        await _until(lambda: server.client.zcard(queue.scheduled) == count + signals)
        times = []
        for handle in handles:
            sent = time.perf_counter()
            await handle.asignal("go", 1)
            times.append((await woken.get() - sent) * 1000)
            await asyncio.sleep(0.01)
    cuts = statistics.quantiles(times, n=100)
    await taskq.aclose()
    return {**figures, "wake-up after a signal, p50 (ms)": cuts[49], "wake-up after a signal, p99 (ms)": cuts[98]}


async def emitting(server: RedisServer, count: int) -> Figures:
    """Emit short values from one task, as fast as it can."""
    taskq = TaskQ(server.unix_url, defaults={"retention": 60}, enqueue_timeout=60)

    @taskq.task(name="bench:emit")
    async def emit(context: TaskContext) -> float:
        started = time.perf_counter()
        for number in range(count):
            await context.aemit(f"token {number}")
        return started

    async with working(taskq):
        handle = await emit.adelay()
        started = await handle.aresult(timeout=120)
        seconds = time.perf_counter() - started
    await taskq.aclose()
    return {"emitted values per second": count / seconds}


async def stepping(server: RedisServer, count: int) -> Figures:
    """Run steps that do nothing, one after the other."""
    taskq = TaskQ(server.unix_url, defaults={"retention": 60}, enqueue_timeout=60)

    @taskq.task(name="bench:steps")
    async def steps(context: TaskContext, number: int) -> float:
        await context.astep("first", int)  # reads the record
        server.client.config_resetstat()
        started = time.perf_counter()
        for _ in range(number):
            await context.astep("nothing", int)
        seconds = time.perf_counter() - started
        calls: Any = server.client.info("commandstats")
        requests.append(calls["cmdstat_evalsha"]["calls"] / number)
        return seconds

    requests: list[float] = []
    async with working(taskq):
        handle = await steps.adelay(count)
        seconds = await handle.aresult(timeout=120)
    await taskq.aclose()
    return {"time of a step that does nothing (us)": seconds / count * 1e6, "requests of a step": requests[0]}


async def plain(server: RedisServer, count: int) -> Figures:
    """Run tasks without steps, and count the commands of Redis, also those of scripts."""
    taskq = TaskQ(server.unix_url, enqueue_timeout=60)

    @taskq.task(name="bench:plain")
    async def work(number: int) -> None:
        pass

    await taskq.async_client.enqueue_many(work.s(number) for number in range(count))
    server.client.config_resetstat()
    await Worker(taskq, WorkerConfig(concurrency=50, burst=True)).arun()
    commands = _commands(server)
    await taskq.aclose()
    return {"commands of Redis for a plain task": commands / count}


def main() -> None:
    """Run the measurements and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="sleeping tasks (default 100,000)")
    parser.add_argument("--signals", type=int, default=500, help="signals (default 500)")
    options = parser.parse_args()
    measurements: list[Callable[[RedisServer], Coroutine[Any, Any, Figures]]] = [
        lambda server: plain(server, 20_000),
        lambda server: stepping(server, 900),
        lambda server: emitting(server, 100_000),
        lambda server: sleeping(server, options.tasks, options.signals),
    ]
    print("| measure | figure |\n|---|---|")
    for measure in measurements:
        with RedisServer() as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for name, figure in runner.run(measure(server)).items():
                print(f"| {name} | {figure:,.2f} |" if figure < 100 else f"| {name} | {figure:,.0f} |", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
