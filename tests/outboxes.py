"""The outboxes of Django and SQLAlchemy behind one interface, so that the same tests run on each of them."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from taskq_core import BulkResult, Settings, Signature, TaskHandle, TaskQ, WorkflowHandle
from taskq_core.client.outbox import Delivered, OutboxTable
from taskq_core.settings import EnqueueMode
from taskq_sqlalchemy import OutboxTaskMixin, SQLAlchemyOutbox, enqueue_after_commit
from tests.redis_server import RedisServer

AWAY = "unix:///nowhere/at/all.sock"


class RollbackError(Exception):
    """Raised to roll back a transaction."""


class OutboxUnderTest(ABC):
    """A queue application with an outbox, two tasks, and transactions in which to enqueue."""

    app: TaskQ
    table: OutboxTable
    greet: Any
    restock: Any
    words: ClassVar[dict[str, str]]

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Open a transaction, or a savepoint inside one, and roll it back at the end."""
        with suppress(RollbackError), self.transaction():
            yield
            raise RollbackError

    @abstractmethod
    def transaction(self) -> Any:
        """Open a transaction, or a savepoint inside one, and commit it at the end unless the block raises."""

    @abstractmethod
    def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]:
        """Enqueue a call, in the transaction if one is open."""

    @abstractmethod
    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult: ...

    @abstractmethod
    def enqueue_workflow(self, workflow: Any) -> WorkflowHandle: ...

    @abstractmethod
    def configure(self, change: Callable[[Settings], Settings]) -> None:
        """Change the settings of the application."""

    @abstractmethod
    def fetch(self, statement: str) -> list[Any]:
        """Run a statement, in the transaction if one is open."""

    def execute(self, statement: str) -> list[Any]:
        """Run a statement with placeholders that differ between the adapters.

        `{table}`, `{created}` and `{claimed_until}` are names, `{past}` is a time long ago, and `{left}` the seconds
        until a claim ends.
        """
        return self.fetch(statement.format(**self.words))

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        before = self.app.settings
        self.configure(lambda settings: replace(settings, url=AWAY, enqueue_timeout=0.01))
        try:
            yield
        finally:
            self.configure(lambda _: before)

    def waiting(self) -> list[str]:
        return [name for (name,) in self.execute("SELECT name FROM {table} ORDER BY id")]

    def end_claims(self) -> None:
        self.execute("UPDATE {table} SET {claimed_until} = NULL")

    def relay(self, receipts: list[str] | None = None) -> Delivered:
        return self.app.runtime.delivery.deliver(self.table, receipts)


class DjangoOutbox(OutboxUnderTest):
    """The outbox of Django, on the database `default` of the test settings."""

    words: ClassVar = {
        "table": "taskq_django_outboxtask",
        "created": "created_at",
        "claimed_until": "claimed_until",
        "past": "'2020-01-01 00:00:00'",
        "left": "(julianday(claimed_until) - julianday('now')) * 86400",
    }

    def __init__(self, redis: RedisServer) -> None:
        from taskq_django import taskq
        from taskq_django.outbox import DatabaseTable
        from tests.taskq_django.shop.tasks import greet, restock

        self.app, self.table, self.greet, self.restock = taskq, DatabaseTable("default"), greet, restock
        taskq.configure(
            Settings(
                url=redis.unix_url,
                queues={"default": 3, "low": 1},
                enqueue_timeout=30,
                enqueue=EnqueueMode.OUTBOX,
                redis_in_tests=True,
            )
        )

    def transaction(self) -> Any:
        from django.db import transaction

        return transaction.atomic()

    def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]:
        return self.app.enqueue(call)

    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        return self.app.client.enqueue_many(calls)

    def enqueue_workflow(self, workflow: Any) -> WorkflowHandle:
        return self.app.enqueue_workflow(workflow)

    def configure(self, change: Callable[[Settings], Settings]) -> None:
        from taskq_django.transaction import CommitHook

        settings = change(self.app.settings)
        self.app.configure(
            settings, transaction=CommitHook(self.app) if settings.enqueue is EnqueueMode.ON_COMMIT else None
        )

    def fetch(self, statement: str) -> list[Any]:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


