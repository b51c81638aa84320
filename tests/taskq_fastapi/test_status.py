"""Test the status of a task for an app's clients: the 202 response, polling, and Server-Sent Events."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient

from taskq_core import BrokerError, ConfigurationError, TaskContext, TaskIdConflictError, TaskQ
from taskq_core.handles.subscription import TaskFollower
from taskq_core.inspector import Inspector
from taskq_core.testing import adrain, drain
from taskq_core.views.event_streams import Event, Streams
from taskq_fastapi import AcceptedDep, ClientDep, TaskAccepted, accepted_dep, client_dep, task_router, taskq_lifespan
from taskq_fastapi.testing import capture
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.streams import stream

pytestmark = pytest.mark.redis


@pytest.fixture
def taskq(server: RedisServer) -> TaskQ:
    return TaskQ(
        server.url, enqueue_timeout=30, defaults={"retention": 60, "max_retry": 0}, queues={"default": 1, "a b": 1}
    )


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def work(taskq: TaskQ, gate: asyncio.Event) -> Any:
    @taskq.task(name="work")
    async def work(context: TaskContext, outcome: str = "fine") -> str:
        context.progress(1, 2, "half")
        await gate.wait()
        if outcome != "fine":
            raise ValueError(outcome)
        return outcome

    return work


@pytest.fixture
async def app(taskq: TaskQ) -> AsyncIterator[FastAPI]:
    """Return a client of an app whose lifespan runs and whose router is open to everybody."""
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True, show_errors=True, poll_every=0.1), prefix="/tasks")
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def web(app: FastAPI) -> AsyncIterator[HttpClient]:
    async with HttpClient(transport=ASGITransport(app), base_url="http://test") as web:
        yield web


# --- accepted ---------------------------------------------------------------------------------------------------------


def accepting_app(taskq: TaskQ, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    note = taskq.remote("note")

    @app.post("/notes/{task_id:path}", status_code=202)
    async def create(
        task_id: str, client: ClientDep, accepted: AcceptedDep, queue: str = "default", later: int = 0
    ) -> TaskAccepted:
        return accepted(await client.enqueue(note.using(task_id=task_id, queue=queue, run_after=later).s()))

    return app


def test_an_accepted_task_has_the_address_of_its_status(taskq: TaskQ) -> None:
    app = accepting_app(taskq, lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True), prefix="/tasks")

    with TestClient(app) as web:
        answer = web.post("/notes/1", params={"later": 60})
        status = web.get(answer.json()["status_url"])

    assert answer.status_code == 202
    assert answer.json() == {
        "id": "1",
        "queue": "default",
        "state": "scheduled",
        "status_url": "/tasks/status/default/1",
        "events_url": "/tasks/events/default/1",
        "stream_url": "/tasks/stream/default/1",
    }
    assert answer.headers["location"] == "/tasks/status/default/1"
    assert (status.json()["state"], status.json()["name"]) == ("scheduled", "note")
    assert status.json()["next_run_at"] is not None
    assert (status.headers["cache-control"], status.headers["retry-after"]) == ("no-store", "1")


@pytest.mark.parametrize("task_id", ["a/b", "ü ?#%2F&", "x/events"])
async def test_tasks_with_unusual_ids_have_a_status(taskq: TaskQ, app: FastAPI, web: HttpClient, task_id: str) -> None:
    note = taskq.remote("note")

    @app.post("/one", status_code=202)
    async def create(client: ClientDep, accepted: AcceptedDep) -> TaskAccepted:
        return accepted(await client.enqueue(note.using(task_id=task_id, queue="a b").s()))

    url = (await web.post("/one")).json()["status_url"]

    assert url.startswith("/tasks/status/a%20b/")
    assert (await web.get(url)).json()["id"] == task_id


@pytest.mark.parametrize("where", ["inner", "outer", "nowhere"])
def test_a_mounted_app_links_to_its_status_router_or_that_of_its_parent(taskq: TaskQ, where: str) -> None:
    outer, inner = FastAPI(lifespan=taskq_lifespan(taskq)), accepting_app(taskq)
    outer.mount("/inner", inner)
    if where != "nowhere":
        {"inner": inner, "outer": outer}[where].include_router(task_router(allow_anonymous=True), prefix="/tasks")

    with TestClient(outer, root_path="/proxy") as web:
        accepted = web.post("/proxy/inner/notes/1").json()  # as servers pass it on

    expected = {
        "inner": "/proxy/inner/tasks/status/default/1",
        "outer": "/proxy/tasks/status/default/1",
        "nowhere": None,
    }
    assert accepted["status_url"] == expected[where]


def test_several_queue_applications_have_separate_routers(server: RedisServer, taskq: TaskQ) -> None:
    mail = TaskQ(server.url, prefix="mail", enqueue_timeout=30)
    app = FastAPI(lifespan=taskq_lifespan({"default": taskq, "mail": mail}))
    app.include_router(task_router(allow_anonymous=True), prefix="/tasks")
    app.include_router(task_router(allow_anonymous=True, name="mail"), prefix="/mails")

    @app.post("/mail")
    async def send(
        client: Annotated[Any, Depends(client_dep("mail"))], accepted: Annotated[Any, Depends(accepted_dep("mail"))]
    ) -> TaskAccepted:
        answer: TaskAccepted = accepted(await client.enqueue(mail.remote("send").using(task_id="1").s()))
        return answer

    with TestClient(app) as web:
        url = web.post("/mail").json()["status_url"]

        assert url == "/mails/status/default/1"
        assert web.get(url).status_code == 200
        assert web.get("/tasks/status/default/1").status_code == 404


def test_a_queue_with_a_slash_has_no_route(taskq: TaskQ) -> None:
    app = accepting_app(taskq, lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True))

    with TestClient(app) as web:
        answer = web.post("/notes/1", params={"queue": "a/b"})

    assert answer.json()["status_url"] is None
    assert "location" not in answer.headers


# --- closed -----------------------------------------------------------------------------------------------------------


@rows("path", ["/status/default/1", "/events/default/1", "/events/default/none", "/stream/default/1"])
def test_the_status_routes_are_closed_by_default(taskq: TaskQ, caplog: pytest.LogCaptureFixture, path: str) -> None:
    """The log explains how to open them. Dependencies of the parent router do not open them."""
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(), dependencies=[Depends(lambda: None)])
    caplog.clear()
    with suppress(TaskIdConflictError):  # of the row before
        taskq.remote("note").using(task_id="1").delay()

    with TestClient(app) as web, caplog.at_level(logging.WARNING, "taskq.fastapi"):
        answer = web.get(path)

    assert answer.status_code == 403
    assert answer.json() == {"detail": "access is not configured; the log of the server explains how to allow it"}
    assert "pass dependencies=[Depends(...)]" in caplog.messages[0]
    assert "allow_anonymous=True" in caplog.messages[0]


def test_dependencies_limit_users_to_their_own_tasks(taskq: TaskQ) -> None:
    """Dependencies can use queue and id of the path, and run before the task is read."""

    def own(task_id: str, user: str = "nobody") -> None:
        if not task_id.startswith(f"{user}-"):
            raise HTTPException(403, "not yours")

    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(dependencies=[Depends(own)]))
    taskq.remote("note").using(task_id="ann-1").delay()

    with TestClient(app) as web:
        found = [web.get(f"/{kind}/default/ann-1", params={"user": "bob"}) for kind in ("status", "events")]
        assert [(each.status_code, each.json()["detail"]) for each in found] == [(403, "not yours")] * 2
        assert web.get("/status/default/ann-1", params={"user": "ann"}).json()["id"] == "ann-1"
        assert web.get("/status/default/bob-1", params={"user": "bob"}).status_code == 404


def test_contradicting_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="got both"):
        task_router(dependencies=[Depends(lambda: None)], allow_anonymous=True)
    with pytest.raises(ConfigurationError, match="stream_for"):
        task_router(stream_for=0)


# --- polling ----------------------------------------------------------------------------------------------------------


async def _until(web: HttpClient, url: str, state: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            status = (await web.get(url)).json()
            if status["state"] == state and (state != "active" or status["progress"] is not None):
                return status
            await asyncio.sleep(0)


@pytest.mark.parametrize("outcome", ["fine", "no"])
async def test_a_task_is_followed_by_polling(
    taskq: TaskQ, web: HttpClient, work: Any, gate: asyncio.Event, outcome: str
) -> None:
    handle = await work.adelay(outcome)
    url = f"/tasks/status/default/{handle.id}"
    before = (await web.get(url)).json()
    draining = asyncio.create_task(adrain(taskq, raises=False))
    during = await _until(web, url, "active")
    gate.set()
    await draining
    after = (await web.get(url)).json()

    progress = {"done": 1, "total": 2, "message": "half"}
    assert during["progress"].pop("at")
    assert (before["state"], before["is_final"], before["attempt"], before["progress"]) == ("pending", False, 0, None)
    assert (during["is_final"], during["attempt"], during["progress"], during["result"]) == (False, 1, progress, None)
    assert (after["is_final"], after["attempt"], after["max_attempts"]) == (True, 1, 1)
    assert after["ended_at"] is not None
    if outcome == "fine":
        assert (after["state"], after["result"], after["error"]) == ("completed", "fine", None)
    else:
        assert (after["state"], after["result"], after["error"]) == ("archived", None, "ValueError: no")


async def test_a_task_archived_before_its_first_run_has_no_attempt(taskq: TaskQ, web: HttpClient, work: Any) -> None:
    handle = await work.adelay()
    Inspector(taskq).archive_task("default", handle.id)

    status = (await web.get(f"/tasks/status/default/{handle.id}")).json()

    assert (status["state"], status["attempt"]) == ("archived", 0)


async def test_results_and_errors_are_shown_as_configured(taskq: TaskQ, work: Any, gate: asyncio.Event) -> None:
    gate.set()
    handles = [await work.adelay(), await work.adelay("no")]
    await adrain(taskq, raises=False)
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True), prefix="/results")
    app.include_router(task_router(allow_anonymous=True, show_results=False), prefix="/neither")

    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=ASGITransport(app), base_url="http://test") as web,
    ):
        found = {
            prefix: [(await web.get(f"/{prefix}/status/default/{each.id}")).json() for each in handles]
            for prefix in ("results", "neither")
        }

    assert [(each["result"], each["error"]) for each in found["results"]] == [("fine", None), (None, None)]
    assert [(each["result"], each["error"]) for each in found["neither"]] == [(None, None), (None, None)]


async def test_the_status_shows_what_a_durable_task_waits_for(taskq: TaskQ, web: HttpClient) -> None:
    @taskq.task(name="publish")
    async def publish(context: TaskContext) -> None:
        await context.areceive("review", bool, timeout=60)
        await context.asleep(60)

    handle = await publish.adelay()
    await adrain(taskq)
    first = (await web.get(f"/tasks/status/default/{handle.id}")).json()
    await handle.asignal("review", True)
    await adrain(taskq)
    second = (await web.get(f"/tasks/status/default/{handle.id}")).json()

    signal = {"kind": "signal", "name": "review", "number": 1, "signals": {"review": 1}}
    assert first["wait"] == {**signal, "until": first["next_run_at"]}
    sleep = {"kind": "sleep", "name": "sleep", "number": 0, "signals": {}}
    assert second["wait"] == {**sleep, "until": second["next_run_at"]}


async def test_a_result_that_was_too_large_is_explained(taskq: TaskQ, web: HttpClient) -> None:
    @taskq.task(max_result_bytes=10)
    async def large() -> str:
        return "x" * 20

    handle = await large.adelay()
    await adrain(taskq)

    status = (await web.get(f"/tasks/status/default/{handle.id}")).json()

    assert (status["state"], status["result"]) == ("completed", None)
    assert status["result_error"] == "22 bytes are not stored: the limit is 10 (task option max_result_bytes)"


async def test_a_result_that_is_no_json_is_null(taskq: TaskQ, web: HttpClient) -> None:
    @taskq.task(name="raw")
    def raw(context: TaskContext) -> None:
        context.write_result(b"\xff not JSON")

    handle = await raw.adelay()
    await adrain(taskq)

    status = (await web.get(f"/tasks/status/default/{handle.id}")).json()
    assert (status["state"], status["result"]) == ("completed", None)


@rows("path", ["default/none", "none/none", f"default/{'x' * 300}", "%7Dx/none"])
@rows("kind", ["status", "events"])
async def test_an_unknown_task_is_not_found(web: HttpClient, kind: str, path: str) -> None:
    answer = await web.get(f"/tasks/{kind}/{path}")

    assert answer.status_code == 404
    assert "it ended without retention" in answer.json()["detail"]


async def test_a_silent_redis_is_reported_without_its_address(
    taskq: TaskQ, server: RedisServer, web: HttpClient, work: Any
) -> None:
    handle = await work.adelay()
    taskq.runtime.source.timeout_s = 0.001
    server.pause()
    try:
        answer = await web.get(f"/tasks/status/default/{handle.id}")
    finally:
        server.resume()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"detail": "the queue does not answer"}


async def test_a_damaged_task_is_reported(taskq: TaskQ, server: RedisServer, app: FastAPI, web: HttpClient) -> None:
    """Polling reports it once. A stream waits for a worker to repair or remove the task."""
    await taskq.remote("note").using(task_id="1").adelay()
    server.command("HSET", "asynq:{default}:t:1", "msg", b"\xff\xff")

    answer = await web.get("/tasks/status/default/1")
    async with stream(app, "/tasks/events/default/1") as events:
        trouble = await events.next()
        server.command("DEL", "asynq:{default}:t:1")
        end = await events.next()

    assert (answer.status_code, answer.json()["detail"]) == (503, "the task cannot be read")
    assert (trouble.kind, trouble.data["detail"]) == ("trouble", "the task cannot be read")
    assert (end.kind, end.data["state"]) == ("end", "gone")


async def test_polling_writes_nothing_to_redis(taskq: TaskQ, server: RedisServer, web: HttpClient) -> None:
    await taskq.remote("note").using(task_id="1").adelay()
    before = server.command("HGETALL", "asynq:{default}:t:1")

    await web.get("/tasks/status/default/1")

    assert server.command("HGETALL", "asynq:{default}:t:1") == before


# --- events -----------------------------------------------------------------------------------------------------------


async def test_a_task_is_streamed_to_its_end(taskq: TaskQ, app: FastAPI, work: Any, gate: asyncio.Event) -> None:
    handle = await work.adelay()
    async with stream(app, f"/tasks/events/default/{handle.id}") as events:
        found = [await events.next()]
        draining = asyncio.create_task(adrain(taskq))
        while found[-1].data["progress"] is None:
            found.append(await events.next())
        gate.set()
        while (event := await events.next()) is not None:
            found.append(event)
        await draining

    assert (events.status, events.answer_headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert events.text.startswith("retry: 2000\n\n")
    for event in found:
        assert event.data["progress"] is None or event.data["progress"].pop("at")
    states = [(event.kind, event.data["state"], event.data["progress"], event.data["result"]) for event in found]
    progress = {"done": 1, "total": 2, "message": "half"}
    middle = [("status", "active", None, None)]
    assert states in (
        [
            ("status", "pending", None, None),
            ("status", "active", progress, None),
            ("end", "completed", progress, "fine"),
        ],
        [
            ("status", "pending", None, None),
            *middle,
            ("status", "active", progress, None),
            ("end", "completed", progress, "fine"),
        ],
    )
    assert len({event.id for event in found}) == len(found)


async def test_a_reconnecting_client_receives_only_new_events(
    taskq: TaskQ, app: FastAPI, web: HttpClient, work: Any, gate: asyncio.Event
) -> None:
    """The client sends the id of the last event. It gets no event twice, and no event in between is lost."""
    handle = await work.adelay()
    path = f"/tasks/events/default/{handle.id}"
    async with stream(app, path) as events:
        first = await events.next()
    gate.set()
    async with stream(app, path, last_event_id=first.id) as events:
        await adrain(taskq)
        while (event := await events.next()) is not None:
            assert event.id != first.id
            last = event
    async with stream(app, path, last_event_id=first.id) as events:
        missed = [await events.next(), await events.next()]

    assert (last.kind, last.data["state"]) == ("end", "completed")
    assert missed == [last, None]
    assert (await web.get(path, headers={"last-event-id": last.id})).status_code == 204


async def test_a_stream_ends_at_its_maximum_time_and_continues_after_a_reconnect(
    taskq: TaskQ, work: Any, clock: Clock
) -> None:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True, stream_for=30))
    async with app.router.lifespan_context(app):
        handle = await work.adelay()
        async with stream(app, f"/events/default/{handle.id}", clock=clock) as events:
            first, over = await events.next(), await events.next()
        async with stream(app, f"/events/default/{handle.id}", clock=clock, last_event_id=first.id) as events:
            again = await events.next()

    assert (first.data["state"], over, again) == ("pending", None, None)


async def test_a_quiet_stream_sends_keepalives(app: FastAPI, work: Any, clock: Clock) -> None:
    """Comments, which clients ignore, keep proxies from closing the connection."""
    async with stream(app, f"/tasks/events/default/{(await work.adelay()).id}", clock=clock) as events:
        assert (await events.next()).kind == "status"
        await clock.advance(20)
        assert events.text.count(": keep-alive\n\n") >= 1

    assert events.text.count("event:") == 1


async def test_an_event_stream_tells_how_many_values_were_deleted(taskq: TaskQ, app: FastAPI) -> None:
    """A browser that reconnects after the event `gap` gets the next value, and no second `gap`."""

    @taskq.task(name="count", retention=60, max_emitted=1)
    async def count(context: TaskContext) -> None:
        for number in range(1, 202):
            await context.aemit(number)

    handle = await count.adelay()
    await adrain(taskq)
    async with stream(app, f"/tasks/stream/default/{handle.id}") as events:
        gap, first = await events.next(), await events.next()
    async with stream(app, f"/tasks/stream/default/{handle.id}", last_event_id=gap.id) as events:
        again = await events.next()

    assert (gap.kind, gap.data, again) == ("gap", {"values": first.data["value"] - 1}, first)
    assert first.data["value"] > 100


async def test_the_stream_of_a_task_without_retention_ends_with_the_state_gone(
    taskq: TaskQ, app: FastAPI, web: HttpClient, work: Any, gate: asyncio.Event
) -> None:
    handle = await work.using(retention=0).adelay()
    path = f"/tasks/events/default/{handle.id}"
    gate.set()
    async with stream(app, path) as events:
        first = await events.next()
        await adrain(taskq)
        last = first
        while (event := await events.next()) is not None:
            last = event

    assert (last.kind, last.data["state"], last.data["is_final"]) == ("end", "gone", True)
    async with stream(app, path, last_event_id=first.id) as events:
        assert await events.next() == last
    assert (await web.get(path, headers={"last-event-id": last.id})).status_code == 204


async def test_a_redis_outage_is_reported_and_the_stream_continues_after_it(
    taskq: TaskQ,
    server: RedisServer,
    app: FastAPI,
    work: Any,
    gate: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This includes a stream that begins during the outage. Each stream reports the outage once."""
    tries, look, patience_s = asyncio.Semaphore(0), TaskFollower.find, 30.0

    async def count(self: TaskFollower) -> Any:
        self._patience_s = patience_s
        try:
            return await look(self)
        except BrokerError:
            tries.release()
            raise

    monkeypatch.setattr(TaskFollower, "find", count)
    handle = await work.adelay()
    path = f"/tasks/events/default/{handle.id}"
    async with stream(app, path) as events:
        before = await events.next()
        patience_s = taskq.runtime.source.timeout_s = 0.1  # only during the outage
        server.pause()
        try:
            trouble = await events.next()
            async with stream(app, path) as late:
                late_trouble = await late.next()
                for _ in range(6):  # the first of each stream, and further ones
                    await tries.acquire()
                patience_s = 30.0
                server.resume()
                back = [await events.next(), await late.next()]
        finally:
            server.resume()
        gate.set()
        await adrain(taskq)
        last = before
        while (event := await events.next()) is not None:
            last = event

    expected = ("trouble", None, {"detail": "the queue does not answer"})
    assert [(each.kind, each.id, each.data) for each in (trouble, late_trouble)] == [expected] * 2
    assert [(each.kind, each.id) for each in back] == [("status", before.id)] * 2
    assert (last.kind, last.data["state"]) == ("end", "completed")
    held_up = [message for message in caplog.messages if message.startswith("event stream interrupted")]
    assert len(held_up) == 2


