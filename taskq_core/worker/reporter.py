"""Tell error handlers of runs that failed, and an adapter's observer of those it wants to know of.

The outcome of such a run is on its way to Redis meanwhile; only its slot stays taken until all handlers have returned.
So a worker has never more failures to tell of than it has slots, however fast tasks fail and however slow a handler is,
and a handler that hangs can neither lose nor delay what became of a task. One that does is told to end, so that it does
not take the worker's slots one by one.

Coroutine functions run on the loop, plain ones in daemon threads of their own, in the order of their registration.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from taskq_core.clock import Clock
from taskq_core.execution.context import TaskContext, current
from taskq_core.service.user_code import abandon, unlisted
from taskq_core.tasks.handlers import ErrorHandler
from taskq_core.tasks.observer import Observer
from taskq_core.worker.calls import FunctionThreads, call_coroutine
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

LONGEST_S = 30.0
"""Seconds after which an error handler is told to end."""


class ErrorReporter:
    """Tells error handlers of failures.

    Args:
        handlers: Those of the application. Whoever is added later is told as well.
        clock: Source of monotonic time.
        threads: Most threads for plain functions. They start as they are needed.
        released: Called with how many runs may give up their slot.
        observer: Told of runs with the outcomes it wants to know of.
        guard: Put around what the observer does; see `Timetable.guard`.
    """

    def __init__(
        self,
        handlers: Sequence[ErrorHandler],
        clock: Clock,
        *,
        threads: int,
        released: Callable[[int], None],
        observer: Observer | None = None,
        guard: Callable[[Any], Any] = lambda function: function,
    ) -> None:
        self._handlers = handlers
        self._observer = observer or Observer()
        self._guard = guard
        self._threads = FunctionThreads(threads, clock)
        self._released = released
        self._telling: set[asyncio.Task[None]] = set()

    def report(self, run: Run) -> None:
        """Begin to tell of a run that has ended. On the event loop.

        It is `is_reported` until that is done. If it is over by then, `released` is called for it.
        """
        outcome = None if run.outcome is None else run.outcome.value
        is_observed = outcome is not None and self._observer.wants_ended(outcome)
        if run.context is None or not (is_observed or (self._handlers and run.failure is not None)):
            return
        run.is_reported = True
        run.context.outcome = outcome
        ended = (run.context, run.result, run.failure or run.error) if is_observed else None
        task = unlisted(asyncio.get_running_loop().create_task(self._tell(run, run.failure, run.context, ended)))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(
        self, run: Run, error: BaseException | None, context: TaskContext, ended: tuple[Any, ...] | None
    ) -> None:
        current.set(context)
        if run.span is not None:
            run.span.attach()  # it has ended; what a handler sends and logs still belongs to its trace
        try:
            if ended is not None:
                try:
                    await self._in_thread(
                        run, "who is told of runs", partial(self._guard(self._observer.ended), *ended)
                    )
                except Exception:
                    logger.exception("what was to be told of a run failed", extra=_facts(context))
            for handler in tuple(self._handlers) if error is not None else ():
                try:
                    await self._call(handler, run, partial(handler.guarded, error, context))
                except Exception:
                    logger.exception("error handler %s failed", handler.name, extra=_facts(context))
        finally:
            run.is_reported = False
            if run.is_over:
                self._released(1)

    async def _call(self, handler: ErrorHandler, run: Run, call: Callable[[], Any]) -> None:
        if handler.is_coroutine:
            await call_coroutine(call, LONGEST_S)
        else:
            await self._in_thread(run, f"error handler {handler.name}", call)

    async def _in_thread(self, run: Run, name: str, call: Callable[[], Any]) -> None:
        await self._threads.run(
            partial(contextvars.copy_context().run, call),
            queue=run.queue,
            ident=run.task_id,
            name=name,
            timeout_s=LONGEST_S,
        )

    async def close(self, timeout_s: float) -> None:
        """Give handlers that still run a last moment, and leave them."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=timeout_s)
        for task in self._telling:
            abandon(task)
        self._threads.close()


def _facts(context: TaskContext) -> dict[str, object]:
    return {"queue": context.queue, "task_id": context.id, "attempt": context.attempt}
