import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient

import taskq_core.warnings
from taskq_core import AsyncClient, BlockingEnqueueWarning, Client, ConfigurationError, TaskQ, group
from taskq_fastapi import ClientDep, SyncClientDep, client_dep, sync_client_dep, taskq_lifespan
from tests.redis_server import RedisServer
from tests.taskq_fastapi.looking import pending

MailClient = Annotated[AsyncClient, Depends(client_dep("mail"))]
MailSyncClient = Annotated[Client, Depends(sync_client_dep("mail"))]


def add_routes(app: FastAPI, taskq: TaskQ) -> None:
    note = taskq.remote("note")

    @app.post("/notes")
    async def create(client: ClientDep) -> str:
        return (await client.enqueue(note.s())).id


@pytest.mark.redis
def test_named_clients_belong_to_their_queue_application(server: RedisServer, taskq: TaskQ) -> None:
    """Each name returns the clients of the queue application that the lifespan has under this name."""
    mail = TaskQ(server.url, prefix="mail", enqueue_timeout=30)
    app = FastAPI(lifespan=taskq_lifespan({"default": taskq, "mail": mail}))
    note, mail_note = taskq.remote("note"), mail.remote("note")

    @app.post("/notes")
    async def create(client: ClientDep, mail_client: MailClient) -> list[str]:
        return [(await client.enqueue(note.s())).id, (await mail_client.enqueue(mail_note.s())).id]

    @app.post("/notes-blocking")
    def create_blocking(client: SyncClientDep, mail_client: MailSyncClient) -> list[str]:
        return [client.enqueue(note.s()).id, mail_client.enqueue(mail_note.s()).id]

    with TestClient(app) as web:
        for path in ("/notes", "/notes-blocking"):
            server.flushall()

            default_id, mail_id = web.post(path).json()

            assert pending(server) == [default_id]
            assert pending(server, prefix="mail") == [mail_id]


@pytest.mark.redis
def test_a_websocket_enqueues(server: RedisServer, taskq: TaskQ) -> None:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    note = taskq.remote("note")

    @app.websocket("/ws")
    async def talk(socket: WebSocket, client: ClientDep) -> None:
        await socket.accept()
        await socket.send_text((await client.enqueue(note.s())).id)
        await socket.close()

    with TestClient(app) as web, web.websocket_connect("/ws") as socket:
        task_id = socket.receive_text()

    assert pending(server) == [task_id]


@pytest.mark.redis
def test_a_mounted_app_uses_its_parents_queue_application(server: RedisServer, taskq: TaskQ) -> None:
    """This works at any depth, and for routes and WebSockets."""
    outer, middle, inner = FastAPI(lifespan=taskq_lifespan(taskq)), FastAPI(), FastAPI()
    outer.mount("/middle", middle)
    middle.mount("/inner", inner)
    add_routes(inner, taskq)

    with TestClient(outer) as web:
        task_id = web.post("/middle/inner/notes").json()

    assert pending(server) == [task_id]


@pytest.mark.redis
def test_a_mounted_app_with_its_own_lifespan_uses_that_lifespan(server: RedisServer, taskq: TaskQ) -> None:
    """If the parent runs the lifespan of the sub-app, the queue applications of the sub-app take precedence."""
    mail = TaskQ(server.url, prefix="mail", enqueue_timeout=30)
    inner = FastAPI(lifespan=taskq_lifespan(mail))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    outer = FastAPI(lifespan=taskq_lifespan(taskq, lifespan=lifespan))
    outer.mount("/inner", inner)
    add_routes(outer, taskq)
    add_routes(inner, mail)

    with TestClient(outer) as web:
        inner_id = web.post("/inner/notes").json()
        outer_id = web.post("/notes").json()

    assert pending(server, prefix="mail") == [inner_id]
    assert pending(server) == [outer_id]


@pytest.mark.redis
def test_two_apps_in_one_process_are_independent(server: RedisServer, taskq: TaskQ) -> None:
    other = TaskQ(server.url, prefix="other", enqueue_timeout=30)
    first, second = FastAPI(lifespan=taskq_lifespan(taskq)), FastAPI(lifespan=taskq_lifespan(other))
    add_routes(first, taskq)
    add_routes(second, other)

    with TestClient(first) as first_web, TestClient(second) as second_web:
        first_id, second_id = first_web.post("/notes").json(), second_web.post("/notes").json()

    assert pending(server) == [first_id]
    assert pending(server, prefix="other") == [second_id]


@pytest.mark.redis
async def test_a_lifespan_run_by_hand_is_enough(server: RedisServer, taskq: TaskQ) -> None:
    """Tests with httpx run the lifespan without a server that passes on its state."""
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    add_routes(app, taskq)

    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=ASGITransport(app), base_url="http://test") as web,
    ):
        task_id = (await web.post("/notes")).json()

    assert pending(server) == [task_id]


