"""Measure how long single calls block Redis if a queue is very full: `python -m benchmarks.bounds`.

The script fills a queue of a private Redis: with a million archived tasks, a million pending tasks, a hundred thousand
active tasks of a worker that died, and a hundred thousand scheduled tasks that are due. Then a worker with all its
services works on the queue, while an operator lists and changes tasks. At the end, the script prints the longest calls
from Redis's slow log. During a call, Redis answers no other client.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import redis

from taskq_core import Signature, TaskQ, TaskState
from taskq_core.broker.scripts import all_scripts
from taskq_core.errors import TaskQError
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from taskq_core.wire.messages import build_message, encode_message
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer

_FILL = """
local first, count, state, message, score = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
for number = first, first + count - 1 do
  local id = state .. '-' .. number
  local own = string.gsub(message, string.rep('@', 20), string.format('%-20s', id))
  redis.call('HSET', ARGV[1] .. id, 'msg', own, 'state', state)
  if KEYS[1] ~= '' then
    redis.call('LPUSH', KEYS[1], id)
  end
  if KEYS[2] ~= '' then
    redis.call('ZADD', KEYS[2], score + number % 1000, id)
  end
end
"""
CHUNK = 5_000
TASK = "bench:nothing"


def fill(
    client: "redis.Redis",
    queue: QueueKeys,
    state: TaskState,
    count: int,
    *,
    listed: str,
    sorted_set: str,
    score: int | None = None,
) -> None:
    """Store tasks that end at once when they run, in a list, a sorted set, or both.

    Scores are times within a quarter of an hour, which begins at `score` (Unix seconds; default: one hour ago).
    """
    message = encode_message(
        build_message(type=TASK, payload=b"{}", id="@" * 20, queue=queue.name, retry=1, timeout=1800)
    )
    script: Any = client.register_script(_FILL)
    if score is None:
        score = int(time.time()) - 3600
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        script(keys=[listed, sorted_set], args=[queue.task_prefix, first, size, state.value, message, score])


def longest_calls(server: RedisServer) -> dict[str, float]:
    """Return the milliseconds of the longest call of each script and command since the slow log was reset."""
    names = {script.sha: script.name for script in all_scripts()}
    found: dict[str, float] = {}
    for entry in server.client.slowlog_get(100_000):
        words = bytes(entry["command"]).split(b" ")
        name = words[0].decode().lower()
        if name == "evalsha":
            name = names.get(words[1].decode(), "evalsha")
        elif name == "eval":  # the first call of a script, which sends its text
            text = b" ".join(words[1:]).decode(errors="replace")
            name = next((script.name for script in all_scripts() if script.text.startswith(text[:100])), "eval")
        found[name] = max(found.get(name, 0.0), entry["duration"] / 1000)
    return found


def people(app: TaskQ, scale: float) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield actions that an operator performs on the full queue, each with its name."""
    inspector = Inspector(app)
    states = (TaskState.PENDING, TaskState.ACTIVE, TaskState.ARCHIVED, TaskState.SCHEDULED)
    yield "queue_infos", inspector.queue_infos
    yield "memory_usage", lambda: inspector.memory_usage("default")
    for state in states:
        yield f"first page of {state}", partial(inspector.tasks, "default", state)
        yield f"page 1000 of {state}", partial(inspector.tasks, "default", state, page=1000)
        yield f"search in {state}", partial(inspector.find_tasks, "default", state, name="none")
    yield "read one", lambda: inspector.task("default", f"pending-{round(450_000 * scale)}")
    for number in range(3):
        yield (
            "delete a pending task",
            partial(inspector.delete_task, "default", f"pending-{round(400_000 * scale) + number}"),
        )
        yield (
            "archive a pending task",
            partial(inspector.archive_task, "default", f"pending-{round(500_000 * scale) + number}"),
        )
        yield (
            "run an archived task",
            partial(inspector.run_task, "default", f"archived-{round(900_000 * scale) + number}"),
        )
    yield (
        "move a pending task",
        lambda: inspector.move_task("default", f"pending-{round(300_000 * scale)}", "elsewhere"),
    )
    yield "enqueue many", lambda: app.client.enqueue_many(Signature(app.tasks[TASK], (), {}) for _ in range(20_000))


def measure(scale: float) -> dict[str, Any]:
    """Fill the queue, run the worker and the operator's actions, and return the figures."""
    counts = {
        TaskState.ARCHIVED: int(1_000_000 * scale),
        TaskState.PENDING: int(1_000_000 * scale),
        TaskState.ACTIVE: int(100_000 * scale),
        TaskState.SCHEDULED: int(100_000 * scale),
    }
    with RedisServer() as server:
        app = TaskQ(server.url)

        @app.task(name=TASK, retention=0)
        async def nothing() -> None: ...

        queue = app.runtime.keys.queue("default")
        server.client.sadd(app.runtime.keys.queues, "default", "elsewhere")
        places = {
            TaskState.ARCHIVED: ("", queue.archived),
            TaskState.PENDING: (queue.pending, ""),
            TaskState.ACTIVE: (queue.active, queue.lease),
            TaskState.SCHEDULED: ("", queue.scheduled),
        }
        for state, (listed, sorted_set) in places.items():
            fill(server.client, queue, state, counts[state], listed=listed, sorted_set=sorted_set)
        server.client.config_set("slowlog-max-len", "100000")
        server.client.config_set("slowlog-log-slower-than", "1000")
        with contextlib.suppress(PermissionError):  # so that other processes do not delay Redis
            os.sched_setscheduler(server.pid, os.SCHED_RR, os.sched_param(10))
        server.client.slowlog_reset()
        config = WorkerConfig(concurrency=50, recover_every=0.1, clean_every=0.1, reconcile_every=1)
        worker = Worker(app, config)
        working = threading.Thread(target=worker.run, daemon=True)
        working.start()
        refusals: list[str] = []
        for name, act in people(app, scale):
            try:
                act()
            except TaskQError as error:
                refusals.append(f"{name}: {error}")
        until = time.monotonic() + 600
        while server.client.zcard(queue.lease) > 1000 and time.monotonic() < until:
            time.sleep(0.5)  # until the recoverer has returned the tasks of the lost worker to the queue
        report = app_report(app)
        left = {state.value: Inspector(app).count("default", state) for state in counts}
        worker.stop()
        working.join()
        app.close()
        return {
            "redis": server.client.info("server")["redis_version"],
            "filled": {state.value: count for state, count in counts.items()},
            "left": left,
            "refused": refusals,
            "looked_at_by_reconcile": report,
            "longest_ms": dict(sorted(longest_calls(server).items(), key=lambda pair: -pair[1])),
        }


def app_report(app: TaskQ) -> int:
    """Reconcile the whole queue as a worker does, and return the number of tasks that were read."""
    return Inspector(app).reconcile("default").scanned


def main() -> int:
    """Measure all calls, and print the longest ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the numbers of tasks above (default 1)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    report = measure(options.scale)
    report |= {"python": platform.python_version(), "command": "python -m benchmarks.bounds " + " ".join(sys.argv[1:])}
    for name, value in report.items():
        if name != "longest_ms":
            print(f"{name:>22}: {value}")
    for name, value in report["longest_ms"].items():
        print(f"{name:>22}: {value:8.1f} ms")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
