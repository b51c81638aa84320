"""Send the signals of Django's framework. Exceptions of receivers do not affect the task."""

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


def send_signal(signal: Signal, sender: Any, result: AnyResult) -> None:
    """Send a signal. Django logs the exceptions of receivers."""
    with _contained():
        signal.send_robust(sender=sender, task_result=result)


async def asend_signal(signal: Signal, sender: Any, result: AnyResult) -> None:
    """Send a signal from a coroutine.

    It is sent in a thread, because most receivers block. `asend_robust` would run them in asyncio tasks, where a
    `SystemExit` ends the event loop.
    """
    await sync_to_async(send_signal, thread_sensitive=True)(signal, sender, result)


@contextmanager
def _contained() -> Iterator[None]:
    """Log and ignore a `SystemExit` that a receiver raises. Django catches only subclasses of `Exception`."""
    try:
        yield
    except SystemExit:
        logger.exception("a receiver of a task signal raised SystemExit, which is ignored")


def send_failure_signal(signal: Signal, sender: Any, result: AnyResult, error: BaseException) -> None:
    """Send a signal inside an `except` block, so that receivers such as Django's log can read `sys.exc_info()`."""
    stack = error.__traceback__
    try:
        raise error
    except BaseException as raised:
        if raised is not error:
            raise  # code that was interrupted here turned the interruption into this exception
        error.__traceback__ = stack  # remove this function from the traceback
        send_signal(signal, sender, result)


class Announcement:
    """Sends `task_enqueued` of one task exactly once: after it was stored, or at the start of its run.

    A run can start first, for example with `EAGER`. The object exists until the enqueue returns, and inside a
    transaction until the commit, because the handle refers to it.
    """

    def __init__(self, sender: Any, result: AnyResult, enqueued: Callable[[], None]) -> None:
        self.result = result
        self.outcome: AnyResult | None = None
        self._sender = sender
        self._enqueued = enqueued
        open_announcements[result.id] = self

    def __enter__(self) -> None:
        """Do nothing at the start of the block, which enqueues the task."""

    def __exit__(self, kind: object, error: object, stack: object) -> None:
        """Discard the announcement if the enqueue failed. The error's traceback would keep it alive."""
        if error is not None:
            open_announcements.pop(self.result.id, None)

    def send(self) -> None:
        """Send `task_enqueued`, unless it was sent before."""
        if open_announcements.pop(self.result.id, None) is not None:
            self._enqueued()
            send_signal(task_enqueued, self._sender, self.result)


class Announcer(Observer):
    """Sends `task_enqueued` when the client reports a task as stored, which is after the commit of a transaction."""

    def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Send `task_enqueued` for these tasks."""
        for handle in handles:
            announcement = open_announcements.get(handle.id)
            if announcement is not None:
                announcement.send()

    async def aenqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Send `task_enqueued` for these tasks from a thread, because most receivers block."""
        if open_announcements:
            await sync_to_async(self.enqueued, thread_sensitive=True)(handles)


open_announcements: "weakref.WeakValueDictionary[str, Announcement]" = weakref.WeakValueDictionary()
"""Announcements of tasks that are being enqueued, by task id."""


def announcement_of(task_id: str) -> Announcement | None:
    """Return the announcement of a task that this process is enqueueing, or None."""
    return open_announcements.get(task_id)
