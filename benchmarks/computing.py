"""Measure CPU-bound tasks per second: in one process, in several worker processes, and in a process for each task.

`taskq` is the queue application of the workers, which are the command as users start it.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from taskq_core import TaskQ
from taskq_core.broker.operations.views import count_tasks

taskq = TaskQ.from_env()


def _compute() -> int:
    total = 0
    for number in range(200_000):
        total += number * number % 7
    return total


@taskq.task(name="bench:compute")
def compute(number: int) -> None:
    """Compute for about ten milliseconds."""
    _compute()


@taskq.task(name="bench:compute_apart", executor="process")
def compute_apart(number: int) -> None:
    """Compute the same in a separate process."""
    _compute()


def drain_computing(
    url: str, *, processes: int, concurrency: int, count: int, is_apart: bool = False
) -> dict[str, float]:
    """Run CPU-bound tasks on all cores with a worker, and measure how many cores it uses.

    Args:
        url: URL of Redis.
        processes: Number of processes of the worker.
        concurrency: Concurrency of each process.
        count: Number of tasks.
        is_apart: Whether each task runs in a separate process.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    app = TaskQ(url)
    name = "bench:compute_apart" if is_apart else "bench:compute"
    command = ["-m", "taskq_core", "worker", "benchmarks.computing:taskq"]
    options = ["--processes", str(processes), "--concurrency", str(concurrency)]
    with subprocess.Popen(
        [sys.executable, *command, *options], env={**os.environ, "TASKQ_URL": url}, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        while worker.stdout.readline() not in ("ready\n", ""):
            pass
        warm = 4 * processes * concurrency
        _run(app, name, warm, 0)
        started = time.perf_counter()
        _run(app, name, count, warm)
        seconds = time.perf_counter() - started
        worker.send_signal(signal.SIGTERM)
        worker.stdout.read()
    return {"tasks_per_s": count / seconds}


def _run(app: TaskQ, name: str, count: int, before: int) -> None:
    task: Any = app.remote(name)
    app.client.enqueue_many(task.s(number=number) for number in range(count))
    while app.runtime.runner.run(count_tasks(app.runtime.keys.queue("default"))).processed < before + count:
        time.sleep(0.005)
