import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient

from taskq_core import BrokerAuthenticationError, ConfigurationError, EnqueueError, TaskQ
from taskq_core.errors import EmbeddedRedisError
from taskq_fastapi import ClientDep, SyncClientDep, client_dep, taskq_lifespan
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.looking import connections, pending

pytestmark = pytest.mark.redis


def welcoming_app(taskq: TaskQ, **arguments: Any) -> FastAPI:
    app = FastAPI(**arguments)

    @taskq.task(name="email:deliver")
    def send_email(to: str) -> None: ...

    @app.post("/signup")
    async def signup(to: str, client: ClientDep) -> str:
        return (await client.enqueue(send_email.s(to=to))).id

    @app.post("/signup-blocking")
    def signup_blocking(to: str, client: SyncClientDep) -> str:
        return client.enqueue(send_email.s(to=to)).id

    return app


@rows("path", ["/signup", "/signup-blocking"])
def test_a_route_enqueues_a_task(server: RedisServer, taskq: TaskQ, path: str) -> None:
    """Coroutine routes and plain routes enqueue with their injected client."""
    app = welcoming_app(taskq, lifespan=taskq_lifespan(taskq))

    with TestClient(app) as web:
        task_id = web.post(path, params={"to": "a@b.c"}).json()

    assert pending(server) == [task_id]


def test_connections_are_closed_at_the_end(server: RedisServer, taskq: TaskQ) -> None:
    """The lifespan opens a connection before the first request, and closes the connections of both clients."""
    app = welcoming_app(taskq, lifespan=taskq_lifespan(taskq))

    with TestClient(app) as web:
        at_start = connections(server, expected=1)
        web.post("/signup", params={"to": "a@b.c"})
        web.post("/signup-blocking", params={"to": "a@b.c"})
        in_use = connections(server, expected=2)

    assert (at_start, in_use) == (1, 2)
    assert connections(server, expected=0) == 0


def test_an_app_starts_again_after_its_end(server: RedisServer, taskq: TaskQ) -> None:
    app = welcoming_app(taskq, lifespan=taskq_lifespan(taskq))

    for _ in range(2):
        with TestClient(app) as web:
            assert web.post("/signup", params={"to": "a@b.c"}).status_code == 200

    assert len(pending(server)) == 2


def test_the_users_lifespan_runs_inside(server: RedisServer, taskq: TaskQ) -> None:
    """It can enqueue at start and end, and requests receive the state that it yields."""
    note = taskq.remote("note")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        await note.using(task_id="at-start").adelay()
        yield {"greeting": "hello"}
        await note.using(task_id="at-end").adelay()

    app = FastAPI(lifespan=taskq_lifespan(taskq, lifespan=lifespan))

    @app.get("/")
    async def greet(request: Request) -> str:
        return str(request.state.greeting)

    with TestClient(app) as web:
        assert web.get("/").json() == "hello"
        assert pending(server) == ["at-start"]
    assert sorted(pending(server)) == ["at-end", "at-start"]
    assert connections(server, expected=0) == 0


def test_a_users_lifespan_without_state_is_fine(taskq: TaskQ) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append("start")
        yield
        seen.append("end")

    with TestClient(welcoming_app(taskq, lifespan=taskq_lifespan(taskq, lifespan=lifespan))) as web:
        assert web.post("/signup", params={"to": "a@b.c"}).status_code == 200

    assert seen == ["start", "end"]


def test_connections_are_closed_when_the_users_lifespan_fails(server: RedisServer, taskq: TaskQ) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no configuration")
        yield

    app = FastAPI(lifespan=taskq_lifespan(taskq, lifespan=lifespan))

    with pytest.raises(LookupError, match="no configuration"), TestClient(app):
        pass

    assert connections(server, expected=0) == 0


