"""Call the functions of aggregators, which combine the tasks of a group into one task."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from taskq_core.execution.context import TaskContext
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.aggregation import Aggregation, GroupedTask
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext

logger = logging.getLogger("taskq.worker")

OBSERVER_S = 30.0
"""Timeout in seconds of the application's observer of enqueued tasks."""


class Combiner:
    """Calls the functions of aggregators: coroutine functions on the loop, plain functions in threads.

    Both run inside the application's middleware, as tasks do, and in the trace of the group's first task. The returned
    task passes through the middleware for outgoing calls.

    Args:
        context: The worker.
        size: Maximum number of threads.
    """

    def __init__(self, context: WorkerContext, size: int) -> None:
        self._app = context.app
        self._call = context.new_caller(size, name="an aggregator", on_exhausted=context.on_exhausted)

    async def combine(
        self, aggregation: Aggregation, queue: QueueKeys, set_id: str, group: str, tasks: list[GroupedTask]
    ) -> Signature[Any]:
        """Call the aggregator's function with the tasks of a group. Return the combined task, changed by middleware.

        Raises:
            TimeoutError: The function did not end in time.
            TypeError: The function did not return a task signature.
        """
        name = aggregation.name
        context = TaskContext(id=set_id, name=name, queue=queue.name)
        function = partial(aggregation.function, group, tasks)
        call: Callable[[], Any] = partial(
            self._acombine if aggregation.is_coroutine else self._combine, function, queue
        )
        for each in reversed(self._app.middleware.of_run(queue.name, name, name)):
            call = partial(each.aaround if aggregation.is_coroutine else each.around, context, call)
        with self._app.runtime.tracing.continued(tasks[0].headers):
            return _signature(await self._call(call, timeout_s=aggregation.timeout_s))

    async def notify_enqueued(self, handle: TaskHandle[Any], queue: QueueKeys) -> None:
        """Call the application's observer of enqueued tasks, if there is one, with a combined task that was stored."""
        observer = self._app.observer
        if observer is None or not observer.wants_enqueued():
            return
        notify = self._app.timetable.guard(observer.notify_enqueued)
        try:
            await self._call(notify, (handle,), timeout_s=OBSERVER_S)
        except Exception:
            logger.exception("the observer of enqueued tasks failed", extra={"queue": queue.name})

    def _combine(self, function: Callable[[], Any], queue: QueueKeys) -> Signature[Any]:
        call = _signature(function()).using(queue=queue.name)
        middleware = self._app.middleware
        return middleware.outgoing(call) if middleware.sees_calls else call

    async def _acombine(self, function: Callable[[], Any], queue: QueueKeys) -> Signature[Any]:
        call = _signature(await function()).using(queue=queue.name)
        middleware = self._app.middleware
        return await middleware.aoutgoing(call) if middleware.sees_calls else call


def _signature(result: object) -> Signature[Any]:
    if not isinstance(result, Signature):
        raise TypeError(f"an aggregator must return a task signature, task.s(...), got {type(result).__name__}")
    return result