class Base(DeclarativeBase): ...


class OutboxTask(OutboxTaskMixin, Base): ...


def begin_in_earnest(engine: sqlalchemy.Engine) -> None:
    """Make SQLAlchemy control transactions instead of SQLite's driver, which does not support savepoints."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=OFF")  # the data need not survive a power failure
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


class SQLAlchemyUnderTest(OutboxUnderTest):
    """The outbox of SQLAlchemy with blocking sessions, on an SQLite file."""

    words: ClassVar = {
        "table": "taskq_outbox",
        "created": "created_s",
        "claimed_until": "claimed_until_s",
        "past": "1577836800.0",
        "left": "claimed_until_s - (julianday('now') - 2440587.5) * 86400",
    }

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.path = folder / "outbox.sqlite3"
        self.plain = create_engine(f"sqlite:///{self.path}")
        begin_in_earnest(self.plain)
        Base.metadata.create_all(self.plain)
        self.session: Session | None = None
        self.outbox = SQLAlchemyOutbox(self.engine(), OutboxTask)
        (self.table,) = self.outbox.tables()
        self.app = TaskQ(redis.unix_url, queues={"default": 3, "low": 1}, enqueue_timeout=30, outbox=self.outbox)

        @self.app.task(name="shop:greet")
        def greet(name: str) -> str:
            return f"hello {name}"

        @self.app.task(name="shop:restock", queue="low")
        async def restock(sku: str) -> str:
            return sku

        self.greet, self.restock = greet, restock

    def engine(self) -> Any:
        return self.plain

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.session is not None:
            with self.session.begin_nested():
                yield
            return
        with Session(self.plain) as session, session.begin():
            self.session = session
            try:
                yield
            finally:
                self.session = None

    def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]:
        return self.app.enqueue(call) if self.session is None else enqueue_after_commit(self.session).enqueue(call)

    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        if self.session is None:
            return self.app.client.enqueue_many(calls)
        return enqueue_after_commit(self.session).enqueue_many(calls)

    def enqueue_workflow(self, workflow: Any) -> WorkflowHandle:
        if self.session is None:
            return self.app.enqueue_workflow(workflow)
        return enqueue_after_commit(self.session).enqueue_workflow(workflow)

    def configure(self, change: Callable[[Settings], Settings]) -> None:
        self.app.configure(change(self.app.settings))

    def fetch(self, statement: str) -> list[Any]:
        if self.session is not None:
            return list(self.in_session(sqlalchemy.text(statement)))
        with self.plain.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    def in_session(self, statement: Any) -> Any:
        assert self.session is not None
        self.session.flush()
        return self.session.execute(statement)

    def close(self) -> None:
        self.app.close()
        self.plain.dispose()


class AsyncSQLAlchemyUnderTest(SQLAlchemyUnderTest):
    """The outbox of SQLAlchemy with asyncio sessions."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.runner = asyncio.Runner()
        super().__init__(redis, folder)

    def engine(self) -> Any:
        self.asynchronous = create_async_engine(f"sqlite+aiosqlite:///{self.path}")
        begin_in_earnest(self.asynchronous.sync_engine)
        return self.asynchronous

    @contextmanager
    def transaction(self) -> Iterator[None]:
        outer: Any = self.session
        with ExitStack() as stack:
            if outer is None:
                self.session = session = AsyncSession(self.asynchronous)  # type: ignore[assignment]  # blocking or asyncio session
                stack.callback(lambda: self.runner.run(session.close()))
                begin = session.begin()
            else:
                begin = outer.begin_nested()
            stack.callback(setattr, self, "session", outer)
            self.runner.run(begin.__aenter__())
            stack.push(lambda *error: self.runner.run(begin.__aexit__(*error)))
            yield

    def in_session(self, statement: Any) -> Any:
        session: Any = self.session
        self.runner.run(session.flush())
        return self.runner.run(session.execute(statement))

    def close(self) -> None:
        self.runner.run(self.asynchronous.dispose())
        self.runner.close()
        super().close()