@pytest.mark.redis
def test_a_plain_route_cannot_take_the_client_of_coroutines(server: RedisServer, taskq: TaskQ) -> None:
    """Calls of the asynchronous client would never be awaited, so the request would succeed and enqueue nothing."""
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    router = APIRouter()
    note = taskq.remote("note")

    def service(client: ClientDep) -> AsyncClient:
        return client

    @router.post("/plain")
    def create_plainly(client: ClientDep) -> None:
        client.enqueue(note.s())  # type: ignore[unused-coroutine]  # the error under test

    @router.post("/service")
    async def create(client: Annotated[AsyncClient, Depends(service)]) -> str:
        return (await client.enqueue(note.s())).id

    app.include_router(router)

    with TestClient(app) as web:
        with pytest.raises(ConfigurationError, match=r"create_plainly is a `def` route .* use SyncClientDep"):
            web.post("/plain")
        task_id = web.post("/service").json()

    assert pending(server) == [task_id]


@pytest.mark.redis
@pytest.mark.parametrize("many", [False, True])
def test_the_blocking_client_in_a_coroutine_warns_like_delay(
    server: RedisServer, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    monkeypatch.setattr(taskq_core.warnings, "_warned_of_blocking", False)
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    note = taskq.remote("note")

    @app.post("/notes")
    async def create(client: SyncClientDep) -> None:
        if many:
            client.enqueue_many([note.s()])
        else:
            client.enqueue(note.s())

    with TestClient(app) as web, pytest.warns(BlockingEnqueueWarning, match="ClientDep") as caught:
        assert web.post("/notes").status_code == 200

    assert caught[0].filename == __file__
    assert len(pending(server)) == 1


@pytest.mark.redis
def test_a_client_refuses_the_task_of_another_queue_application(server: RedisServer, taskq: TaskQ) -> None:
    """The task would go to the wrong queue, whose workers do not know it."""
    foreign, note = TaskQ(server.url, prefix="other").remote("note"), taskq.remote("note")

    for refused in (
        lambda: taskq.client.enqueue(foreign.s()),
        lambda: taskq.client.enqueue_many([note.s(), foreign.s()]),
        lambda: asyncio.run(taskq.async_client.enqueue(foreign.s())),
        lambda: (note.s() | foreign.s()).delay(),
        lambda: group([note.s(), foreign.s()]).delay(),
    ):
        with pytest.raises(ConfigurationError, match="task 'note' belongs to another TaskQ than this client"):
            refused()

    assert pending(server) == pending(server, prefix="other") == []


class Double:
    """Replaces a client in tests of an app."""

    def __init__(self) -> None:
        self.enqueued: list[str] = []

    async def enqueue(self, call: Any) -> None:
        self.enqueued.append(call.task.name)


class BlockingDouble:
    """Replaces a blocking client."""

    def __init__(self) -> None:
        self.enqueued: list[str] = []

    def enqueue(self, call: Any) -> None:
        self.enqueued.append(call.task.name)


def test_overrides_replace_clients() -> None:
    """Such a test needs neither Redis nor a lifespan. The override also applies to dependencies made by name."""
    app = FastAPI()
    note = TaskQ().remote("note")

    @app.post("/notes")
    async def create(client: ClientDep, mail_client: MailClient) -> None:
        await client.enqueue(note.s())
        await mail_client.enqueue(note.s())

    @app.post("/notes-blocking")
    def create_blocking(client: SyncClientDep) -> None:
        client.enqueue(note.s())

    doubles = Double(), Double(), BlockingDouble()
    app.dependency_overrides = {
        client_dep(): lambda: doubles[0],
        client_dep("mail"): lambda: doubles[1],
        sync_client_dep(): lambda: doubles[2],
    }
    web = TestClient(app)

    assert web.post("/notes").status_code == 200
    assert web.post("/notes-blocking").status_code == 200

    assert [double.enqueued for double in doubles] == [["note"], ["note"], ["note"]]


def test_a_missing_lifespan_is_explained() -> None:
    """The message names the fix, also for lifespans that do not run."""
    app = FastAPI()
    add_routes(app, TaskQ())

    with pytest.raises(ConfigurationError) as missing:
        TestClient(app).post("/notes")

    assert str(missing.value) == (
        "this request has no queue application: create the app with FastAPI(lifespan=taskq_lifespan(taskq)). "
        "If you did, the lifespan did not run: a mounted sub-app needs taskq_lifespan on its outer app, "
        "and a test needs `with TestClient(app)`, or `capture(app, taskq)` of taskq_fastapi.testing"
    )


@pytest.mark.redis
def test_an_unknown_name_is_explained(server: RedisServer) -> None:
    app = FastAPI(lifespan=taskq_lifespan({"mail": TaskQ(server.url), "reports": TaskQ(server.url)}))
    add_routes(app, TaskQ())

    with TestClient(app) as web, pytest.raises(ConfigurationError) as unknown:
        web.post("/notes")

    assert str(unknown.value) == (
        "no queue application is named 'default'; known are 'mail', 'reports'. "
        "Ask for one with client_dep('mail'), or add 'default' to the mapping given to taskq_lifespan"
    )
