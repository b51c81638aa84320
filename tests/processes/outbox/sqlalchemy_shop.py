"""A shop with SQLAlchemy, with a blocking or asyncio engine."""

import asyncio
from typing import Any

from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from taskq_core import TaskQ
from taskq_sqlalchemy import AfterCommit, OutboxTaskMixin, SQLAlchemyOutbox, enqueue_after_commit


class Base(DeclarativeBase): ...


class OutboxTask(OutboxTaskMixin, Base): ...


class Order(Base):
    __tablename__ = "orders"
    name: Mapped[str] = mapped_column(primary_key=True)


class Shop:
    """A program with one database."""

    def __init__(self, plan: dict[str, Any]) -> None:
        database = plan["database"]
        is_sqlite = database["ENGINE"].endswith("sqlite3")
        where = {} if is_sqlite else {"username": database["USER"], "query": {"host": database["HOST"]}}
        url = URL.create("sqlite" if is_sqlite else "postgresql+psycopg", database=database["NAME"], **where)
        self.is_async = plan["is_async"]
        self.engine: Any
        if self.is_async:
            self.engine = create_async_engine(url.set(drivername="sqlite+aiosqlite") if is_sqlite else url)
        else:
            self.engine = create_engine(url)
        self.plain = create_engine(url)
        outbox = SQLAlchemyOutbox(self.engine, OutboxTask)
        self.app = TaskQ(plan["redis"], enqueue_timeout=plan.get("patience_s", 30), outbox=outbox)
        (self.table,) = outbox.tables()
        self.writes_row = (Session, "flush")

    def migrate(self) -> None:
        Base.metadata.create_all(self.plain)

    def place(self, order: str, *, call: Any = None, workflow: Any = None) -> None:
        """Store an order and enqueue its task or workflow in the same transaction."""

        def fill(session: Any) -> None:
            session.add(Order(name=order))
            after_commit: AfterCommit = enqueue_after_commit(session)
            if workflow is None:
                after_commit.enqueue(call)
            else:
                after_commit.enqueue_workflow(workflow)

        async def aplace() -> None:
            async with AsyncSession(self.engine) as session, session.begin():
                fill(session)
            await self.engine.dispose()

        if self.is_async:
            asyncio.run(aplace())
            return
        with Session(self.engine) as session, session.begin():
            fill(session)
