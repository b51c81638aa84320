"""taskq for SQLAlchemy: enqueue a task when a session commits, and drop it when the session rolls back.

::

    async def place_order(session: AsyncSession) -> None:
        session.add(order := Order())
        await session.flush()
        enqueue_after_commit(session).enqueue(confirm.s(order.id))
        await session.commit()

Works without FastAPI.
"""

from taskq_sqlalchemy.commits import AfterCommit, enqueue_after_commit

__all__ = ["AfterCommit", "enqueue_after_commit"]
