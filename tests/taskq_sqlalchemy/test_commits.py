"""Test `enqueue_after_commit`: plain and asynchronous sessions, savepoints, several sessions, and errors."""

import asyncio
import gc
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient
from sqlalchemy import Integer, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

from taskq_core import ConfigurationError, Signature, TaskArgumentsError, TaskNotSentError, TaskQ, chain
from taskq_core.tasks.middleware import Middleware
from taskq_core.testing import adrain, capture
from taskq_fastapi import AcceptedDep, TaskAccepted, accepted_dep, task_router, taskq_lifespan
from taskq_sqlalchemy.commits import _Hook, enqueue_after_commit
from tests.redis_server import RedisServer
from tests.taskq_fastapi.looking import pending

pytestmark = pytest.mark.redis


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)


def _begin_in_earnest(engine: Any) -> None:
    """Let SQLAlchemy control the transactions of SQLite, because the driver has no savepoints otherwise."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


async def done(answer: Any) -> Any:
    """Await the result of an asynchronous session. The result of a plain session is already complete."""
    return await answer if inspect.isawaitable(answer) else answer


Make = Callable[[], Any]


@pytest.fixture(params=["plain", "async"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Creates sessions of one type, each on a database that has the table."""
    engines: list[Any] = []

    def make() -> Any:
        path = tmp_path / f"{len(engines)}.db"
        plain = create_engine(f"sqlite:///{path}")
        Base.metadata.create_all(plain)
        if request.param == "plain":
            _begin_in_earnest(plain)
            engines.append(plain)
            return Session(plain)
        plain.dispose()
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        _begin_in_earnest(engine.sync_engine)
        engines.append(engine)
        return AsyncSession(engine)

    yield make
    for engine in engines:
        await done(engine.dispose())


@pytest.fixture
async def session(make: Make) -> AsyncIterator[Any]:
    session = make()
    yield session
    await done(session.close())


@pytest.fixture
def note(taskq: TaskQ) -> Any:
    @taskq.task(name="note", retention=60)
    def note(n: int) -> int:
        return n

    return note


def call(note: Any, name: str) -> Signature[Any]:
    signature: Signature[Any] = note.using(task_id=name).s(1)
    return signature


async def test_a_task_is_enqueued_by_the_commit(server: RedisServer, session: Any, note: Any) -> None:
    """The worker reads the rows of the transaction, and the handle works after the commit."""
    session.add(User(id=7))
    await done(session.flush())

    handle = enqueue_after_commit(session).enqueue(note.s(7))

    assert not handle.is_sent
    assert pending(server) == []
    with pytest.raises(TaskNotSentError, match="when the surrounding transaction commits"):
        handle.result()
    await done(session.commit())
    assert handle.is_sent
    assert pending(server) == [handle.id]
    await adrain(note.enqueuer)
    assert await handle.aresult(timeout=60) == 7


@pytest.mark.parametrize("how", ["rollback", "close", "error"])
async def test_a_task_is_dropped_with_its_transaction(server: RedisServer, session: Any, note: Any, how: str) -> None:
    """The next transaction of the session is independent."""
    session.add(User(id=1))
    await done(session.commit())
    session.add(User(id=1 if how == "error" else 2))
    enqueue_after_commit(session).enqueue(call(note, "dropped"))
    if how == "error":
        with pytest.raises(IntegrityError):
            await done(session.commit())
        await done(session.rollback())
    else:
        await done(getattr(session, how)())
    enqueue_after_commit(session).enqueue(call(note, "kept"))
    await done(session.commit())

    assert pending(server) == ["kept"]