async def test_a_disconnected_client_leaves_no_subscription(taskq: TaskQ, app: FastAPI, work: Any) -> None:
    """The subscription ends, and the stream no longer counts for the limit."""
    limited = FastAPI(lifespan=taskq_lifespan(taskq))
    limited.include_router(task_router(allow_anonymous=True, max_streams=1))
    async with limited.router.lifespan_context(limited):
        path = f"/events/default/{(await work.adelay()).id}"
        async with stream(limited, path) as first:
            await first.next()
            async with stream(limited, path) as refused:
                assert await refused.next() is None
            assert (refused.status, refused.answer_headers["retry-after"]) == (503, "10")
        async with stream(limited, path) as second:
            assert (await second.next()).kind == "status"
        assert not taskq.runtime.source._hub._channels.get(asyncio.get_running_loop())


async def test_200_streams_of_a_task_cost_redis_no_more_than_one(
    taskq: TaskQ, server: RedisServer, work: Any, gate: asyncio.Event, clock: Clock
) -> None:
    """The streams share one subscription and each reading of the task."""
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True, stream_for=300, poll_every=1))
    handle = await work.adelay()
    async with app.router.lifespan_context(app), AsyncExitStack() as stack:
        path = f"/events/default/{handle.id}"
        streams = [await stack.enter_async_context(stream(app, path)) for _ in range(200)]
        firsts = [await each.next() for each in streams]
        await clock.settle()
        server.client.config_resetstat()
        await clock.advance(10)
        looks: Any = server.client.info("commandstats")["cmdstat_evalsha"]
        subscriptions = server.client.client_list(_type="pubsub")
        gate.set()
        draining = asyncio.create_task(adrain(taskq))
        lasts = []
        for each in streams:
            while (event := await each.next()).kind != "end":
                pass
            lasts.append(event)
        await draining

    assert {each.data["state"] for each in firsts} == {"pending"}
    assert {each.data["result"] for each in lasts} == {"fine"}
    assert looks["calls"] <= 20, "one stream looks once a second"
    assert len(subscriptions) == 1


