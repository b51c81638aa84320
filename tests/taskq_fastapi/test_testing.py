"""Test `taskq_fastapi.testing`: routes with captured or eager tasks, without Redis and without the lifespan."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient

from taskq_core import AsyncClient, Client, ConfigurationError, TaskContext, TaskQ, testing
from taskq_fastapi import ClientDep, SyncClientDep, client_dep, enable_depends, sync_client_dep, taskq_lifespan
from taskq_fastapi.testing import adrain, capture, eager, override_clients, override_dependencies


@pytest.fixture
def taskq() -> TaskQ:
    return TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01)


@pytest.fixture
def double(taskq: TaskQ) -> Any:
    return taskq.task(name="double", retention=60)(lambda n: 2 * n)


@pytest.fixture
def app(taskq: TaskQ, double: Any) -> FastAPI:
    app = FastAPI(lifespan=taskq_lifespan(taskq))

    @app.post("/double/{n}")
    async def enqueue(n: int, client: ClientDep) -> str:
        return (await client.enqueue(double.s(n))).id

    @app.post("/blocking/{n}")
    def enqueue_blocking(n: int, client: SyncClientDep) -> str:
        return client.enqueue(double.s(n)).id

    @app.post("/result/{n}")
    async def result(n: int) -> int:
        handle = await double.adelay(n)
        return int(await handle.aresult(timeout=60))

    return app


def test_tasks_of_routes_are_captured_without_the_lifespan(app: FastAPI, taskq: TaskQ, double: Any) -> None:
    with capture(app, taskq) as tasks:
        web = TestClient(app)
        ids = [web.post("/double/1").json(), web.post("/blocking/2").json()]

    assert [task.id for task in tasks.enqueued] == ids
    tasks.assert_enqueued(double.s(1))
    tasks.assert_enqueued(double.s(2))


@pytest.mark.parametrize("helper", [capture, eager])
def test_swapped_arguments_are_refused(app: FastAPI, taskq: TaskQ, helper: Any) -> None:
    expected = r"expected a FastAPI app and then a TaskQ, as in capture\(app, taskq\), got TaskQ and FastAPI"
    with pytest.raises(ConfigurationError, match=expected), helper(taskq, app):
        pass


def test_tasks_of_routes_are_captured_with_the_lifespan(app: FastAPI, taskq: TaskQ, double: Any) -> None:
    """The lifespan uses the store in memory and does not close it."""
    with testing.capture(taskq) as tasks:
        with TestClient(app) as web:
            web.post("/double/1")
        tasks.assert_enqueued(double, 1)


def test_eager_tasks_run_inside_the_request(app: FastAPI, taskq: TaskQ) -> None:
    with eager(app, taskq) as tasks:
        assert TestClient(app).post("/result/4").json() == 8

    assert [run.outcome for run in tasks.runs] == ["completed"]


def test_a_failing_task_fails_the_test_and_not_the_request(app: FastAPI, taskq: TaskQ) -> None:
    @taskq.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    @app.post("/fail")
    async def route(client: ClientDep) -> None:
        await client.enqueue(fail.s())

    def request() -> None:
        assert TestClient(app).post("/fail").status_code == 200

    with pytest.raises(ValueError, match="no"), eager(app, taskq):
        request()


def test_overrides_are_restored_after_the_block(app: FastAPI, taskq: TaskQ) -> None:
    def other() -> str:
        return "another double"

    app.dependency_overrides[sync_client_dep()] = other

    with override_clients(app, taskq):
        assert set(app.dependency_overrides) == {client_dep(), sync_client_dep()}

    assert app.dependency_overrides == {sync_client_dep(): other}


def test_tasks_of_named_clients_are_captured(taskq: TaskQ, double: Any) -> None:
    app = FastAPI()

    @app.post("/")
    async def route(
        client: Annotated[AsyncClient, Depends(client_dep("mail"))],
        blocking: Annotated[Client, Depends(sync_client_dep("mail"))],
    ) -> None:
        await client.enqueue(double.s(1))

    with capture(app, taskq, name="mail") as tasks:
        TestClient(app).post("/")
    tasks.assert_enqueued(double, 1)

    with capture(app, taskq), pytest.raises(ConfigurationError, match="no queue application"):
        TestClient(app).post("/")


def greeting() -> str:
    return "real"


def test_dependencies_of_tasks_and_routes_are_overridden_inside_the_block(app: FastAPI, taskq: TaskQ) -> None:
    depends = enable_depends(taskq)
    depends.dependency_overrides[greeting] = lambda: "for good"
    found: list[str] = []

    @taskq.task(name="greet")
    async def greet(word: str = Depends(greeting)) -> None:
        found.append(word)

    @app.post("/greet")
    async def route(client: ClientDep, word: str = Depends(greeting)) -> str:
        await client.enqueue(greet.s())
        return word

    with capture(app, taskq) as tasks:
        with override_dependencies(taskq, {greeting: lambda: "double"}, app=app):
            assert TestClient(app).post("/greet").json() == "double"
            tasks.run()
        assert TestClient(app).post("/greet").json() == "real"
        tasks.run()

    assert found == ["double", "for good"]


async def test_tasks_of_an_app_behind_httpx_are_captured(app: FastAPI, taskq: TaskQ, double: Any) -> None:
    """`ASGITransport` runs no lifespan; tasks run on the test's own event loop, or in a worker on it."""
    async with HttpClient(transport=ASGITransport(app), base_url="http://test") as web:
        with capture(app, taskq) as tasks:
            await web.post("/double/1")
            await web.post("/blocking/2")
            tasks.assert_enqueued(double, 1)
            assert [run.outcome for run in await tasks.arun()] == ["completed"] * 2
            await web.post("/double/3")
            assert [run.outcome for run in await adrain(taskq)] == ["completed"]


def test_tasks_receive_the_given_state(app: FastAPI, taskq: TaskQ) -> None:
    found: list[object] = []

    @taskq.task(name="look")
    def look(context: TaskContext) -> None:
        found.append(context.state["a"])

    @app.post("/look")
    async def route(client: ClientDep) -> None:
        await client.enqueue(look.s())

    with capture(app, taskq, state={"a": 1}) as tasks:
        TestClient(app).post("/look")
        tasks.run()
    with eager(app, taskq, state={"a": 2}):
        TestClient(app).post("/look")

    assert found == [1, 2]
