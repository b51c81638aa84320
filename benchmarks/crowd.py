"""Measure one queue with many workers. `python -m benchmarks.crowd URL COUNT CONCURRENCY` runs COUNT workers.

Each is a complete worker with its services, its connections and its heartbeat thread. Many workers share one process
and its event loop, because two hundred processes of 50 MB would not fit into the memory of most machines. A separate
process for each worker would only add memory and a wake-up by the kernel.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import uvloop
from redis import Redis

from benchmarks.asynq import PREFIX, GoProducer
from taskq_core import TaskQ
from taskq_core.client.preparer import new_task_id
from taskq_core.wire import MessageTemplate
from taskq_core.worker import Worker, WorkerConfig, WorkerListener

Figures = dict[str, float]
TASK = "bench:stamp"
_SETTLE_S = 2.0
"""Seconds after which all services have done their first pass."""
_SETTLE_A_WORKER_S = 0.01
"""Seconds to add to `_SETTLE_S` for each worker."""
_LAST_S = 60.0
"""Maximum seconds to wait for the last task, and for the response to an enqueue."""
_START_S = 120
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_WARM = 20
"""Number of first tasks that are not measured."""


class Crowd:
    """Runs workers in several processes during a `with` block.

    Args:
        url: URL of Redis.
        workers: Number of workers in all processes.
        processes: Number of processes.
        concurrency: Concurrency of each worker.
    """

    def __init__(self, url: str, *, workers: int, processes: int, concurrency: int = 10) -> None:
        shares = [workers // processes + (number < workers % processes) for number in range(processes)]
        self._commands = [
            [sys.executable, "-m", "benchmarks.crowd", url, str(share), str(concurrency)] for share in shares if share
        ]
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            for command in self._commands:
                self._started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for process in self._started:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise SystemExit("a process of workers did not start")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def settle(self, workers: int) -> None:
        """Wait until the services of this many workers have done their first pass."""
        time.sleep(_SETTLE_S + workers * _SETTLE_A_WORKER_S)

    def stop(self) -> list[float]:
        """Stop all workers. Return the seconds from the enqueue to the start of each task that has its enqueue time."""
        for process in self._started:
            process.terminate()
        delays: list[float] = []
        for process in self._started:
            assert process.stdout is not None
            delays += json.loads(process.stdout.readline() or "[]")
            process.wait(_START_S)
        return delays

    def _end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def latency_among(
    url: str, *, per_s: int, seconds: int, workers: int = 1, processes: int = 1, producer: str = "taskq"
) -> Figures:
    """Measure the time from the enqueue to the start of the function, at a steady rate, while many workers are idle.

    Args:
        url: URL of Redis.
        per_s: Tasks per second.
        seconds: Duration.
        workers: Number of workers.
        processes: Number of processes that run the workers.
        producer: `taskq` for `.adelay()`, `go` for the commands of Go Asynq's client.
    """
    send = {"taskq": _send, "go": _send_as_go}[producer]
    count = per_s * seconds + _WARM
    with Crowd(url, workers=workers, processes=processes) as crowd:
        crowd.settle(workers)
        send(url, count, per_s)
        _wait_for_last(url)
        delays = crowd.stop()
    if len(delays) != count:
        raise SystemExit(f"only {len(delays)} of {count} tasks ran")
    return {**_spread(delays), "tasks": count}


def crowd_commands(url: str, *, per_s: int, seconds: int, workers: int, processes: int) -> Figures:
    """Count the requests and commands that Redis runs per task, including its enqueue, less those of idle workers.

    Requests come from clients. Commands are requests and the commands that scripts call.
    """
    with Redis.from_url(url) as client, Crowd(url, workers=workers, processes=processes) as crowd:
        crowd.settle(workers)
        started, before = time.perf_counter(), _counted(client)
        time.sleep(seconds)
        idle_s, between = time.perf_counter() - started, _counted(client)
        started = time.perf_counter()
        _send(url, per_s * seconds, per_s)
        _wait_for_last(url)
        busy_s, after = time.perf_counter() - started, _counted(client)
        ran = len(crowd.stop())
    if ran != per_s * seconds:
        raise SystemExit(f"only {ran} of {per_s * seconds} tasks ran")
    figures: Figures = {"tasks": ran}
    for name, first, second, third in zip(("requests", "commands"), before, between, after, strict=True):
        idle = (second - first) / idle_s
        figures[f"idle_{name}"] = idle
        figures[f"{name}_a_task"] = (third - second - idle * busy_s) / ran
    return figures


def _wait_for_last(url: str) -> None:
    until = time.monotonic() + _LAST_S
    with Redis.from_url(url) as client:
        while client.llen(f"{PREFIX}pending") or client.llen(f"{PREFIX}active"):
            if time.monotonic() > until:
                raise SystemExit("tasks are left")
            time.sleep(0.05)


def _counted(client: "Redis") -> tuple[int, int]:
    stats = client.info("stats")
    return stats["total_reads_processed"], stats["total_commands_processed"]


def _spread(delays: Sequence[float]) -> Figures:
    in_order = sorted(delays)
    return {"p50_ms": statistics.median(in_order) * 1e3, "p99_ms": in_order[int(len(in_order) * 0.99)] * 1e3}


def _send(url: str, count: int, per_s: int) -> None:
    """Enqueue tasks at a steady rate from a coroutine."""
    taskq = TaskQ(url, enqueue_timeout=_LAST_S)
    stamp = taskq.remote(TASK)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await stamp.adelay(sent_ns=0)
        started = loop.time()
        for number in range(count):
            await asyncio.sleep(max(0.0, started + number / per_s - loop.time()))
            await stamp.adelay(sent_ns=time.time_ns())
        await taskq.aclose()

    _run(main())


def _send_as_go(url: str, count: int, per_s: int) -> None:
    """Enqueue tasks at a steady rate with the commands of Go Asynq's client."""
    template = MessageTemplate(TASK, "default", retry=25, timeout=1800)
    with Redis.from_url(url) as client:
        producer = GoProducer(client)
        started = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, started + number / per_s - time.perf_counter()))
            task_id = new_task_id()
            payload = b'{"sent_ns":%d}' % time.time_ns()
            producer.enqueue(task_id, template.encode(task_id, payload))


