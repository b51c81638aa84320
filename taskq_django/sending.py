"""Send Django's signals about tasks: on the events that the core reports (`Observer`), and around runs."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from typing import Any

from django.dispatch import Signal

from taskq_core import RawTask, RemoteTask, Task, TaskContext, TaskHandle
from taskq_core.execution.context import current
from taskq_core.tasks.middleware import Middleware
from taskq_core.tasks.observer import Observer
from taskq_django.signals import task_enqueued, task_failed, task_retried, task_started, task_succeeded

logger = logging.getLogger("taskq.signals")

_ENDED: dict[str, Signal] = {
    "completed": task_succeeded,
    "retried": task_retried,
    "snoozed": task_retried,
    "archived": task_failed,
}


Tasks = Mapping[str, Task[Any, Any]]


class SignalObserver(Observer):
    """Sends the signal `task_enqueued` and the signals about the ends of runs, if they have receivers.

    Attributes:
        framework: The observer of tasks of `django.tasks`, which sends the framework's signals.
        announced: The tasks of `django.tasks` that are being enqueued.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.framework = Observer()
        self.announced: Sized = ()

    def wants_enqueued(self) -> bool:
        """Whether `task_enqueued` has receivers, or a task of `django.tasks` is being enqueued."""
        return bool(task_enqueued.receivers or self.announced)

    def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """Send `task_enqueued` for each task."""
        self.framework.notify_enqueued(handles)
        if task_enqueued.receivers:
            for handle in handles:
                _send(task_enqueued, self._tasks.get(handle.name, RemoteTask), _about(handle))

    async def aenqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
        """As `enqueued`, from a coroutine."""
        await self.framework.anotify_enqueued(handles)
        if task_enqueued.receivers:
            for handle in handles:
                await _asend(task_enqueued, self._tasks.get(handle.name, RemoteTask), _about(handle))

    def wants_ended(self, outcome: str) -> bool:
        """Whether the signal about this outcome has receivers."""
        signal = _ENDED.get(outcome)
        return bool(signal and signal.receivers) or self.framework.wants_ended(outcome)

    def ended(self, context: TaskContext, result: object, error: BaseException | None) -> None:
        """Send the signal about the outcome."""
        assert context.outcome is not None
        if self.framework.wants_ended(context.outcome):
            self.framework.ended(context, result, error)
        signal = _ENDED.get(context.outcome)
        if signal is None or not signal.receivers:
            return
        more = {"result": result} if signal is task_succeeded else {"error": error}
        _send(signal, self._tasks.get(context.name, RawTask), {**_about_run(context), **more})


class SignalMiddleware(Middleware):
    """Sends `task_started` before each run, if the signal has receivers."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Send `task_started`, and run a plain function."""
        if task_started.receivers and current.get() is context:  # False in an aggregator, which sends no signals
            _send(task_started, self._tasks.get(context.name, RawTask), _about_run(context))
        return call()

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Send `task_started`, and run a coroutine."""
        if task_started.receivers and current.get() is context:  # False in an aggregator, which sends no signals
            await _asend(task_started, self._tasks.get(context.name, RawTask), _about_run(context))
        return await call()


def _about(handle: TaskHandle[Any]) -> dict[str, Any]:
    return {"task_id": handle.id, "name": handle.name, "queue": handle.queue, "handle": handle}


def _about_run(context: TaskContext) -> dict[str, Any]:
    return {"task_id": context.id, "name": context.name, "queue": context.queue, "context": context}


def _send(signal: Signal, sender: object, about: dict[str, Any]) -> None:
    """Send a signal to all receivers. Django logs their exceptions."""
    try:
        signal.send_robust(sender, **about)
    except SystemExit:
        logger.exception("a receiver of a signal about task %s raised SystemExit", about["name"])


async def _asend(signal: Signal, sender: object, about: dict[str, Any]) -> None:
    try:
        await signal.asend_robust(sender, **about)
    except SystemExit:
        logger.exception("a receiver of a signal about task %s raised SystemExit", about["name"])
