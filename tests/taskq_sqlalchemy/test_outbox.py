"""Test what only SQLAlchemy's outbox has. `tests/taskq_core/client/test_outbox.py` tests all outboxes."""

import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from fastapi import FastAPI
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

import taskq_core.warnings
from taskq_core import BlockingEnqueueWarning, ConfigurationError, TaskQ, chain
from taskq_fastapi import task_router, taskq_lifespan
from taskq_sqlalchemy import OutboxTaskMixin, SQLAlchemyOutbox, enqueue_after_commit
from taskq_sqlalchemy.places import place_of
from tests.outboxes import Base, OutboxTask
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.looking import pending

pytestmark = pytest.mark.redis
AWAY = "unix:///nowhere/at/all.sock"


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[SQLAlchemyOutbox]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    outbox = SQLAlchemyOutbox(engine, OutboxTask)
    yield outbox
    outbox.close()
    await engine.dispose()


def note_of(taskq: TaskQ) -> Any:
    @taskq.task(name="note")
    async def note(n: int) -> None: ...

    return note


async def test_a_coroutine_without_a_session_writes_a_row(server: RedisServer, outbox: SQLAlchemyOutbox) -> None:
    """The rows are sent at once if Redis answers."""
    taskq = TaskQ(AWAY, enqueue_timeout=0.01, outbox=outbox)
    note = note_of(taskq)
    handle = await note.adelay(1)
    await taskq.async_client.enqueue_many(note.s(n) for n in (2, 3))
    await chain(note.si(4), note.si(5)).adelay()
    (table,) = outbox.tables()

    assert table.figures().waiting == 4
    assert handle.is_late
    reachable = TaskQ(server.url, outbox=outbox)
    assert (await note_of(reachable).adelay(6)).is_sent
    assert (table.figures().waiting, len(pending(server))) == (4, 1)
    reachable.close()


def test_without_its_table_the_outbox_says_what_creates_it(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    engine = create_engine(f"sqlite:///{path}")
    outbox = SQLAlchemyOutbox(engine, OutboxTask)
    note = note_of(TaskQ(AWAY, outbox=outbox))
    told = f"^database '{path}' has no table 'taskq_outbox', or an outdated one .*; create it with a migration"

    with pytest.raises(ConfigurationError, match=told):
        note.delay(1)
    with pytest.raises(ConfigurationError, match=told):
        outbox.tables()[0].figures()
    with Session(engine) as session:
        enqueue_after_commit(session).enqueue(note.s(2))
        with pytest.raises(ConfigurationError, match=told):
            session.commit()
        session.rollback()
        with pytest.raises(OperationalError, match="no such table: orders"):
            session.execute(text("SELECT * FROM orders"))


async def test_without_its_table_the_outbox_of_an_asynchronous_engine_says_what_creates_it(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    outbox = SQLAlchemyOutbox(engine, OutboxTask)
    note = note_of(TaskQ(AWAY, outbox=outbox))

    with pytest.raises(ConfigurationError, match="has no table 'taskq_outbox'"):
        await note.adelay(1)
    async with AsyncSession(engine) as session:
        enqueue_after_commit(session).enqueue(note.s(2))
        with pytest.raises(ConfigurationError, match="has no table 'taskq_outbox'"):
            await session.commit()
    outbox.close()
    await engine.dispose()


async def test_status_routes_report_a_task_that_waits_in_the_outbox(
    server: RedisServer, outbox: SQLAlchemyOutbox
) -> None:
    """The status is not "gone", because clients would treat the task as ended."""
    handle = await note_of(TaskQ(AWAY, enqueue_timeout=0.01, outbox=outbox)).adelay(1)
    app = FastAPI(lifespan=taskq_lifespan(TaskQ(server.url, outbox=outbox)))
    app.include_router(task_router(allow_anonymous=True, stream_for=0.01))

    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=ASGITransport(app), base_url="http://test") as web,
    ):
        status = await web.get(f"/status/default/{handle.id}")
        events = await web.get(f"/events/default/{handle.id}")
        stream = await web.get(f"/stream/default/{handle.id}")
        elsewhere = await web.get(f"/status/other/{handle.id}")

    assert status.json()["state"] == "pending"
    assert '"state":"pending"' in events.text
    assert (stream.status_code, stream.text) == (200, "retry: 2000\n\n")
    assert elsewhere.status_code == 404


