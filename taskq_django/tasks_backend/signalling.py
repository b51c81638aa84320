"""The framework's signals, sent so that no receiver changes what becomes of a task."""

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.dispatch import Signal

from taskq_core import TaskHandle
from taskq_core.tasks.observer import Observer
from taskq_django.tasks_backend.framework import AnyResult, task_enqueued

logger = logging.getLogger("taskq.django")


def tell(signal: Signal, sender: Any, result: AnyResult) -> None:
    """Send a signal. Django logs the exceptions of receivers."""
    with _contained():
        signal.send_robust(sender=sender, task_result=result)


async def atell(signal: Signal, sender: Any, result: AnyResult) -> None:
    """Send a signal from a coroutine.

    In a thread, as its receivers mostly are blocking ones. `asend_robust` would have them in asyncio tasks, from which
    a `SystemExit` goes straight to the event loop and ends it.
    """
    await sync_to_async(tell, thread_sensitive=True)(signal, sender, result)


@contextmanager
def _contained() -> Iterator[None]:
    """Log a `SystemExit` of a receiver, which Django lets through."""
    try:
        yield
    except SystemExit:
        logger.exception("a receiver of a task's signal raised SystemExit, which is ignored")


def tell_of_failure(signal: Signal, sender: Any, result: AnyResult, error: BaseException) -> None:
    """Send a signal as if from the `except` of an error: receivers, Django's log first, find it in `sys.exc_info()`."""
    stack = error.__traceback__
    try:
        raise error
    except BaseException as raised:
        if raised is not error:
            raise  # an interruption that came just now
        error.__traceback__ = stack  # without this function
        tell(signal, sender, result)


class Announcement:
    """Says once that a task was enqueued: when it was sent, or in its run where this comes first.

    This process may run the task before its client reports it as stored: at once, with `EAGER`. An announcement lasts
    until the enqueue has returned, and with the handle until the commit.
    """

    def __init__(self, sender: Any, result: AnyResult, enqueued: Callable[[], None]) -> None:
        self.result = result
        self.outcome: AnyResult | None = None
        self._sender = sender
        self._enqueued = enqueued
        _open[result.id] = self

    def __enter__(self) -> None:
        """Begin to enqueue."""

    def __exit__(self, kind: object, error: object, stack: object) -> None:
        """Forget it if the task was not enqueued: the traceback of the error would keep it."""
        if error is not None:
            _open.pop(self.result.id, None)

    def _take(self) -> bool:
        is_first = _open.pop(self.result.id, None) is not None
        if is_first:
            self._enqueued()
        return is_first

    def tell(self) -> None:
        """Send `task_enqueued`, unless that was done."""
        if self._take():
            tell(task_enqueued, self._sender, self.result)

    async def atell(self) -> None:
        """Send `task_enqueued` from a coroutine, unless that was done."""
        if self._take():
            await atell(task_enqueued, self._sender, self.result)


class Announcer(Observer):
    """Sends `task_enqueued` when the client reports a task as stored: inside a transaction after the commit."""

    def wants_enqueued(self) -> bool:
        """Whether an announcement waits."""
        return bool(_open)

    def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Make the announcements of these tasks."""
        for handle in handles:
            announcement = _open.get(handle.id)
            if announcement is not None:
                announcement.tell()

    async def aenqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """As `enqueued`, from a coroutine."""
        for handle in handles:
            announcement = _open.get(handle.id)
            if announcement is not None:
                await announcement.atell()


_open: "weakref.WeakValueDictionary[str, Announcement]" = weakref.WeakValueDictionary()
"""Announcements by task id, for as long as they last."""


def announcement_of(task_id: str) -> Announcement | None:
    """Return that of a task which this process is just enqueueing."""
    return _open.get(task_id)
