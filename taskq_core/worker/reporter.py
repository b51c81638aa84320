"""Call the application's error handlers for failed runs, and the adapter's observer for the runs that it wants.

The outcome of such a run is sent to Redis at the same time, so a hanging handler neither loses nor delays an outcome.
Only the slot of the run stays in use until all handlers have returned. So a worker never has more failures to report
than slots. A handler that takes too long is interrupted, so it cannot block a slot for long.

Handlers are called in the order of their registration.
"""

import logging
from collections.abc import Callable
from typing import Any

from taskq_core.execution.context import TaskContext, current
from taskq_core.tasks.observer import Observer
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

LONGEST_S = 30.0
"""Seconds after which an error handler is interrupted."""


class ErrorReporter:
    """Calls error handlers with failed runs, and the application's observer with the runs that it selects.

    Args:
        context: The worker.
    """

    def __init__(self, context: WorkerContext) -> None:
        app = context.app
        self._background = context.background
        self._handlers = app.error_handlers
        self._observer = app.observer or Observer()
        self._guard = app.timetable.guard
        self._call = context.new_caller(context.config.concurrency, name="an error handler")

    def report(self, run: Run, done: Callable[[Run], None]) -> None:
        """Call the handlers with a run that has ended. Its `is_reported` is True until all handlers have returned.

        Args:
            run: The run.
            done: Called with the run after all handlers.
        """
        outcome = None if run.outcome is None else run.outcome.value
        is_observed = outcome is not None and self._observer.wants_ended(outcome)
        if run.context is None or not (is_observed or (self._handlers and run.failure is not None)):
            return
        run.is_reported = True
        run.context.outcome = outcome
        ended = (run.context, run.result, run.failure or run.error) if is_observed else None
        self._background.start(self._call_all(run, run.failure, run.context, ended, done))

    async def _call_all(
        self,
        run: Run,
        error: BaseException | None,
        context: TaskContext,
        ended: tuple[Any, ...] | None,
        done: Callable[[Run], None],
    ) -> None:
        current.set(context)
        if run.span is not None:
            run.span.attach()  # spans and logs of the handlers then belong to the trace of the run
        try:
            if ended is not None:
                try:
                    await self._call(self._guard(self._observer.ended), *ended, timeout_s=LONGEST_S)
                except Exception:
                    logger.exception("the observer of ended runs failed", extra=_facts(context))
            for handler in tuple(self._handlers) if error is not None else ():
                try:
                    await self._call(handler.guarded, error, context, timeout_s=LONGEST_S)
                except Exception:
                    logger.exception("error handler %s failed", handler.name, extra=_facts(context))
        finally:
            run.is_reported = False
            done(run)


def _facts(context: TaskContext) -> dict[str, object]:
    return {"queue": context.queue, "task_id": context.id, "attempt": context.attempt}
