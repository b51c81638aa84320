"""Enqueue tasks when SQLAlchemy's transaction has committed, and not at all if it is rolled back.

A task belongs to the innermost open transaction: if it is enqueued inside a savepoint, a rollback of the savepoint or
of a transaction around it drops the task. In a session without a transaction, the task belongs to the next commit,
because SQLAlchemy does not report a rollback that ends no transaction. A call is checked at once. Only the sending
waits, and `commit` returns when it is done. If sending fails, the data is still committed. The error is logged and
stored in the handle.

With an outbox the task is a row in the transaction as well, and a worker sends what `commit` did not. Without one, a
process that dies between the commit and the sending loses the task.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from taskq_core import BulkResult, ConfigurationError, EnqueueError, Signature, TaskHandle, TaskQ, WorkflowHandle
from taskq_core.client.sender import SendAtLastCommit, TransactionHook
from taskq_core.settings import EnqueueMode
from taskq_core.tasks.canvas import Canvas, Whole
from taskq_sqlalchemy.outbox import SQLAlchemyOutbox

R = TypeVar("R")
T = TypeVar("T")

logger = logging.getLogger("taskq.sqlalchemy")

_KEY = "taskq_after_commit"


class AfterCommit:
    """Enqueues calls when the transactions of its sessions commit. Returned by `enqueue_after_commit`."""

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        self._sessions = sessions
        self._hook = _Hook(sessions)

    def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call when the sessions have committed.

        This call sends nothing, so it is a plain function for asynchronous sessions too. Middleware runs in `enqueue`.

        Returns:
            Its handle. `is_sent` is False until the commit, and the id of the handle is the id of the task.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The call does not fit.
            ConfigurationError: The queue application has an outbox, and there are several sessions.
        """
        app = _app_of_call(call)
        with self._joining(app) as hook:
            return app.client.enqueue(call, hook)

    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        """Enqueue any number of calls of one queue application when the sessions have committed: all or nothing.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: A call does not fit.
            ConfigurationError: The calls are empty or belong to several queue applications, or the application has an
                outbox and there are several sessions.
        """
        calls = list(calls)
        apps = set(map(_app_of_call, calls))
        if len(apps) != 1:
            raise ConfigurationError(f"enqueue_many takes calls of one queue application, got calls of {len(apps)}")
        (app,) = apps
        with self._joining(app) as hook:
            return app.client.enqueue_many(calls, hook)

    def enqueue_workflow(self, workflow: Whole[T]) -> WorkflowHandle[T]:
        """Enqueue a workflow when the sessions have committed.

        Raises:
            WorkflowDefinitionError, PayloadTooLargeError: The workflow is not valid, or is too large.
            ConfigurationError: The queue application has an outbox, and there are several sessions.
        """
        if not isinstance(workflow, Signature | Canvas):
            raise ConfigurationError(f"enqueue_workflow takes a chain, group or step, got {type(workflow).__name__}")
        app = _app_of(workflow)
        with self._joining(app) as hook:
            return app.workflows.blocking.enqueue(workflow, hook)

    @contextmanager
    def _joining(self, app: TaskQ) -> Iterator[TransactionHook | None]:
        """Yield the hook that sends tasks after the commit, or None if an outbox writes them in the session instead."""
        outbox = app.outbox if app.settings.enqueue is EnqueueMode.OUTBOX else None
        if not isinstance(outbox, SQLAlchemyOutbox):
            yield self._hook
            return
        if len(self._sessions) > 1:
            raise ConfigurationError(
                f"an outbox writes the row in the transaction of one session, but got {len(self._sessions)} sessions"
            )
        with outbox.joined(self._sessions[0], self._hook):
            yield None


def enqueue_after_commit(*sessions: Any) -> AfterCommit:
    """Return an object that enqueues calls when a session has committed.

    With several sessions, it enqueues after the last commit, and does not enqueue if one of them is rolled back.

    Args:
        *sessions: `Session`, `AsyncSession`, or a registry of either. Exactly one if the application has an outbox.

    Raises:
        ConfigurationError: No session is passed, or an argument is not a session.
    """
    if not sessions:
        raise ConfigurationError("enqueue_after_commit takes a session, got none")
    return AfterCommit(tuple({id(found): found for found in map(_plain_session, sessions)}.values()))


