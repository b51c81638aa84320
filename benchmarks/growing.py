"""Measure whether many tasks in Redis, many queues and large messages slow down workers and clients."""

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from benchmarks.asynq import PREFIX, GoProducer
from benchmarks.bounds import fill
from benchmarks.scenarios import PATIENCE_S, app, calls, queue_names
from taskq_core import Signature, TaskQ, TaskState
from taskq_core.wire import Keys
from taskq_core.worker import Worker, WorkerConfig

Figures = dict[str, float]
_PIPELINE = 500


def drain_among(url: str, *, count: int, pending: int = 0, queues: int = 1, size: int = 9) -> Figures:
    """Measure how fast tasks are enqueued, and how fast a worker of 50 coroutines runs the first of them.

    The time is from the start of the first task to the start of the last one.

    Args:
        url: URL of Redis.
        count: Number of tasks to run.
        pending: Number of tasks that wait when the worker starts. 0: `count`.
        queues: Number of queues of the worker. The tasks are evenly spread over them.
        size: Bytes of an argument of each task.
    """
    taskq = TaskQ(url, enqueue_timeout=PATIENCE_S)
    ran, began, ended = 0, 0.0, 0.0
    worker: Worker

    @taskq.task(name="bench:counted", headers={"tenant": "acme"})
    async def counted(number: int, text: str) -> None:
        nonlocal ran, began, ended
        ran += 1
        if ran == 1:
            began = time.perf_counter()
        elif ran == count:
            ended = time.perf_counter()
            worker.stop()

    names, text, pending = queue_names(queues), "x" * size, pending or count
    tasks = [counted.using(queue=name) for name in names]
    started = time.perf_counter()
    taskq.client.enqueue_many(Signature(tasks[number % queues], (number, text), {}) for number in range(pending))
    enqueue_s = time.perf_counter() - started
    worker = Worker(taskq, WorkerConfig(queues=names, concurrency=50))
    with redis.Redis.from_url(url) as client:
        before_s = _cpu_s(client)
        worker.run()
        spent_s = _cpu_s(client) - before_s
    taskq.close()
    return {
        "tasks_per_s": count / (ended - began),
        "enqueued_per_s": pending / enqueue_s,
        "redis_cpu_us": spent_s / ran * 1e6,
    }


def _cpu_s(client: "redis.Redis") -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def due_among(url: str, *, others: int, per_s: int, seconds: int) -> Figures:
    """Measure how late scheduled tasks start, while `others` tasks are scheduled for later days.

    `per_s` tasks are due in each second, for some seconds. The worker runs in this process.
    """
    taskq = TaskQ(url, enqueue_timeout=PATIENCE_S)
    late: list[float] = []
    worker: Worker

    @taskq.task(name="bench:due")
    async def run(due_s: int) -> None:
        late.append(time.time() - due_s)
        if len(late) == per_s * seconds:
            worker.stop()

    queue = taskq.runtime.keys.queue("default")
    with redis.Redis.from_url(url) as client:
        tomorrow_s = int(time.time()) + 86_400
        fill(client, queue, TaskState.SCHEDULED, others, listed="", sorted_set=queue.scheduled, score=tomorrow_s)
    first = int(time.time()) + 3
    for due_s in range(first, first + seconds):
        task = run.using(run_after=datetime.fromtimestamp(due_s, UTC))
        taskq.client.enqueue_many(Signature(task, (due_s,), {}) for _ in range(per_s))
    worker = Worker(taskq, WorkerConfig(concurrency=50))
    worker.run()
    taskq.close()
    late.sort()
    return {
        "median_ms": statistics.median(late) * 1e3,
        "p99_ms": late[int(len(late) * 0.99)] * 1e3,
        "earliest_ms": late[0] * 1e3,
        "tasks": len(late),
    }


def waiting_memory(url: str, *, count: int, state: str) -> Figures:
    """Measure the bytes of Redis that a waiting task takes, stored by taskq and stored as Go Asynq's client does.

    Args:
        url: URL of Redis.
        count: Number of tasks. taskq and Go's client store the same ids and messages, one after the other.
        state: `pending` or `scheduled`.
    """
    taskq = app(url)
    task: Any = taskq.tasks["bench:plain"]
    if state == "scheduled":
        task = task.using(run_after=timedelta(days=1))
    with redis.Redis.from_url(url) as client:
        taskq.client.enqueue_many(calls(taskq, "bench:plain", 200))  # loads the scripts and opens the connections
        producer = GoProducer(client)
        client.flushdb()
        before = _used(client)
        taskq.client.enqueue_many(Signature(task, (number, "some text"), {}) for number in range(count))
        ours = (_used(client) - before) / count
        stored = list(_stored(client, state))
        if len(stored) != count:
            raise SystemExit(f"only {len(stored)} of {count} tasks are stored")

        client.flushdb()
        client.sadd(Keys().queues, "default")
        before = _used(client)
        for first in range(0, count, _PIPELINE):
            pipeline = client.pipeline(transaction=False)
            for task_id, message, start_s in stored[first : first + _PIPELINE]:
                if state == "pending":
                    producer.enqueue(task_id, message, pipeline=pipeline)
                else:
                    producer.schedule(task_id, message, start_s, pipeline=pipeline)
            pipeline.execute()
        go = (_used(client) - before) / count
    taskq.close()
    return {"ours_bytes": ours, "go_bytes": go, "share_percent": ours / go * 100}


def _used(client: "redis.Redis") -> int:
    """Return the bytes that Redis has allocated, without the buffers of its clients."""
    memory = client.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


def _stored(client: "redis.Redis", state: str) -> Iterator[tuple[str, bytes, int]]:
    """Yield the id, the message and the start time of all tasks in a state."""
    listed: Any
    if state == "pending":
        listed = [(task_id, 0) for task_id in client.lrange(f"{PREFIX}pending", 0, -1)]
    else:
        listed = client.zrange(f"{PREFIX}scheduled", 0, -1, withscores=True)
    for first in range(0, len(listed), _PIPELINE):
        part = [(task_id.decode(), int(start_s)) for task_id, start_s in listed[first : first + _PIPELINE]]
        pipeline = client.pipeline(transaction=False)
        for task_id, _ in part:
            pipeline.hget(f"{PREFIX}t:{task_id}", "msg")
        for (task_id, start_s), message in zip(part, pipeline.execute(), strict=True):
            yield task_id, message, start_s