def test_the_app_starts_while_redis_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the address without its password. Enqueueing works as soon as Redis is up."""
    with RedisServer(password="s3cret") as server:
        server.stop()
        taskq = TaskQ(server.url, enqueue_timeout=0.001)
        app = welcoming_app(taskq, lifespan=taskq_lifespan(taskq))

        with caplog.at_level(logging.WARNING, "taskq.fastapi"), TestClient(app) as web:
            with pytest.raises(EnqueueError, match="email:deliver"):
                web.post("/signup", params={"to": "a@b.c"})
            server.start()
            taskq.runtime.async_client._sender.timeout_s = 30
            after = web.post("/signup", params={"to": "a@b.c"})

        assert after.status_code == 200
        assert pending(server) == [after.json()]
    [warning] = caplog.messages
    assert warning.startswith(
        "the app starts without Redis, and enqueueing fails until Redis is available: cannot reach unix:"
    )
    assert "s3cret" not in warning


def test_a_refused_password_ends_the_start() -> None:
    """Waiting cannot fix it, so the error is raised at once. The message contains no password."""
    with RedisServer(password="s3cret") as server:
        taskq = TaskQ(server.url.replace("s3cret", "wr0ng"))

        with (
            pytest.raises(BrokerAuthenticationError, match="refused the user or password") as refusal,
            TestClient(FastAPI(lifespan=taskq_lifespan(taskq))),
        ):
            pass

    assert "wr0ng" not in str(refusal.value)


def test_an_embedded_server_that_cannot_start_ends_the_start(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    taskq = TaskQ("embedded://", embedded_folder=tmp_path / "file")

    with pytest.raises(EmbeddedRedisError), TestClient(FastAPI(lifespan=taskq_lifespan(taskq))):
        pass


def test_several_queue_applications_are_opened_and_closed(server: RedisServer, taskq: TaskQ) -> None:
    """Each is opened and closed once, even if it has two names."""
    other = TaskQ(server.url, prefix="other", enqueue_timeout=30)
    app = FastAPI(lifespan=taskq_lifespan({"default": taskq, "other": other, "again": other}))

    with TestClient(app):
        assert connections(server, expected=2) == 2

    assert connections(server, expected=0) == 0


@rows("how", ["nested", "router"])
def test_nested_lifespans_are_combined(server: RedisServer, taskq: TaskQ, how: str) -> None:
    """A lifespan around another one, or that of an included router, adds its queue applications."""
    other = TaskQ(server.url, prefix="other", enqueue_timeout=30)
    if how == "nested":
        app = welcoming_app(taskq, lifespan=taskq_lifespan({"other": other}, lifespan=taskq_lifespan(taskq)))
    else:
        app = welcoming_app(taskq, lifespan=taskq_lifespan(taskq))
        app.include_router(APIRouter(lifespan=taskq_lifespan({"other": other})))
    ask_other = client_dep("other")

    @app.get("/names")
    async def names(request: Request, client: ClientDep) -> list[bool]:
        return [client is taskq.async_client, await ask_other(request) is other.async_client]

    with TestClient(app) as web:
        assert web.get("/names").json() == [True, True]


@rows(
    ("wrong", "message"),
    [
        (FastAPI(), "takes the queue application, not the app: FastAPI(lifespan=taskq_lifespan(taskq))"),
        ("redis://:s3cret@localhost", "takes a TaskQ or a mapping of names to them, got str"),
        ({}, "takes a TaskQ or a mapping of names to them, got an empty mapping"),
        ({"mail": "redis://:s3cret@localhost"}, "takes a mapping of names to TaskQ, got str for 'mail'"),
        ({1: TaskQ()}, "takes a mapping of names to TaskQ, got the name 1"),
    ],
    ids=["app", "url", "empty", "url-by-name", "number-as-name"],
)
def test_a_wrong_argument_is_refused_at_once(wrong: Any, message: str) -> None:
    """The message names the expected argument and never contains the password of a URL."""
    with pytest.raises(ConfigurationError) as refusal:
        taskq_lifespan(wrong)

    assert message in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