def _plain_session(session: Any) -> Session:
    found = session
    if callable(getattr(found, "registry", None)):  # a `scoped_session` returns the session of this thread or task
        found = found.registry()
    found = getattr(found, "sync_session", found)
    if not isinstance(found, Session):
        raise ConfigurationError(
            f"enqueue_after_commit takes a Session or AsyncSession of SQLAlchemy, got {type(session).__name__}"
        )
    return found


def _app_of_call(call: object) -> TaskQ:
    if not isinstance(call, Signature):
        hint = "; use enqueue_workflow" if isinstance(call, Canvas) else ""
        raise ConfigurationError(f"expected a call that was made by task.s(...), got {type(call).__name__}{hint}")
    return _app_of(call)


def _app_of(part: Whole) -> TaskQ:
    app = part.task.enqueuer if isinstance(part, Signature) else part.enqueuer
    if not isinstance(app, TaskQ):
        raise ConfigurationError(f"enqueue_after_commit takes calls of a TaskQ, got those of {type(app).__name__}")
    return app


def _send(sendings: Sequence[SendAtLastCommit]) -> None:
    """Report the commit of a session to calls that wait for it. A call is sent when all its sessions have committed.

    Errors are only logged, because the commit cannot be undone.
    """
    for sending in sendings:
        try:
            sending()
        except EnqueueError as error:
            logger.error(
                "a task could not be enqueued after the commit, and is lost; an outbox would send it later: %s",
                error,
            )
        except Exception:
            logger.exception("a task could not be enqueued after the commit, and is lost")


class _Hook:
    """The core's `TransactionHook` for sessions."""

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        self._sessions = sessions

    def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Call `send` when all sessions have committed, or `dropped` when one of them is rolled back."""
        sending = SendAtLastCommit(len(self._sessions), send, dropped)
        for session in self._sessions:
            _waiting_in(session).add(session, sending)
        return True

    async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Call `send` when all sessions have committed, as `defer` does."""
        return self.defer(send, dropped)


class _Waiting:
    """Stores the calls that wait for a commit of one session, by the id of their transaction (None: the next one).

    It has no reference to the session or a transaction, so that a session that is dropped without an end is freed
    together with its connection.
    """

    def __init__(self) -> None:
        self._sendings: dict[int | None, list[SendAtLastCommit]] = {}
        self._committed: list[SendAtLastCommit] = []

    @property
    def count(self) -> int:
        return sum(map(len, self._sendings.values()))

    def add(self, session: Session, sending: SendAtLastCommit) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        self._sendings.setdefault(_key(innermost), []).append(sending)

    def committed(self, session: Session) -> None:
        """Handle the commit of the innermost transaction."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:  # a savepoint was released, so its calls wait for the outer transaction
            waiting = self._sendings.pop(_key(savepoint), [])
            if waiting:
                self._sendings.setdefault(_key(savepoint.parent), []).extend(waiting)
            return
        root = _key(session.get_transaction())
        self._committed += [*self._sendings.pop(None, ()), *self._sendings.pop(root, ())]

    def ended(self, session: Session, transaction: SessionTransaction) -> None:
        """Handle the end of a transaction: drop the calls that still wait for it, and send the committed ones.

        Sending starts after the transaction has returned its connection to the pool, because the outbox takes one. If
        each commit held one connection and waited for another, concurrent commits would deadlock.
        """
        dropped = self._sendings.pop(_key(transaction), [])
        if transaction.parent is None:
            dropped += self._sendings.pop(None, [])
        for sending in dropped:
            sending.drop()
        if transaction.parent is not None:
            return
        ready, self._committed = self._committed, []
        if not ready:
            return
        if in_greenlet():
            # Send all in one thread call, so that a cancellation cannot stop after some of them.
            await_only(asyncio.to_thread(_send, ready))
        else:
            _send(ready)


def _key(transaction: SessionTransaction | None) -> int | None:
    return None if transaction is None else id(transaction)


def _waiting_in(session: Session) -> _Waiting:
    waiting: _Waiting | None = session.info.get(_KEY)
    if waiting is None:
        waiting = session.info[_KEY] = _Waiting()
        event.listen(session, "after_commit", waiting.committed)
        event.listen(session, "after_transaction_end", waiting.ended)
        weakref.finalize(session, _warn_if_lost, waiting).atexit = False
    return waiting


def _warn_if_lost(waiting: _Waiting) -> None:
    if waiting.count:
        logger.warning("%d calls were not enqueued: their session was dropped without a commit", waiting.count)
