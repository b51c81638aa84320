"""Enqueue tasks when SQLAlchemy's transaction has committed, and not at all if it is rolled back.

::

    async def sign_up(session: AsyncSession, client: ClientDep) -> None:
        session.add(user := User(...))
        await session.flush()
        enqueue_after_commit(session).enqueue(welcome.s(user.id))
        await session.commit()  # now it is enqueued, and a worker finds the user

A task belongs to the innermost transaction that is open: what is enqueued inside a savepoint is dropped with it, and
with all around it. In a session that has not begun anything yet it belongs to the next commit: SQLAlchemy tells nobody
of a rollback that had nothing to end. A call is checked at once; only the sending waits, and `commit` returns when it
is done. What goes wrong then is logged and noted in the handle: the data is committed all the same. Between the commit
and the sending a process may die, and the task is lost; who cannot have that needs an outbox.

For sessions of either kind, and the registries `scoped_session` and `async_scoped_session`.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from taskq_core import BulkResult, Client, ConfigurationError, EnqueueError, Signature, TaskHandle, TaskQ
from taskq_core.commits import Countdown

R = TypeVar("R")

logger = logging.getLogger("taskq.sqlalchemy")

_KEY = "taskq_after_commit"


class AfterCommit:
    """Enqueues when transactions commit. Made by `enqueue_after_commit`."""

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        self._sessions = sessions

    def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call when the sessions have committed.

        Nothing is sent now, so this is no coroutine for asynchronous sessions either. Middleware is asked by `enqueue`.

        Returns:
            Its handle; `is_sent` is False until then, and its id is that of the task.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The call does not fit.
        """
        return _client_of(call).defer(call, _Hook(self._sessions))

    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        """Enqueue any number of calls of one queue application when the sessions have committed, or none of them.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: A call does not fit.
            ConfigurationError: There is no call, or they are of several queue applications.
        """
        calls = list(calls)
        clients = {id(client): client for client in map(_client_of, calls)}
        if len(clients) != 1:
            raise ConfigurationError(f"enqueue_many takes calls of one queue application, got {len(clients)}")
        (client,) = clients.values()
        return client.defer_many(calls, _Hook(self._sessions))


def enqueue_after_commit(*sessions: Any) -> AfterCommit:
    """Return what enqueues when a session has committed; of several, after the last, and not if one is rolled back.

    Args:
        *sessions: `Session`, `AsyncSession`, or a registry of either.

    Raises:
        ConfigurationError: There is none, or something is no session.
    """
    if not sessions:
        raise ConfigurationError("enqueue_after_commit takes a session")
    return AfterCommit(tuple({id(found): found for found in map(_plain_session, sessions)}.values()))


def _plain_session(session: Any) -> Session:
    found = session
    if callable(getattr(found, "registry", None)):  # a registry: the session of this thread or task
        found = found.registry()
    found = getattr(found, "sync_session", found)
    if not isinstance(found, Session):
        raise ConfigurationError(
            f"enqueue_after_commit takes a Session or AsyncSession of SQLAlchemy, got {type(session).__name__}"
        )
    return found


def _client_of(call: Signature[Any]) -> Client:
    app = call.task.enqueuer if isinstance(call, Signature) else None
    if not isinstance(app, TaskQ):
        raise ConfigurationError(f"a call is made by task.s(...), got {type(call).__name__}")
    return app.client


class _Sending:
    """One sending that waits for one commit or several. Where one of them never comes it is never sent."""

    def __init__(self, commits: int, send: Callable[[], None]) -> None:
        self._countdown = Countdown(commits)
        self._send = send

    def committed(self) -> None:
        """One of the transactions has committed."""
        if not self._countdown.is_last():
            return
        try:
            self._send()
        except EnqueueError as error:
            logger.error("after the commit: %s", error)
        except Exception:
            logger.exception("after the commit a task was not enqueued")


def _tell_committed(sendings: Sequence[_Sending]) -> None:
    for sending in sendings:
        sending.committed()


class _Hook:
    """The core's `TransactionHook` for sessions."""

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        self._sessions = sessions

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when all sessions have committed."""
        sending = _Sending(len(self._sessions), send)
        for session in self._sessions:
            _waiting_in(session).add(session, sending)
        return True

    async def adefer(self, send: Callable[[], None]) -> bool:
        """As `defer`."""
        return self.defer(send)

    def count_waiting(self) -> int:
        """Return how many sends wait for a commit of these sessions."""
        return sum(_waiting_in(session).count for session in self._sessions)


class _Waiting:
    """What waits for the commits of one session, by the identity of a transaction; under None for the next one.

    Neither the session nor a transaction, which knows it, is held: a session that is dropped without an end has to go,
    and with it its connection.
    """

    def __init__(self) -> None:
        self._sendings: dict[int | None, list[_Sending]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self._sendings.values()))

    def add(self, session: Session, sending: _Sending) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        self._sendings.setdefault(_key(innermost), []).append(sending)

    def committed(self, session: Session) -> None:
        """The innermost transaction has committed."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:  # what waits for it is part of the transaction around it now
            waiting = self._sendings.pop(_key(savepoint), [])
            if waiting:
                self._sendings.setdefault(_key(savepoint.parent), []).extend(waiting)
            return
        ready = [*self._sendings.pop(None, ()), *self._sendings.pop(_key(session.get_transaction()), ())]
        if not ready:
            return
        if in_greenlet():
            await_only(asyncio.to_thread(_tell_committed, ready))  # all in one call, which no cancellation cuts short
        else:
            _tell_committed(ready)

    def ended(self, session: Session, transaction: SessionTransaction) -> None:
        """A transaction has ended: what still waits for it is dropped."""
        self._sendings.pop(_key(transaction), None)
        if transaction.parent is None:
            self._sendings.pop(None, None)


def _key(transaction: SessionTransaction | None) -> int | None:
    return None if transaction is None else id(transaction)


def _waiting_in(session: Session) -> _Waiting:
    waiting: _Waiting | None = session.info.get(_KEY)
    if waiting is None:
        waiting = session.info[_KEY] = _Waiting()
        event.listen(session, "after_commit", waiting.committed)
        event.listen(session, "after_transaction_end", waiting.ended)
        weakref.finalize(session, _tell_forgotten, waiting).atexit = False
    return waiting


def _tell_forgotten(waiting: _Waiting) -> None:
    if waiting.count:
        logger.warning("%d enqueues waited for a commit that never came: their session is gone", waiting.count)
