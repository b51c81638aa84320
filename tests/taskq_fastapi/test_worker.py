"""Test a worker in the process of an app: it runs tasks, `/readyz` reports it, and it is restarted if it dies."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient

from taskq_core import ConfigurationError, TaskContext, TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.worker import Worker, WorkerConfig, background
from taskq_fastapi import ClientDep, health_router, taskq_lifespan
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.looking import connections, pending

pytestmark = pytest.mark.redis


@pytest.fixture
def taskq(server: RedisServer) -> TaskQ:
    return TaskQ(server.url, enqueue_timeout=30, defaults={"retention": 60})


@asynccontextmanager
async def served(taskq: Any, worker: Any = True, *, lifespan: Any = None, **health: Any) -> AsyncIterator[HttpClient]:
    """A client of an app with a worker, whose lifespan runs."""
    app = FastAPI(lifespan=taskq_lifespan(taskq, worker=worker, lifespan=lifespan))
    app.include_router(health_router(**health))
    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=ASGITransport(app), base_url="http://test") as web,
    ):
        yield web


async def until(web: HttpClient, wanted: Callable[[Any], bool], *, status: int) -> Any:
    """Ask `/readyz` until it answers as wanted."""
    async with asyncio.timeout(30):
        while True:
            answer = await web.get("/readyz")
            if answer.status_code == status and wanted(answer.json()):
                return answer.json()
            await asyncio.sleep(0)


async def test_the_worker_runs_a_scheduler_for_periodic_tasks_of_included_modules(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hourly_tasks.py").write_text(
        "from taskq_core.app import applications\n"
        "(taskq,) = (each for each in applications() if each.settings.include == ('hourly_tasks',))\n"
        "taskq.schedule('@hourly', taskq.task(name='hourly')(lambda: None), id='hourly')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    taskq = TaskQ(server.url, include=["hourly_tasks"])

    async with served(taskq):
        assert set(taskq.tasks) == {"hourly"}
        inspector = AsyncInspector(taskq)
        async with asyncio.timeout(30):
            while [entry.id for entry in await inspector.scheduler_entries()] != ["hourly"]:
                pass
    sys.modules.pop("hourly_tasks")


async def test_a_worker_without_tasks_causes_a_warning(taskq: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    async with served(taskq):
        pass

    assert "no tasks are registered" in caplog.text


async def test_the_worker_runs_tasks_of_the_app_and_reports_readiness(server: RedisServer, taskq: TaskQ) -> None:
    names: list[str] = []

    @taskq.task(name="work")
    async def work(context: TaskContext) -> str:
        names.append(threading.current_thread().name)
        return str(context.state["opened"])

    @taskq.worker_lifespan
    async def opened() -> AsyncIterator[dict[str, str]]:
        yield {"opened": "by the worker"}

    async with served(taskq) as web:
        handle = await work.adelay()
        assert await handle.aresult(timeout=30) == "by the worker"
        ready = await until(web, lambda body: True, status=200)
        alive = await web.get("/livez")

    assert ready == {"status": "ready", "workers": {"default": {"status": "ready", "restarts": 0}}}
    assert alive.json() == {"status": "alive"}
    assert names != [threading.current_thread().name]
    assert await asyncio.to_thread(connections, server, expected=0) == 0


async def test_a_failed_worker_is_reported_and_replaced(
    taskq: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds for every cause of the failure, and no task is lost."""
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.2)
    now_s = 0.0
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: now_s, sleep=time.sleep))
    lives: list[int] = []
    work = Worker._work

    async def die(self: Worker, state: Any) -> None:
        lives.append(1)
        if len(lives) == 1:
            raise SystemExit("out of luck")
        if len(lives) == 2:
            raise ConnectionError("s3cret")
        await work(self, state)

    monkeypatch.setattr(Worker, "_work", die)

    @taskq.task(name="work")
    def run() -> int:
        return 1

    async with served(taskq, show_details=True) as web:
        handle = await run.adelay()
        await until(web, lambda body: "SystemExit" in str(body), status=503)
        now_s += 0.2
        dead = await until(web, lambda body: "ConnectionError" in str(body), status=503)
        now_s += 0.4
        assert await handle.aresult(timeout=30) == 1
        ready = await until(web, lambda body: True, status=200)

    assert dead["status"] == "unready"
    worker_status = dead["workers"]["default"]
    assert (worker_status["status"], worker_status["restarts"]) == ("restarting", 2)
    assert worker_status["reason"].startswith("the worker failed with ConnectionError; a new worker starts in ")
    assert "s3cret" not in str(dead)
    assert (ready["workers"]["default"]["status"], ready["workers"]["default"]["restarts"]) == ("ready", 2)
    assert [message for message in caplog.messages if "the worker" in message] == ["the worker failed"] * 2
    assert [message for message in caplog.messages if "a new worker" in message] == [
        "a new worker starts in 0.2 s",
        "a new worker starts in 0.4 s",
    ]


