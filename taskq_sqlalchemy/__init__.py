"""taskq for SQLAlchemy: enqueue a task when a session commits, and drop it when the session rolls back.

::

    class OutboxTask(OutboxTaskMixin, Base):
        pass

    taskq = TaskQ("redis://localhost:6379/0", outbox=SQLAlchemyOutbox(engine, OutboxTask))

    async def place_order(session: AsyncSession) -> None:
        session.add(order := Order())
        await session.flush()
        enqueue_after_commit(session).enqueue(confirm.s(order.id))
        await session.commit()

With `outbox=`, the task is a row in the transaction of the session, so it survives a process that dies after the
commit and a Redis that is away. Without it, `commit` sends the task to Redis itself. Works without FastAPI.
"""

from taskq_sqlalchemy.commits import AfterCommit, enqueue_after_commit
from taskq_sqlalchemy.outbox import OutboxTaskMixin, SQLAlchemyOutbox

__all__ = ["AfterCommit", "OutboxTaskMixin", "SQLAlchemyOutbox", "enqueue_after_commit"]
