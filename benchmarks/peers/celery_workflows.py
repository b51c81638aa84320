"""Measure workflows and a rate limit on Celery. Run by the interpreter of Celery's environment.

`python -m benchmarks.peers.celery_workflows KIND COUNT` starts a worker as
https://docs.celeryq.dev/en/stable/userguide/optimizing.html recommends for many short tasks: a process for each core, a
large prefetch multiplier, results in Redis only where a workflow needs them. It prints one JSON object of figures.
"""

import functools
import json
import os
import subprocess
import sys
import time
from typing import Any

import redis
from celery import Celery, chain, chord, group

URL = os.environ.get("BENCH_URL", "redis://localhost:1/0")
BROKER = URL.partition("?")[0].replace("unix:", "redis+socket:")
app = Celery("bench", broker=BROKER, backend=BROKER)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    task_track_started=False,
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench:add")  # type: ignore[untyped-decorator]  # Celery is not installed here
def add(number: int) -> int:
    """Return the number plus one."""
    return number + 1


@app.task(name="bench:total")  # type: ignore[untyped-decorator]  # Celery is not installed here
def total(numbers: list[int]) -> int:
    """Return the sum of the numbers."""
    return sum(numbers)


@app.task(name="bench:limited", rate_limit="1000/s", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery is not installed here
def limited(number: int) -> None:
    """Record the second in which the task began."""
    redis_client().hincrby("bench:limited", str(int(time.time())), 1)


def main() -> None:
    """Measure one kind of workflow."""
    kind, count = sys.argv[1], int(sys.argv[2])
    module = "benchmarks.peers.celery_workflows"
    command = [sys.executable, "-m", "celery", "-A", module, "worker", "-c", str(os.cpu_count()), "-l", "ERROR"]
    worker = subprocess.Popen(command, stdout=sys.stderr)
    try:
        app.control.ping(timeout=0.5)
        while not app.control.ping(timeout=0.5):
            if worker.poll() is not None:
                raise SystemExit("the worker has ended")
        add.delay(0).get(timeout=60)
        started = time.perf_counter()
        result = start(kind, count)
        enqueued = time.perf_counter()
        wait(kind, count, result)
        ended = time.perf_counter()
    finally:
        worker.terminate()
        worker.wait()
    figures = {"enqueue_s": enqueued - started, "run_s": ended - enqueued, "whole_s": ended - started}
    figures["steps_per_s"] = count / figures["whole_s"]
    if kind == "limited":
        figures["most_in_a_second"] = max(map(int, redis_client().hvals("bench:limited")))
    print(json.dumps(figures))


def start(kind: str, count: int) -> Any:
    """Enqueue the workflow."""
    if kind == "chain":
        return chain(add.s(0), *(add.s() for _ in range(count - 1))).apply_async()
    if kind == "group":
        return group(add.s(number) for number in range(count)).apply_async()
    if kind == "chord":
        return chord((add.s(number) for number in range(count)), total.s()).apply_async()
    for number in range(count):
        limited.delay(number)
    return None


def wait(kind: str, count: int, result: Any) -> None:
    """Wait for the end of the workflow, and check its result."""
    if kind == "limited":
        while sum(map(int, redis_client().hvals("bench:limited"))) < count:
            time.sleep(0.01)
        return
    # Poll the stored results in Redis, because `get` of a result with so many parents takes longer than the tasks.
    if kind == "group":
        while redis_client().dbsize() < count:
            time.sleep(0.01)
        return
    while not redis_client().exists(f"celery-task-meta-{result.id}"):
        time.sleep(0.01)
    if app.AsyncResult(result.id).get(timeout=60) != (count if kind == "chain" else count * (count + 1) // 2):
        raise SystemExit("the workflow has another result")


@functools.cache
def redis_client() -> Any:
    """Return this process's client of the same Redis."""
    return redis.Redis.from_url(URL)


if __name__ == "__main__":
    main()
