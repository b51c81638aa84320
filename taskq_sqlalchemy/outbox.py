"""The outbox in a database of SQLAlchemy: its table, and the statements that write, claim and delete rows.

`taskq_core.client.outbox` has the rules. A row is added to the session whose transaction it belongs to, so SQLAlchemy
drops it with that transaction or savepoint. All other statements run in short transactions on the outbox's engine.
All times are the database's, so the clocks of web servers do not matter.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Connection,
    Double,
    Engine,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from taskq_core import ConfigurationError, TaskInfo
from taskq_core.client.outbox import OutboxFigures, OutboxRow, OutboxTable, table_fault
from taskq_core.client.sender import TransactionHook
from taskq_core.warnings import warn_if_blocking
from taskq_sqlalchemy.database import AsyncDatabase, Database
from taskq_sqlalchemy.places import is_private, place_of

DIALECTS = ("postgresql", "sqlite")


class UnixNow(FunctionElement[float]):
    """SQL function that returns the time of the database's clock, in seconds since 1970."""

    type = Double()
    inherit_cache = True


@compiles(UnixNow, "postgresql")
def _now_of_postgresql(element: UnixNow, compiler: Any, **_: Any) -> str:
    return "date_part('epoch', statement_timestamp())"


@compiles(UnixNow, "sqlite")
def _now_of_sqlite(element: UnixNow, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


class OutboxTaskMixin:
    """The columns of the outbox. Derive a model from it, so that Alembic finds the table beside your own.

    Example:
        `class OutboxTask(OutboxTaskMixin, Base): pass`
    """

    __tablename__ = "taskq_outbox"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    receipt: Mapped[str] = mapped_column(String(32), unique=True)
    queue: Mapped[str] = mapped_column(String(256))
    name: Mapped[str] = mapped_column(String(256))
    task_id: Mapped[str] = mapped_column(String(256))
    message: Mapped[bytes] = mapped_column(LargeBinary)
    size: Mapped[int] = mapped_column(Integer)
    start_at_s: Mapped[int | None] = mapped_column(BigInteger)
    start_in_ms: Mapped[int | None] = mapped_column(BigInteger)
    unique_key: Mapped[str] = mapped_column(String(1024))
    unique_s: Mapped[int] = mapped_column(BigInteger)
    unique_rule: Mapped[str] = mapped_column(String(1024))
    group: Mapped[str] = mapped_column(String(256))
    replicas: Mapped[int | None] = mapped_column(SmallInteger)
    fsynced: Mapped[bool] = mapped_column(Boolean)
    is_workflow: Mapped[bool] = mapped_column(Boolean)
    created_s: Mapped[float] = mapped_column(Double, default=UnixNow())
    claim: Mapped[str] = mapped_column(String(32), default="")
    claimed_until_s: Mapped[float | None] = mapped_column(Double)

    _outbox = cast(Any, None)
    """The outbox that has added this row to a session."""


@event.listens_for(OutboxTaskMixin, "before_insert", propagate=True)
def _check_database(mapper: Any, connection: Connection, row: Any) -> None:
    """Check a row when the session is flushed, because only then is it certain which engine the session uses."""
    if row._outbox is not None:
        row._outbox.check_database(connection)


class SQLAlchemyTable:
    """The table of one outbox model. Implements the core's `OutboxTable`."""

    def __init__(self, database: Database | AsyncDatabase, model: type[Any], name: str) -> None:
        self.name = name
        self._database = database
        self._table = model.__table__
        self._columns = model.__table__.c

    def write(self, rows: Sequence[OutboxRow]) -> None:
        """Write rows in a new transaction."""
        values = [row.columns() for row in rows]
        self._database.run(lambda connection: connection.execute(insert(self._table), values))

    def claim(
        self, claim: str, *, most: int, most_bytes: int, seconds: float, receipts: Sequence[str] | None = None
    ) -> list[OutboxRow]:
        """Claim waiting rows for one sender. PostgreSQL skips rows that another sender claims at the same time."""
        c = self._columns
        free = select(c.id, c.size).where(or_(c.claimed_until_s.is_(None), c.claimed_until_s < UnixNow()))
        if receipts is not None:
            free = free.where(c.receipt.in_(receipts[:most]))
        locked = free.order_by(c.id).limit(most).with_for_update(skip_locked=True).cte("locked")
        size_before = func.sum(locked.c.size).over(order_by=locked.c.id) - locked.c.size
        sized = select(locked.c.id, size_before.label("size_before")).subquery()
        fitting = select(sized.c.id).where(sized.c.size_before < most_bytes)
        # Use a single statement: a SQLite transaction that reads first fails if another transaction writes before it.
        statement = (
            update(self._table)
            .where(c.id.in_(fitting))
            .values(claim=claim, claimed_until_s=UnixNow() + seconds)
            .returning(*c, (UnixNow() - c.created_s).label("age_s"))
        )
        claimed = self._database.run(lambda connection: connection.execute(statement).all())
        return [OutboxRow.from_columns(row, row.age_s) for row in sorted(claimed, key=lambda row: int(row.id))]

    def delete(self, claim: str, receipts: Sequence[str]) -> int:
        """Delete rows of a claim, and return their number."""
        statement = delete(self._table).where(self._columns.receipt.in_(receipts), self._columns.claim == claim)
        return self._database.run(lambda connection: connection.execute(statement).rowcount)

    def release(self, claim: str, receipts: Sequence[str], *, seconds: float) -> None:
        """Give up the claim on rows. Other senders can claim them after `seconds`."""
        until = UnixNow() + seconds if seconds > 0 else None
        of_claim = self._columns.receipt.in_(receipts), self._columns.claim == claim
        statement = update(self._table).where(*of_claim).values(claim="", claimed_until_s=until)
        self._database.run(lambda connection: connection.execute(statement))

    def find(self, task_id: str) -> TaskInfo | None:
        """Return a waiting task, or None. The query scans the table, which has no index of ids."""
        statement = select(*self._columns).where(self._columns.task_id == task_id, ~self._columns.is_workflow).limit(1)
        row = self._database.run(lambda connection: connection.execute(statement).first())
        return None if row is None else OutboxRow.from_columns(row, 0.0).info()

    def figures(self) -> OutboxFigures:
        """Return the number of waiting rows and the age of the oldest."""
        statement = select(func.count(), UnixNow() - func.min(self._columns.created_s)).select_from(self._table)
        waiting, oldest_s = self._database.run(lambda connection: connection.execute(statement).one())
        return OutboxFigures(waiting=waiting, oldest_s=None if oldest_s is None else max(0.0, oldest_s))


class SQLAlchemyOutbox:
    """Writes tasks to a table of your database, in the transaction of your session. Pass it to `TaskQ(outbox=...)`.

    Args:
        engine: An `Engine` or `AsyncEngine` of the database that your sessions write to, on PostgreSQL or SQLite.
            The connections of an `AsyncEngine` belong to your event loop, so the outbox opens a second pool.
        model: Your model, derived from `OutboxTaskMixin`.

    Raises:
        ConfigurationError: The database is neither PostgreSQL nor SQLite, it is in the memory of an `AsyncEngine`, or
            the model does not derive from `OutboxTaskMixin`.
    """

    def __init__(self, engine: Engine | AsyncEngine, model: type[Any]) -> None:
        _check_engine(engine)
        if not (isinstance(model, type) and issubclass(model, OutboxTaskMixin) and hasattr(model, "__table__")):
            raise ConfigurationError(
                f"SQLAlchemyOutbox takes a model, `class OutboxTask(OutboxTaskMixin, Base)`, got {model!r}"
            )
        self._model = model
        self._bind(engine)
        self._joined: ContextVar[tuple[Session, TransactionHook] | None] = ContextVar("taskq_session", default=None)

    def _bind(self, engine: Engine | AsyncEngine) -> None:
        self._engine = engine
        self._listen(engine.sync_engine if isinstance(engine, AsyncEngine) else engine)
        self._database = AsyncDatabase(engine, self._listen) if isinstance(engine, AsyncEngine) else Database(engine)
        self._table = SQLAlchemyTable(self._database, self._model, _name_of(engine.url))

    def _listen(self, engine: Engine) -> None:
        event.listen(engine, "handle_error", self._explain)  # the same method is never added twice

    def _explain(self, context: ExceptionContext) -> None:
        """Raise `ConfigurationError` for a query that failed because the table is missing or forbidden."""
        table = self._model.__table__.name
        if table in (context.statement or ""):
            remedy = "create it with a migration of Alembic, or with metadata.create_all(engine)"
            error = context.original_exception
            fault = table_fault(error, database=self._table.name, table=table, remedy=remedy)
            if fault is not None:
                raise fault from context.sqlalchemy_exception

    @contextmanager
    def use_engine(self, engine: Engine | AsyncEngine) -> Iterator[None]:
        """Use the database of another engine inside a `with` block, in all threads. For tests.

        Raises:
            ConfigurationError: The outbox does not support this database.
        """
        _check_engine(engine)
        before = self._engine
        self._bind(engine)
        try:
            yield
        finally:
            self._database.close()
            self._bind(before)

    @contextmanager
    def joined(self, session: Session, hook: TransactionHook) -> Iterator[None]:
        """Write tasks that are enqueued in this block in a session's transaction. `hook` runs code after its commit."""
        token = self._joined.set((session, hook))
        try:
            yield
        finally:
            self._joined.reset(token)

    def in_transaction(self) -> bool:
        """Return whether the code runs inside `joined`. If so, rows of `write` wait for the commit of a session."""
        return self._joined.get() is not None

    async def ain_transaction(self) -> bool:
        """Return what `in_transaction` returns, for coroutines."""
        return self.in_transaction()

    def write(
        self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None], dropped: Callable[[], None]
    ) -> None:
        """Add rows to the session of `joined`, or write them at once without one.

        Call `committed` after the commit, `dropped` after a rollback.

        Raises:
            ConfigurationError: The session writes the rows to another database than that of this outbox.
        """
        joined = self._joined.get()
        if joined is None:
            warn_if_blocking("enqueueing a task", ".adelay() or AsyncClient.enqueue() (in FastAPI: ClientDep)")
            self._table.write(rows)
            committed(self._table)
            return
        session, hook = joined
        if type(session).get_bind is Session.get_bind:  # another one may return a different engine during the flush
            self.check_database(session.get_bind(self._model))
        models = [self._model(**row.columns()) for row in rows]
        for model in models:
            model._outbox = self
        session.add_all(models)
        hook.defer(partial(committed, self._table), dropped)

    def check_database(self, bind: Engine | Connection) -> None:
        """Check that an engine or connection writes rows to the table that the relay reads.

        Raises:
            ConfigurationError: The database or the schema is another one.
        """
        engine = self._engine.sync_engine if isinstance(self._engine, AsyncEngine) else self._engine
        written, read = (place_of(each, self._model.__table__) for each in (bind, engine))
        if written != read:
            raise ConfigurationError(
                f"the session writes the outbox row to {written}, but the outbox reads {read}, so no worker would send "
                "the task; pass an engine with the same URL to SQLAlchemyOutbox, in tests to outbox.use_engine()"
            )

    async def awrite(
        self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None], dropped: Callable[[], None]
    ) -> None:
        """Add rows as `write` does, from a coroutine. Without a session, write them in a thread."""
        if self.in_transaction():
            self.write(rows, committed, dropped)
        else:
            await asyncio.to_thread(self.write, rows, committed, dropped)

    def find(self, task_id: str) -> TaskInfo | None:
        """Return a task whose row is committed and not sent yet, or None."""
        return self._table.find(task_id)

    async def afind(self, task_id: str) -> TaskInfo | None:
        """Return what `find` returns, which runs in a thread."""
        return await asyncio.to_thread(self.find, task_id)

    def tables(self) -> list[SQLAlchemyTable]:
        """Return the table of the outbox as a list, for the worker service that sends its rows (the relay)."""
        return [self._table]

    def close(self) -> None:
        """Close connections that the outbox opened for itself. The next use opens new ones."""
        self._database.close()


def _check_engine(engine: object) -> None:
    if not isinstance(engine, Engine | AsyncEngine):
        raise ConfigurationError(f"SQLAlchemyOutbox takes an Engine or AsyncEngine, got {type(engine).__name__}")
    if engine.dialect.name not in DIALECTS:
        raise ConfigurationError(f"the outbox supports {' and '.join(DIALECTS)}, got {engine.dialect.name!r}")
    if isinstance(engine, AsyncEngine) and is_private(engine.url):
        raise ConfigurationError(
            "the outbox opens its own connections for an AsyncEngine, and they would not see an in-memory database of "
            "SQLite; use a file, for example sqlite+aiosqlite:///test.db"
        )


def _name_of(url: URL) -> str:
    """Return the name of a database for logs, metrics and the relay's lease. No two databases have the same name."""
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "memory").absolute())
    host = url.host or str(url.query.get("host", "localhost"))
    return f"{host}:{url.port}/{url.database}" if url.port else f"{host}/{url.database}"
