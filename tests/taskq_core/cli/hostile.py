"""Data of a hostile producer: names and texts that would control a terminal or act as markup."""

import json
import re
from typing import Any

from taskq_core import TaskQ
from taskq_core.wire import SchedulerEntry, ServerInfo, WorkerInfo
from taskq_core.workflow import Workflow
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

EVIL = "\x1b]0;owned\x07\x1b[31m[b]x[/b][@click=app.quit]q[/] [/nope] [red $primary %d {0} \u202e\x9b2J\r\n\ttab"
STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def store_hostile(taskq: TaskQ, redis_server: RedisServer) -> None:
    """Create a queue, tasks, a worker, a schedule and a workflow with hostile names and data."""
    client = taskq.client
    queue = "[b]q[/b]"
    handle = client.enqueue(taskq.remote("type", queue=queue, task_id="[red]id", headers={"evil": EVIL}).s(text=EVIL))
    put(redis_server, handle, "archived", score=4_000_000_000, error_msg=EVIL, retried=1, type=EVIL)
    attempt = {"attempt": 1, "worker": EVIL, "started": 1, "ended": 2, "error": EVIL, "traceback": f"{EVIL}\n{EVIL}"}
    progress = {"done": 1, "total": 2, "message": EVIL, "at": 1}
    fields = {"taskq_attempts": json.dumps(attempt), "taskq_progress": json.dumps(progress), "result": EVIL.encode()}
    redis_server.client.hset(f"asynq:{{{queue}}}:t:[red]id", mapping=fields)
    now = 1_900_000_000
    who = {"host": EVIL, "pid": 1, "server_id": "s"}
    info = ServerInfo(
        **who,
        concurrency=3,
        queues={EVIL: 1},
        start_time_ns=now * 10**9,
        active_worker_count=1,
        status=EVIL[:9],  # type: ignore[arg-type]
    )
    redis_server.client.set("asynq:servers:{h:1:s}", info.encode())
    redis_server.client.zadd("asynq:servers", {"asynq:servers:{h:1:s}": 4_000_000_000})
    redis_server.client.zadd("asynq:workers", {"asynq:workers:{h:1:s}": 4_000_000_000})
    run = WorkerInfo(
        **who,
        task_id=EVIL,
        task_type=EVIL,
        queue=EVIL,
        start_time_ns=now * 10**9,
        deadline_ns=now * 10**9,  # type: ignore[arg-type]
    )
    redis_server.client.hset("asynq:workers:{h:1:s}", "t", run.encode())
    entry = SchedulerEntry(
        id=EVIL,
        spec=EVIL,
        task_type=EVIL,
        task_payload=EVIL.encode(),
        enqueue_options=(EVIL,),
        next_enqueue_time_ns=now * 10**9,
        prev_enqueue_time_ns=now * 10**9,
    )
    key = taskq.runtime.keys.scheduler("h", 1, "s")
    redis_server.client.rpush(key, entry.encode())
    redis_server.client.zadd(taskq.runtime.keys.schedulers, {key: 4_000_000_000})
    call = taskq.remote("t", queue=queue)
    handle = taskq.enqueue_workflow(Workflow("w").step("one", call.s()).step("two", call.s(), after="one"))
    key = taskq.runtime.keys.queue(handle.queue).workflow(handle.id)
    spec: Any = redis_server.client.hget(key, "spec")
    redis_server.client.hset(
        key, mapping={"name": "[b]w[/b] [/nope]", "spec": spec.replace(b'"one"', b'"[red]one[/]"')}
    )