def _run(main: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


# --- the process of workers -------------------------------------------------------------------------------------------


async def _work(url: str, count: int, concurrency: int) -> None:
    taskq = TaskQ(url)
    delays: list[float] = []

    @taskq.task(name=TASK)
    async def stamp(sent_ns: int) -> None:
        if sent_ns:
            delays.append((time.time_ns() - sent_ns) / 1e9)

    class Started(WorkerListener):
        def __init__(self) -> None:
            self.event = asyncio.Event()

        def started(self, worker: Any) -> None:
            self.event.set()

    workers: list[Worker] = []
    living: list[asyncio.Task[int]] = []
    # Start the workers one after the other. All at once would open more connections than Redis accepts at a time.
    for _ in range(count):
        started = Started()
        workers.append(Worker(taskq, WorkerConfig(concurrency=concurrency), listener=started))
        living.append(asyncio.create_task(workers[-1].arun()))
        waiting = asyncio.create_task(started.event.wait())
        await asyncio.wait((living[-1], waiting), return_when=asyncio.FIRST_COMPLETED)
        if living[-1].done():
            raise SystemExit("a worker could not start")

    def stop() -> None:
        for worker in workers:
            worker.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    print("ready", flush=True)
    await asyncio.gather(*living)
    print(json.dumps(delays), flush=True)


def _die_with_parent() -> None:
    """Let Linux kill this process when its parent ends, because a measurement that takes too long is killed."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit("the process of the measurement has ended")


if __name__ == "__main__":
    _die_with_parent()
    gc.collect()
    gc.freeze()  # as a worker does in its own process
    _run(_work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