async def test_savepoints_take_their_tasks_with_them(server: RedisServer, session: Any, note: Any) -> None:
    after_commit = enqueue_after_commit(session)
    session.add(User(id=1))
    after_commit.enqueue(call(note, "outer"))
    outer = await done(session.begin_nested())
    after_commit.enqueue(call(note, "released"))
    inner = await done(session.begin_nested())
    after_commit.enqueue(call(note, "rolled back"))
    await done(inner.rollback())
    inner = await done(session.begin_nested())
    after_commit.enqueue(call(note, "inner released"))
    await done(inner.commit())
    await done(outer.commit())
    lost = await done(session.begin_nested())
    inner = await done(session.begin_nested())
    after_commit.enqueue(call(note, "released inside what is lost"))
    await done(inner.commit())
    await done(lost.rollback())

    assert pending(server) == []
    await done(session.commit())
    assert sorted(pending(server)) == ["inner released", "outer", "released"]


async def test_a_savepoint_that_is_open_at_the_commit_is_part_of_it(
    server: RedisServer, session: Any, note: Any
) -> None:
    await done(session.begin_nested())
    enqueue_after_commit(session).enqueue(call(note, "open"))
    await done(session.commit())
    await done(session.begin_nested())
    enqueue_after_commit(session).enqueue(call(note, "lost"))
    await done(session.rollback())

    assert pending(server) == ["open"]


async def test_a_session_that_has_not_begun_sends_at_its_next_commit(
    server: RedisServer, session: Any, note: Any
) -> None:
    enqueue_after_commit(session).enqueue(call(note, "before all"))
    assert pending(server) == []
    await done(session.commit())
    assert pending(server) == ["before all"]

    enqueue_after_commit(session).enqueue(call(note, "before what is rolled back"))
    session.add(User(id=1))
    await done(session.flush())
    await done(session.rollback())
    await done(session.commit())
    assert pending(server) == ["before all"]


async def test_a_task_waits_for_the_commits_of_several_sessions(server: RedisServer, make: Make, note: Any) -> None:
    """The last commit enqueues the task, and a rollback of one session drops it. Other sessions are independent."""
    first, second = make(), make()
    both = enqueue_after_commit(first, second, first)
    both.enqueue(call(note, "both"))
    enqueue_after_commit(first).enqueue(call(note, "first"))
    await done(second.commit())
    assert pending(server) == []
    await done(first.commit())
    assert sorted(pending(server)) == ["both", "first"]

    both.enqueue(call(note, "lost"))
    first.add(User(id=1))
    await done(first.flush())
    await done(first.rollback())
    await done(second.commit())
    await done(first.commit())
    assert sorted(pending(server)) == ["both", "first"]
    for each in (first, second):
        await done(each.close())


async def test_enqueue_many_is_sent_completely_or_not_at_all(
    server: RedisServer, session: Any, taskq: TaskQ, note: Any
) -> None:
    after_commit = enqueue_after_commit(session)
    with pytest.raises(TaskArgumentsError):
        after_commit.enqueue_many([note.s(1), note.s("two")])
    result = after_commit.enqueue_many(note.s(n) for n in range(3))
    assert len(result) == 3
    assert not result[0].is_sent
    assert pending(server) == []

    await done(session.commit())

    assert sorted(pending(server)) == sorted(result.ids)
    other = TaskQ(server.url).task(name="other")(lambda: None)
    for calls in ([], [note.s(1), other.s()]):
        with pytest.raises(ConfigurationError, match="takes calls of one queue application, got"):
            after_commit.enqueue_many(calls)


async def test_a_call_with_invalid_arguments_is_refused_at_once(session: Any, note: Any) -> None:
    with pytest.raises(TaskArgumentsError):
        enqueue_after_commit(session).enqueue(note.s("seven"))
    with pytest.raises(ConfigurationError, match=r"expected a call that was made by task.s\(...\), got int"):
        enqueue_after_commit(session).enqueue(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="got Chain; use enqueue_workflow"):
        enqueue_after_commit(session).enqueue(chain(note.si(1), note.si(2)))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="takes a chain, group or step, got int"):
        enqueue_after_commit(session).enqueue_workflow(7)  # type: ignore[arg-type]


