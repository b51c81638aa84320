"""An app with the JSON API, and requests that use each of its routes once."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from fastapi import FastAPI
from httpx import ASGITransport, Response
from httpx import AsyncClient as HttpClient

from taskq_core import TaskQ, chain
from taskq_core.wire import SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo
from taskq_core.workflow import step
from taskq_fastapi import taskq_lifespan, taskq_router
from taskq_fastapi.api import models
from tests.redis_server import RedisServer

PREFIX = "/taskq"
LATER_S = 4_000_000_000
NOW_NS = 1_800_000_000_123_456_000


def api_app(taskq: TaskQ, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(taskq_router(taskq, **{"failed_logins": None, **options}), prefix=PREFIX)
    return app


@asynccontextmanager
async def requests(app: FastAPI) -> AsyncIterator[HttpClient]:
    """A client of the API of an app whose lifespan runs."""
    transport = ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=transport, base_url=f"http://test{PREFIX}") as web,
    ):
        yield web


def populate(taskq: TaskQ, server: RedisServer, word: str = "w") -> None:
    """Create data for each route: tasks, a group, a worker with a running task, a periodic entry with history."""
    note = taskq.remote("note")
    note.using(task_id="1").delay(word=word)
    note.using(task_id=models.ID, run_after=60).delay(word=word)
    note.using(task_id="grouped", aggregate="g").delay(word=word)
    with patch("taskq_core.workflow.sending.new_task_id", lambda: models.ID):
        chain(note.s(word=word), step(note.s(), into="word")).named("onboarding").delay()
    payload = json.dumps({"word": word}).encode()
    entry = SchedulerEntry(id="nightly", spec="@daily", task_type="note", task_payload=payload)
    event = SchedulerEnqueueEvent(task_id="1", enqueue_time_ns=NOW_NS)
    info = ServerInfo(host="h", pid=1, server_id="s", concurrency=2, queues={"default": 1}, start_time_ns=NOW_NS)
    run = WorkerInfo(host="h", pid=1, server_id="s", task_id="1", task_type="note", queue="default")
    client = server.client
    client.sadd("asynq:queues", "default")  # a client that enqueued before a flush does not register the queue again
    asked = json.dumps({"task": "note", "ask": {"word": word}, "schema": {}})
    client.hset("asynq:{default}:t:1", "taskq_steps", "7")
    client.hset("taskq:{default}:steps:1", mapping={"of": "7", "q:pay#1": f"1 {NOW_NS // 10**6} 0 {asked}"})
    client.zadd("taskq:{default}:questions", {"pay#1\n1": NOW_NS // 10**6})
    client.rpush("asynq:schedulers:{h:1:s}", entry.encode())
    client.zadd("asynq:schedulers", {"asynq:schedulers:{h:1:s}": LATER_S})
    client.zadd("asynq:scheduler_history:nightly", {event.encode(): LATER_S})
    client.set("asynq:servers:{h:1:s}", info.encode())
    client.zadd("asynq:servers", {"asynq:servers:{h:1:s}": LATER_S})
    client.hset("asynq:workers:{h:1:s}", "1", run.encode())
    client.zadd("asynq:workers", {"asynq:workers:{h:1:s}": LATER_S})


LOOKS = (
    "/queues",
    "/queues/default",
    "/queues/none",
    "/history?days=3",
    "/history?queue=default",
    "/groups?queue=default",
    "/count?queue=default&state=pending",
    "/tasks",
    "/tasks?queue=default&state=pending",
    "/tasks?queue=default&state=aggregating&group=g",
    "/tasks/search?text=x&name=note",
    "/tasks/search?queue=default&state=pending&name_part=no",
    "/tasks/default/1",
    "/questions",
    "/workers",
    "/schedules",
    "/schedules/nightly/events",
    "/redis",
    "/limits?queue=default",
    "/workflows?queue=default",
    "/workflows/search?text=x",
    f"/workflows/default/{models.ID}",
    f"/workflow-steps/default/{models.ID}?step=note",
    "/samples?span=3600&queue=default",
    "/types?hours=2",
    "/problems",
)
CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("PATCH", "/queues/default", {"paused": True}),
    ("POST", "/tasks/default/1", {"action": "retry", "after": 60}),
    ("POST", "/tasks/default/1/signals/review", {"value": True}),
    ("POST", "/tasks/default/1/questions/1/answer", {"value": True}),
    ("DELETE", "/tasks/default/1/steps/fetch", None),
    ("PATCH", "/tasks/default/1", {"payload": {"value": {"number": 2}}}),
    ("POST", f"/workflows/default/{models.ID}", {"action": "retry"}),
    ("POST", "/tasks/actions", {"action": "run", "filter": {"state": "scheduled"}}),
    ("POST", "/limits", {"queue": "default", "name": "note", "rate": "5/s"}),
    ("DELETE", "/limits?queue=default&name=note", None),
    ("POST", "/schedules", {"id": "new", "spec": "@daily", "task": "note", "remote": True}),
    ("POST", "/schedules/actions", {"action": "pause", "id": "nightly"}),
    ("DELETE", "/schedules?id=new", None),
    ("POST", "/workers/actions", {"action": "quiet", "workers": ["s"]}),
    ("DELETE", "/queues/default?force=true", None),
)


async def send(web: HttpClient, method: str, path: str, body: Any = None, **headers: str) -> Response:
    return await web.request(method, path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