# --- emitted values ---------------------------------------------------------------------------------------------------


@pytest.fixture
def write(taskq: TaskQ, gate: asyncio.Event) -> Any:
    @taskq.task(name="write")
    async def write(context: TaskContext, words: list[str]) -> None:
        await context.astep("first", context.aemit, words[0])
        await gate.wait()
        for word in words[1:]:
            await context.aemit(word)

    return write


async def test_emitted_values_are_streamed_and_a_reconnect_gets_only_the_missing_ones(
    taskq: TaskQ, app: FastAPI, web: HttpClient, write: Any, gate: asyncio.Event
) -> None:
    handle = await write.adelay(["a", "b\nb", "c"])
    path = f"/tasks/stream/default/{handle.id}"
    draining = asyncio.create_task(adrain(taskq))
    async with stream(app, path) as events:
        first = await events.next()
    gate.set()
    await draining

    async with stream(app, path, last_event_id=first.id) as events:
        rest = [await events.next() for _ in range(4)]

    assert (first.kind, first.data) == ("item", {"attempt": 1, "step": "first", "value": "a"})
    assert [(each.kind, each.data.get("value")) for each in rest[:2]] == [("item", "b\nb"), ("item", "c")]
    assert (rest[2].kind, rest[2].data, rest[3]) == ("end", {"state": "completed"}, None)
    assert (await web.get(path, headers={"Last-Event-ID": rest[2].id})).status_code == 204
    assert (await web.get("/tasks/stream/default/none")).status_code == 404
    assert '"a"' in (await web.get(path, headers={"Last-Event-ID": "no id of a value"})).text