async def test_a_workflow_is_enqueued_by_the_commit(server: RedisServer, session: Any, note: Any) -> None:
    kept = enqueue_after_commit(session).enqueue_workflow(chain(note.si(1), note.si(2)))
    assert not kept.is_sent
    assert pending(server) == []
    await done(session.commit())
    assert (await kept.arefresh()).total == 2

    enqueue_after_commit(session).enqueue_workflow(chain(note.si(3)))
    session.add(User(id=1))
    await done(session.flush())
    await done(session.rollback())
    await done(session.commit())
    assert len(pending(server)) == 1


async def test_middleware_sees_the_call_before_the_commit(session: Any, taskq: TaskQ, note: Any) -> None:
    seen: list[str] = []

    class Look(Middleware):
        def enqueue(self, call: Signature[Any]) -> Signature[Any]:
            seen.append(call.task.name)
            return call.with_headers({"who": "me"})

    taskq.use(Look())
    handle = enqueue_after_commit(session).enqueue(note.s(1))
    assert seen == ["note"]
    await done(session.commit())

    assert (await handle.arefresh()).headers["who"] == "me"


async def test_a_commit_succeeds_while_redis_is_down(
    server: RedisServer, session: Any, taskq: TaskQ, note: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Log and handle have the error without payload, and other waiting tasks are sent."""
    away = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01).task(name="away")(lambda secret: None)
    session.add(User(id=1))
    lost = enqueue_after_commit(session).enqueue(away.s("s3cret"))
    kept = enqueue_after_commit(session).enqueue(note.s(1))

    with caplog.at_level(logging.ERROR, "taskq.sqlalchemy"):
        await done(session.commit())

    assert (await done(session.execute(select(User)))).scalars().one().id == 1
    assert pending(server) == [kept.id]
    with pytest.raises(TaskNotSentError, match="the send after the commit failed"):
        lost.result()
    with pytest.raises(HTTPException, match="503: task 'away' was not enqueued, because") as refused:
        (await accepted_dep()(Request({"type": "http"}), Response()))(lost)
    assert refused.value.__cause__ is lost.send_error
    (message,) = caplog.messages
    assert message.startswith(
        "a task could not be enqueued after the commit, and is lost; an outbox would send it later: "
    )
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("why", ["redis is away", "the queue is full"])
async def test_a_request_answers_503_for_a_task_that_was_not_sent_after_the_commit(
    server: RedisServer, make: Make, why: str
) -> None:
    """The client of the route can retry instead of waiting for a task that does not exist."""
    url = "redis://127.0.0.1:1/0" if why == "redis is away" else server.url
    limits = {"default": 1} if why == "the queue is full" else {}
    taskq = TaskQ(url, enqueue_timeout=0.01 if why == "redis is away" else 30, limits=limits)
    note = taskq.task(name="note")(lambda: None)
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router(allow_anonymous=True))
    session = make()

    @app.post("/notes", status_code=202)
    async def create(accepted: AcceptedDep) -> TaskAccepted:
        handles = [enqueue_after_commit(session).enqueue(note.s()) for _ in range(2)]
        session.add(User(id=1))
        await done(session.commit())
        return accepted(handles[1])

    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=ASGITransport(app), base_url="http://test") as web,
    ):
        answer = await web.post("/notes")
    stored = (await done(session.execute(select(User)))).scalars().all()
    await done(session.close())

    detail, after_s = {
        "redis is away": ("task 'note' was not enqueued, because the queue does not answer", "5"),
        "the queue is full": ("queue 'default' is full", "30"),
    }[why]
    assert (answer.status_code, answer.headers["retry-after"]) == (503, after_s)
    assert answer.json() == {"detail": detail}
    assert [user.id for user in stored] == [1]
    assert len(pending(server)) == (1 if why == "the queue is full" else 0)


async def test_a_silent_redis_does_not_block_the_event_loop(taskq: TaskQ, make: Make, note: Any) -> None:
    """An asynchronous commit does not block the event loop. A plain commit blocks like its database."""
    session = make()
    threads: list[str] = []
    send = taskq.client.send_deferred

    def note_thread(prepared: Any) -> None:
        threads.append(threading.current_thread().name)
        send(prepared)

    taskq.client.send_deferred = note_thread  # type: ignore[method-assign]
    enqueue_after_commit(session).enqueue(note.s(1))
    await done(session.commit())

    is_main = threads == [threading.current_thread().name]
    assert is_main is isinstance(session, Session)
    await done(session.close())


async def test_the_plain_session_of_an_asynchronous_one_is_accepted(
    server: RedisServer, note: Any, tmp_path: Path
) -> None:
    """Code called by `run_sync` uses the plain session."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    async with AsyncSession(engine) as session:
        await session.run_sync(lambda plain: enqueue_after_commit(plain).enqueue(call(note, "inside")))
        await session.commit()
    await engine.dispose()

    assert pending(server) == ["inside"]


async def test_scoped_sessions_are_accepted(server: RedisServer, note: Any, tmp_path: Path) -> None:
    plain, aengine = create_engine("sqlite://"), create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    registry = scoped_session(sessionmaker(plain))
    aregistry = async_scoped_session(async_sessionmaker(aengine), scopefunc=lambda: 1)
    enqueue_after_commit(registry).enqueue(call(note, "plain"))
    enqueue_after_commit(aregistry).enqueue(call(note, "async"))

    registry.commit()
    await aregistry.commit()

    assert sorted(pending(server)) == ["async", "plain"]
    registry.remove()
    await aregistry.remove()
    plain.dispose()
    await aengine.dispose()


async def test_capture_includes_tasks_of_a_commit(session: Any, taskq: TaskQ, note: Any) -> None:
    with capture(taskq) as tasks:
        enqueue_after_commit(session).enqueue(note.s(1))
        tasks.assert_nothing_enqueued()
        await done(session.commit())
        tasks.assert_enqueued(note, 1)


async def test_a_commit_that_is_cancelled_while_it_sends_still_sends_all_tasks(tmp_path: Path) -> None:
    """The commit is cancelled, for example when the client of a request disconnects."""
    sent: list[int] = []
    is_sending, go, is_done = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def send(number: int) -> Callable[[], None]:
        def send() -> None:
            is_sending.set()
            assert go.wait(30)
            sent.append(number)
            if number == 3:
                loop.call_soon_threadsafe(is_done.set)

        return send

    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/cancelled.db")
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        hook = _Hook((session.sync_session,))
        for number in (1, 2, 3):
            hook.defer(send(number), lambda: None)
        committing = asyncio.create_task(session.commit())
        await asyncio.to_thread(is_sending.wait, 30)
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing
        go.set()
        await asyncio.wait_for(is_done.wait(), 30)
    await engine.dispose()

    assert sent == [1, 2, 3]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_session_dropped_without_a_commit_is_logged(
    note: Any, caplog: pytest.LogCaptureFixture, has_begun: bool
) -> None:
    """The connection of the session returns to the pool."""
    engine = create_engine("sqlite://", poolclass=QueuePool)

    def forget() -> None:
        session = Session(engine)
        if has_begun:
            session.execute(text("select 1"))
        enqueue_after_commit(session).enqueue(note.s(1))

    gc.collect()  # collect objects of earlier tests first
    caplog.clear()
    with caplog.at_level(logging.WARNING, "taskq.sqlalchemy"):
        forget()
        gc.collect()

    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # `checkedout` is a method of QueuePool
    engine.dispose()
    assert caplog.messages == ["1 calls were not enqueued: their session was dropped without a commit"]


@pytest.mark.parametrize(
    ("sessions", "message"),
    [((), "takes a session"), (("session",), "takes a Session or AsyncSession of SQLAlchemy, got str")],
)
def test_an_object_that_is_no_session_is_refused(sessions: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        enqueue_after_commit(*sessions)
