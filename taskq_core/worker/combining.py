"""Call the functions of aggregators, which make one task of a group."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.clock import Clock
from taskq_core.execution.context import TaskContext
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.aggregation import Aggregation, GroupedTask
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import QueueKeys
from taskq_core.worker.calls import FunctionThreads, call_coroutine

logger = logging.getLogger("taskq.worker")

TELL_S = 30.0
"""Most seconds for telling of a task that was stored."""


class FunctionCaller:
    """Calls the functions of aggregators: coroutines on the loop, plain functions in threads of their own.

    Both run inside the application's middleware, as a task would, and in the trace of the group's first task. There the
    middleware sees the task they return, too, as one that blocking code or a coroutine enqueues.

    Args:
        app: The queue application.
        clock: Source of monotonic time.
        size: Most threads.
    """

    def __init__(self, app: TaskQ, clock: Clock, *, size: int) -> None:
        self._app = app
        self._threads = FunctionThreads(size, clock)

    async def __call__(
        self, aggregation: Aggregation, queue: QueueKeys, set_id: str, group: str, tasks: list[GroupedTask]
    ) -> Signature[Any]:
        """Call the function and return the task it made of the others, as the middleware leaves it.

        Raises:
            TimeoutError: It did not end in time.
            TypeError: It returned something else.
        """
        name = aggregation.name
        context = TaskContext(id=set_id, name=name, queue=queue.name)
        middleware = self._app.middleware.of_run(queue.name, name, name)
        function = partial(aggregation.function, group, tasks)
        headers = tasks[0].headers
        result: Any
        if aggregation.is_coroutine:
            call: Callable[[], Any] = partial(self._acombine, function, queue)
            for each in reversed(middleware):
                call = partial(each.aaround, context, call)
            with self._app.runtime.tracing.continued(headers):
                result = await call_coroutine(call, aggregation.timeout_s)
        else:
            call = partial(self._combine, function, queue)
            for each in reversed(middleware):
                call = partial(each.around, context, call)
            traced = partial(self._continue_trace, headers, call)
            result = await self._threads.run(
                traced, queue=queue, ident=set_id, name=f"aggregator {name}", timeout_s=aggregation.timeout_s
            )
        return _signature(result)

    async def tell_enqueued(self, handle: TaskHandle[Any], queue: QueueKeys) -> None:
        """Tell the application's observer of a task that was stored for others."""
        tell = self._app.timetable.guard(self._app.observer.tell_enqueued)
        try:
            await self._threads.run(
                partial(tell, (handle,)),
                queue=queue,
                ident=handle.id,
                name=f"who is told of {handle.name}",
                timeout_s=TELL_S,
            )
        except Exception:
            logger.exception("what was to be told of an enqueued task failed", extra={"queue": queue.name})

    def _combine(self, function: Callable[[], Any], queue: QueueKeys) -> Signature[Any]:
        call = _signature(function()).using(queue=queue.name)
        middleware = self._app.middleware
        return middleware.outgoing(call) if middleware.sees_calls else call

    async def _acombine(self, function: Callable[[], Any], queue: QueueKeys) -> Signature[Any]:
        call = _signature(await function()).using(queue=queue.name)
        middleware = self._app.middleware
        return await middleware.aoutgoing(call) if middleware.sees_calls else call

    def _continue_trace(self, headers: Any, call: Callable[[], object]) -> object:
        with self._app.runtime.tracing.continued(headers):
            return call()

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


def _signature(result: object) -> Signature[Any]:
    if not isinstance(result, Signature):
        raise TypeError(f"it must return the signature of a task, task.s(...), got {type(result).__name__}")
    return result