async def test_200_readers_of_emitted_values_share_one_subscription(
    taskq: TaskQ, server: RedisServer, write: Any, gate: asyncio.Event
) -> None:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True))
    handle = await write.adelay(["a", "b"])
    async with app.router.lifespan_context(app), AsyncExitStack() as stack:
        draining = asyncio.create_task(adrain(taskq))
        path = f"/stream/default/{handle.id}"
        streams = [await stack.enter_async_context(stream(app, path)) for _ in range(200)]
        firsts = [await each.next() for each in streams]
        [(_, subscriptions)] = server.client.pubsub_numsub(taskq.runtime.keys.queue("default").done)
        gate.set()
        lasts = [[(await each.next()).kind for _ in range(2)] for each in streams]
        await draining
        await asyncio.gather(*(each.next() for each in streams))
        left = taskq.runtime.source._hub._channels.get(asyncio.get_running_loop())

    assert {each.data["value"] for each in firsts} == {"a"}
    assert lasts == [["item", "end"]] * 200
    assert subscriptions == 1
    assert not left


async def test_emitted_values_are_hidden_like_results(taskq: TaskQ, write: Any) -> None:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True, show_results=False))
    handle = await write.adelay(["a"])

    with TestClient(app) as web:
        assert web.get(f"/stream/default/{handle.id}").status_code == 404


