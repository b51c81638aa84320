"""Measure how long the inspector blocks Redis: the longest single call of each operation on very many tasks.

The measured value is the CPU time of Redis's main thread during one call, because other clients wait for that long. It
is read from `/proc`, so that other processes do not change it. On systems without `/proc`, the elapsed time is used.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from taskq_core import TaskQ, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.inspector import Inspector
from taskq_core.wire import build_message, encode_message

_FILL = """
for number = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local id = string.format('%08d-e4df-4dca-b83e-486efdc4096c', number)
  redis.call('ZADD', KEYS[1], tonumber(ARGV[5]) + number % 100000, id)
  redis.call('HSET', ARGV[3] .. id, 'msg', ARGV[4], 'state', 'archived')
end
"""


class Meter:
    """Measures each single call of a blocking runner.

    Args:
        taskq: The application whose calls are measured.
        pid: Process id of its Redis.
    """

    def __init__(self, taskq: TaskQ, pid: int) -> None:
        self._busy = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self.longest_ns = 0
        runner = taskq.runtime.runner
        self._run = runner.run
        runner.run = self._measured  # type: ignore[method-assign]  # this one runner only

    def _measured(self, operation: Operation[Any], **more: Any) -> Any:
        before_ns = self._spent_ns()
        try:
            return self._run(operation, **more)
        finally:
            self.longest_ns = max(self.longest_ns, self._spent_ns() - before_ns)

    def _spent_ns(self) -> int:
        try:
            return int(self._busy.read_text().split()[0])
        except OSError:
            return time.perf_counter_ns()


def longest_calls(url: str, *, count: int) -> dict[str, float]:
    """Archive `count` tasks and run each operation of an inspector on them. Return its longest call in milliseconds."""
    client = redis.Redis.from_url(url)
    taskq = TaskQ(url, enqueue_timeout=60)
    meter = Meter(taskq, client.info("server")["process_id"])
    inspector = Inspector(taskq)
    figures: dict[str, float] = {}

    def measure(name: str, call: Callable[[], object]) -> None:
        meter.longest_ns = 0
        call()
        figures[f"{name}_ms"] = meter.longest_ns / 1e6

    fill(client, count)
    measure("look", lambda: (inspector.queue_info("default"), inspector.memory_usage("default")))
    page = max(1, count // 2000)
    measure("page", lambda: inspector.tasks("default", TaskState.ARCHIVED, page=page, page_size=1000))
    measure("find", lambda: inspector.find_tasks("default", TaskState.ARCHIVED, payload="nobody", scan=count))
    measure("reconcile", lambda: inspector.reconcile("default"))
    measure("run_all", lambda: inspector.run_all("default", TaskState.ARCHIVED))
    measure("move_all", lambda: inspector.move_all("default", TaskState.PENDING, "other"))
    measure("archive_all", lambda: inspector.archive_all("other", TaskState.PENDING))
    fill(client, count)
    measure("delete_all", lambda: inspector.delete_all("default", TaskState.ARCHIVED))
    fill(client, count)
    measure("remove_queue", lambda: inspector.remove_queue("default", force=True))
    taskq.close()
    return figures


def fill(client: "redis.Redis", count: int) -> None:
    """Write tasks directly into the archive of the default queue."""
    payload = json.dumps({"to": "somebody@example.com", "order": 123_456}).encode()
    message = build_message(type="email:deliver", id="0" * 36, queue="default", payload=payload, error_msg="ValueError")
    now_s = int(client.time()[0])
    for first in range(0, count, 5000):
        last = min(first + 5000, count) - 1
        prefix = "asynq:{default}:"
        words = (first, last, f"{prefix}t:", encode_message(message), now_s - 100_000)
        client.eval(_FILL, 1, f"{prefix}archived", *words)
    client.sadd("asynq:queues", "default")