async def test_a_redis_outage_is_reported_and_the_worker_starts_after_it(caplog: pytest.LogCaptureFixture) -> None:
    """The app starts at once."""
    with RedisServer() as server:
        taskq = TaskQ(server.url, enqueue_timeout=30)
        server.stop()
        async with served(taskq) as web:
            away = await until(web, lambda body: body["workers"]["default"]["status"] == "waiting", status=503)
            server.start()
            await until(web, lambda body: True, status=200)

    assert away["workers"]["default"] == {"status": "waiting", "restarts": 0}, "no address to those who may not know it"
    assert len([message for message in caplog.messages if "the worker waits for Redis" in message]) == 1


async def test_the_app_stops_the_worker_before_its_own_lifespan_ends(server: RedisServer, taskq: TaskQ) -> None:
    """A running task gets the grace; what does not end in it is given back."""
    happened: list[str] = []
    running, release = threading.Event(), threading.Event()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        yield
        happened.append("the app's lifespan ends")

    @taskq.task(name="finish", task_id="finish")
    async def finish() -> None:
        running.set()
        await asyncio.to_thread(release.wait)
        happened.append("the task ends")

    @taskq.task(name="hold", task_id="hold")
    async def hold() -> None:
        await asyncio.Event().wait()

    config = replace(WorkerConfig.from_settings(taskq.settings), shutdown_grace=1)
    async with served(taskq, config, lifespan=own):
        await hold.adelay()
        await finish.adelay()
        await asyncio.to_thread(running.wait, 30)
        release.set()

    assert happened == ["the task ends", "the app's lifespan ends"]
    assert pending(server) == ["hold"]


def test_several_queue_applications_have_workers_of_their_own(server: RedisServer, taskq: TaskQ) -> None:
    mail = TaskQ(server.url, prefix="mail", enqueue_timeout=30, defaults={"retention": 60})
    send = mail.task(name="send")(lambda: "sent")
    app = FastAPI(lifespan=taskq_lifespan({"default": taskq, "mail": mail}, worker={"mail": True, "default": False}))
    app.include_router(health_router())
    inner = FastAPI()
    inner.include_router(health_router())
    app.mount("/inner", inner)

    @app.post("/")
    def route() -> object:
        return send.delay().result(timeout=30)

    with TestClient(app) as web:
        assert web.post("/").json() == "sent"
        assert set(web.get("/readyz").json()["workers"]) == {"mail"}
        assert set(web.get("/inner/readyz").json()["workers"]) == {"mail"}, "a sub-app tells of those around it"


def test_an_app_without_a_worker_is_ready(taskq: TaskQ) -> None:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(health_router())

    @app.post("/")
    async def route(client: ClientDep) -> None: ...

    with TestClient(app) as web:
        answer = web.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "workers": {}})


async def test_a_worker_that_cannot_start_is_reported_permanently(
    taskq: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration error needs a person to fix it. The app continues."""

    def refuse(*args: Any, **kwargs: Any) -> Worker:
        raise ConfigurationError("no such queue")

    monkeypatch.setattr("taskq_fastapi.lifespan.Worker", refuse)
    async with served(taskq, show_details=True) as web:
        stopped = await until(web, lambda body: body["workers"]["default"]["status"] == "stopped", status=503)

    assert stopped["workers"]["default"] == {"status": "stopped", "reason": "the worker cannot start", "restarts": 0}


@rows(
    ("worker", "message"),
    [
        ({"mail": True}, "worker= has 'mail', which is not a queue application; known are 'default'"),
        (4, "worker= takes True or a WorkerConfig, got int"),
        ({"default": "yes"}, "worker= takes True or a WorkerConfig, got str"),
    ],
)
def test_a_wrong_worker_is_refused_at_once(taskq: TaskQ, worker: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        taskq_lifespan(taskq, worker=worker)