async def test_a_stream_over_the_limit_ends_at_once_even_after_its_answer() -> None:
    """Another stream began after the response was started. The client reconnects later."""

    async def read() -> list[Event]:
        return [Event("status", "{}")]

    async def wait(_is_changed: bool, _left_s: float) -> bool:
        return True

    streams = Streams(most=1, life_s=30)
    first, second = (streams.events(read, wait, last_event_id=None) for _ in range(2))

    begun = await anext(first)
    refused = [event async for event in second]
    await first.aclose()

    assert (begun, refused) == ("retry: 2000\n\n", ["retry: 10000\n\n"])
    assert streams.has_room()


def test_the_schema_contains_the_status_routes(taskq: TaskQ) -> None:
    app = accepting_app(taskq)
    app.include_router(task_router(allow_anonymous=True), prefix="/tasks")

    schema = app.openapi()

    events = schema["paths"]["/tasks/events/{queue}/{task_id}"]["get"]
    assert "text/event-stream" in events["responses"]["200"]["content"]
    assert {"200", "403", "404", "503"} <= set(schema["paths"]["/tasks/status/{queue}/{task_id}"]["get"]["responses"])
    assert set(schema["components"]["schemas"]) >= {"TaskAccepted", "TaskStatus"}


def test_the_status_after_drain_is_final(taskq: TaskQ) -> None:
    """Do what a test of an app does: enqueue by a request, run the task, and read the status by another request."""
    app = FastAPI()
    app.include_router(task_router(allow_anonymous=True))

    @taskq.task(name="double")
    def double(n: int) -> int:
        return 2 * n

    @app.post("/double/{n}", status_code=202)
    async def enqueue(n: int, client: ClientDep, accepted: AcceptedDep) -> TaskAccepted:
        return accepted(await client.enqueue(double.s(n)))

    with capture(app, taskq):
        web = TestClient(app)
        url = web.post("/double/4").json()["status_url"]
        drain(taskq)
        assert web.get(url).json()["result"] == 8