async def test_a_plain_engine_serves_asynchronous_sessions(server: RedisServer, tmp_path: Path) -> None:
    """A commit returns its connection before the outbox takes one, so a pool of one connection is enough."""
    plain = create_engine(f"sqlite:///{tmp_path}/shop.db", poolclass=QueuePool, pool_size=1, max_overflow=0)
    Base.metadata.create_all(plain)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    taskq = TaskQ(server.url, outbox=SQLAlchemyOutbox(plain, OutboxTask))
    note = note_of(taskq)

    with Session(plain) as session, session.begin():
        session.execute(text("select 1"))
        first = enqueue_after_commit(session).enqueue(note.s(1))
    async with AsyncSession(engine) as asynchronous, asynchronous.begin():
        second = enqueue_after_commit(asynchronous).enqueue(note.s(2))

    assert sorted(pending(server)) == sorted([first.id, second.id])
    taskq.close()
    plain.dispose()
    await engine.dispose()


async def test_only_a_row_outside_of_a_session_blocks_the_event_loop(
    server: RedisServer, outbox: SQLAlchemyOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskq_core.warnings, "_warned_of_blocking", False)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    taskq = TaskQ(server.url, outbox=outbox)
    note = note_of(taskq)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with AsyncSession(engine) as session, session.begin():
            enqueue_after_commit(session).enqueue(note.s(1))
            enqueue_after_commit(session).enqueue_many([note.s(2)])
    with pytest.warns(BlockingEnqueueWarning):
        note.delay(3)

    taskq.close()
    await engine.dispose()


async def test_closing_the_application_closes_the_pool_of_the_outbox(
    server: RedisServer, outbox: SQLAlchemyOutbox
) -> None:
    """A test can then drop its database. The next use opens a new pool."""
    taskq = TaskQ(server.url, outbox=outbox)
    note = note_of(taskq)

    for _ in range(2):
        await note.adelay(1)
        assert "taskq-outbox" in {thread.name for thread in threading.enumerate()}
        await taskq.aclose()
        for thread in threading.enumerate():
            if thread.name == "taskq-outbox":
                thread.join(30)
        assert "taskq-outbox" not in {thread.name for thread in threading.enumerate()}
    assert len(pending(server)) == 2


