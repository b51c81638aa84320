"""A worker that enqueues periodic tasks as well."""

from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import Clock
from tests.probing import get
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, until


async def test_a_worker_with_scheduler_enqueues_and_runs_periodic_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock
) -> None:
    ran: list[int] = []

    @app.periodic("* * * * * *", id="beat")
    @app.task(name="beat")
    async def beat() -> None:
        ran.append(1)

    worker = await start()
    await clock.advance(20)
    await until(lambda: len(ran) >= 2)
    raw: Any = redis_server.client
    assert len(raw.keys("taskq:scheduler:leader:*")) == 1
    assert await start.stop(worker) == 0

    assert raw.keys("taskq:scheduler:leader:*") == raw.keys("asynq:schedulers*") == [], "it gives up the lead"


async def test_the_health_of_a_worker_includes_its_scheduler(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """A problem of its scheduler does not make a worker unhealthy."""
    bad = app.runtime.keys.queue("bad")
    raw: Any = redis_server.client
    raw.set(bad.pending, "no list")
    app.schedule("* * * * * *", app.remote("beat"), id="beat", queue="bad")
    worker = await start(with_scheduler=True, health_port=0)

    async def scheduler_health() -> Any:
        status, body = await get(worker.health_port, "/readyz")
        return body["scheduler"] if status == 200 and body["scheduler"]["status"] == "unready" else None

    scheduler = await until(scheduler_health)
    assert scheduler["leads"] is True
    assert "WRONGTYPE" in scheduler["queues"]["bad"]["problem"]


async def test_a_worker_with_its_scheduler_disabled_enqueues_no_periodic_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock
) -> None:
    @app.periodic("* * * * * *")
    @app.task(name="beat")
    async def beat() -> None: ...

    @app.task(name="other")
    async def other() -> str:
        return "ran"

    await start(with_scheduler=False)
    handle = await other.using(run_after=20).adelay()
    await clock.advance(22)
    assert await handle.aresult(PATIENCE_S) == "ran"

    raw: Any = redis_server.client
    assert raw.keys("taskq:*tick*") == []


async def test_invalid_schedule_entries_prevent_the_start(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = TaskQ(redis_server.url, schedule={"nightly": {"task": "gone", "spec": "@daily"}})

    assert await Worker(app, WorkerConfig()).arun() == 1

    assert "the worker cannot start: SCHEDULE['nightly']: unknown task 'gone'" in caplog.text
    await app.aclose()