async def test_the_pool_of_the_outbox_has_the_execution_options_of_the_engine(tmp_path: Path) -> None:
    """An example is the schema translation of a project with one schema per tenant."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    elsewhere = engine.execution_options(schema_translate_map={None: "tenant"})
    outbox = SQLAlchemyOutbox(elsewhere, OutboxTask)

    with pytest.raises(ConfigurationError, match=r"no such table: tenant\.taskq_outbox"):
        outbox.tables()[0].figures()
    outbox.close()
    await engine.dispose()


async def test_the_setting_can_turn_an_outbox_off(server: RedisServer, outbox: SQLAlchemyOutbox) -> None:
    """Tasks are sent to Redis again, and no worker relays rows."""
    taskq = TaskQ.from_env({"TASKQ_URL": AWAY, "TASKQ_ENQUEUE": "on_commit"}, outbox=outbox)

    assert taskq.outbox_tables == ()
    assert TaskQ(AWAY, outbox=outbox).outbox_tables == outbox.tables()


async def test_several_sessions_are_refused(outbox: SQLAlchemyOutbox) -> None:
    note = note_of(TaskQ(AWAY, outbox=outbox))
    both = enqueue_after_commit(Session(), Session())

    with pytest.raises(ConfigurationError, match="in the transaction of one session, but got 2 sessions"):
        both.enqueue(note.s(1))


@pytest.fixture
def two_databases(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    engines = create_engine(f"sqlite:///{tmp_path}/shop.db"), create_engine(f"sqlite:///{tmp_path}/test.db")
    for engine in engines:
        Base.metadata.create_all(engine)
    yield engines
    for engine in engines:
        engine.dispose()


def test_a_session_on_another_database_than_the_outbox_is_refused(two_databases: tuple[Engine, Engine]) -> None:
    """No relay would read the row. Tests that replace the engine of the sessions also replace that of the outbox."""
    shop, test = two_databases
    outbox = SQLAlchemyOutbox(shop, OutboxTask)
    note = note_of(TaskQ(AWAY, outbox=outbox))

    with Session(test) as session:
        session.execute(text("select 1"))
        both = r"the session writes the outbox row to sqlite:///.*/test\.db, but the outbox reads sqlite:///.*/shop\.db"
        for enqueue in (
            lambda: enqueue_after_commit(session).enqueue(note.s(1)),
            lambda: enqueue_after_commit(session).enqueue_many([note.s(1)]),
            lambda: enqueue_after_commit(session).enqueue_workflow(chain(note.si(1), note.si(2))),
        ):
            with pytest.raises(ConfigurationError, match=both):
                enqueue()
        assert not session.new
        with outbox.use_engine(test):
            enqueue_after_commit(session).enqueue(note.s(2))
            session.commit()
            assert outbox.tables()[0].figures().waiting == 1
    assert outbox.tables()[0].figures().waiting == 0


def test_a_routing_session_is_checked_when_it_writes_the_row(two_databases: tuple[Engine, Engine]) -> None:
    """Only the flush shows which engine such a session uses. Reads from a replica are allowed."""
    shop, test = two_databases
    note = note_of(TaskQ(AWAY, outbox=SQLAlchemyOutbox(shop, OutboxTask)))

    class Routing(Session):
        primary = shop

        def get_bind(self, *words: Any, **more: Any) -> Any:
            return self.primary if self._flushing else test

    with Routing() as session:
        enqueue_after_commit(session).enqueue(note.s(1))
        session.commit()
        Routing.primary = test
        enqueue_after_commit(session).enqueue(note.s(2))
        with pytest.raises(ConfigurationError, match="so no worker would send the task"):
            session.commit()


def test_a_schema_of_another_tenant_is_another_database(two_databases: tuple[Engine, Engine]) -> None:
    shop, _ = two_databases
    tenant = shop.execution_options(schema_translate_map={None: "tenant"})
    note = note_of(TaskQ(AWAY, outbox=SQLAlchemyOutbox(shop, OutboxTask)))

    with (
        Session(tenant) as session,
        pytest.raises(ConfigurationError, match=r"shop\.db, schema 'tenant', but the outbox reads .*shop\.db, so"),
    ):
        enqueue_after_commit(session).enqueue(note.s(1))


@rows(
    ("one", "other", "is_same"),
    [
        ("postgresql+psycopg://ada:secret@localhost/shop", "postgresql+asyncpg://eve@127.0.0.1:5432/shop", True),
        ("postgresql+psycopg:///shop?host=/run/postgresql", "postgresql+psycopg://localhost/shop", True),
        ("postgresql+psycopg://ada:secret@db/shop", "postgresql+psycopg://ada:secret@replica/shop", False),
        ("postgresql+psycopg://db/shop", "postgresql+psycopg://db/test_shop", False),
        ("postgresql+psycopg://db/shop", "postgresql+psycopg://db:6432/shop", False),
        ("sqlite:///shop.db", "sqlite:///file:shop.db?uri=true", True),
        ("sqlite://", "sqlite://", False),
    ],
)
def test_databases_are_compared_by_address_and_shown_without_password(one: str, other: str, is_same: bool) -> None:
    table = OutboxTask.__table__
    places = [
        place_of(create_engine(each.replace("asyncpg", "psycopg")), table)  # type: ignore[arg-type]  # a Table
        for each in (one, other)
    ]

    assert (places[0] == places[1]) is is_same
    assert "secret" not in f"{places}"


def test_a_connection_of_an_in_memory_engine_is_the_database_of_the_engine() -> None:
    engine = create_engine("sqlite://")
    table: Any = OutboxTask.__table__
    with engine.connect() as connection:
        assert place_of(connection, table) == place_of(engine.execution_options(stream_results=True), table)
    engine.dispose()


def test_an_invalid_engine_or_model_is_refused() -> None:
    engine = create_engine("sqlite://")
    mysql = create_engine("sqlite://")
    mysql.dialect.name = "mysql"

    for words, message in (
        ((engine, Base), "takes a model, `class OutboxTask"),
        ((engine, OutboxTaskMixin), "takes a model, `class OutboxTask"),
        (("sqlite://", OutboxTask), "takes an Engine or AsyncEngine, got str"),
        ((mysql, OutboxTask), "supports postgresql and sqlite, got 'mysql'"),
        ((create_async_engine("sqlite+aiosqlite://"), OutboxTask), "would not see an in-memory database of SQLite"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            SQLAlchemyOutbox(*words)  # type: ignore[arg-type]


def test_alembic_creates_the_table_and_detects_no_further_change(tmp_path: Path) -> None:
    """The migration script does not import taskq, so that old migrations run with every version."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        operations = produce_migrations(context, Base.metadata).upgrade_ops
        assert operations is not None
        script = render_python_code(operations)
        Base.metadata.create_all(connection)

        assert "op.create_table('taskq_outbox'" in script
        assert "taskq_sqlalchemy" not in script
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()
