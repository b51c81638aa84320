"""Run tasks: open the span, decode the arguments, call the function, end it in time.

Coroutines run on the loop, plain functions in threads, or in processes if their tasks say so. A function that must end
is interrupted: it timed out, was cancelled or lost its lease, or the worker stops. If it has not ended `STUCK_S` later,
it is abandoned: its run is settled and its slot is free, while the function keeps running. There are at most as many
abandoned functions as slots. Any further function keeps its slot. One timer serves all deadlines.
"""

import asyncio
import logging
import math
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from taskq_core.clock import Clock, utc_datetime
from taskq_core.execution.context import Notes, TaskContext, current
from taskq_core.handles.expiry import check_expiry
from taskq_core.service.user_code import readable
from taskq_core.tasks.handlers import Handler, Handlers
from taskq_core.tasks.middleware import Middleware, MiddlewareStack
from taskq_core.tasks.task import Task
from taskq_core.telemetry import Tracing, unwrap
from taskq_core.wire import TaskMessage
from taskq_core.worker.listener import WorkerListener
from taskq_core.worker.processes import TaskProcesses
from taskq_core.worker.run import Ending, Run, RunTask, ends_at
from taskq_core.worker.threads import TaskThreads

logger = logging.getLogger("taskq.worker")

LATEST_S = 253_402_300_799
"""Last Unix second a calendar holds, in the year 9999."""
STUCK_S = 10.0
"""Seconds after which an interrupted function that still runs is abandoned."""


class Executor:
    """Runs tasks.

    Args:
        find_task: Returns the task of a name, or None.
        handlers: Run what no task is registered for.
        middleware: Wraps runs.
        tracing: Opens consumer spans.
        clock: Source of monotonic time.
        worker: Token of the worker.
        concurrency: Most threads in use, and most abandoned functions.
        redis_time: Returns Unix seconds by Redis's clock.
        ended: Called for each run whose function has ended.
        notes_of: Returns what takes the notes of a run, when its function makes the first.
        fields_ignored: Called with queue, name and count when fields of a payload are ignored.
        trace_malformed: Called with the queue of a message whose trace cannot be read.
        listener: Told of each run, if it wants to be.
        stuck: Called once for each run that has not ended after its interruption, abandoned or not.
        state: What runs find as the state of their context.
        processes: Runs tasks that want a process of their own; None: they run in threads, as in tests.
    """

    def __init__(
        self,
        find_task: Callable[[str], Task[Any, Any] | None],
        handlers: Handlers,
        middleware: MiddlewareStack,
        tracing: Tracing,
        clock: Clock,
        *,
        worker: str,
        concurrency: int,
        redis_time: Callable[[], float],
        ended: Callable[[Run], None],
        notes_of: Callable[[Run], Notes],
        fields_ignored: Callable[[str, str, int], None],
        trace_malformed: Callable[[str], None],
        listener: WorkerListener,
        stuck: Callable[[Run], None],
        state: Mapping[str, Any],
        processes: TaskProcesses | None = None,
    ) -> None:
        self._find_task = find_task
        self._handlers = handlers
        self._middleware = middleware
        self._tracing = tracing
        self._clock = clock
        self._worker = worker
        self._redis_time = redis_time
        self._report_end = ended
        self._notes_of = notes_of
        self._fields_ignored = fields_ignored
        self._trace_malformed = trace_malformed
        self._listener = listener if listener.per_task else None
        self._report_stuck = stuck
        self._state = state
        self._processes = processes
        self._loop = asyncio.get_running_loop()
        self._most_abandoned = concurrency
        self._threads = TaskThreads(concurrency, call=self._call, ended=self._finish)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self.running: dict[tuple[str, str], Run] = {}
        """Runs by queue and id, until their settlement is known."""
        self.abandoned = 0
        """Functions that still run although their runs are settled."""
        self.ignored_fields = 0
        """Unknown payload fields that were ignored."""

    # --- start --------------------------------------------------------------------------------------------------------

    def start(self, run: Run, now: float) -> None:
        """Start a run at a monotonic second. It ends through `ended`, also when it cannot start."""
        message = run.message
        run.started = now
        known = self.running.setdefault(run.key, run)
        if known is not run:  # it was lost, taken back and came here again, while its function still runs
            self.end(known, Ending.LEASE_LOST)
            self.running[run.key] = run
        name = run.name
        task = run.task = self._find_task(name) or self._handlers.find(name)
        self._set_deadline(run, message, now)
        has_headers = not self._middleware.wraps_runs or bool(message.headers)  # if nobody looks, it is not asked
        run.context = TaskContext.filled_by(partial(self._fill, run), has_headers=has_headers)
        try:
            if run.error is not None:
                raise run.error
            if run.may_expire:
                check_expiry(message, self._redis_time(), run.queue.name)
            parameters = () if isinstance(task, Handler) else task.codec.parameters
            payload, traceparent = unwrap(message.payload, parameters)
            tracer = self._tracing.tracer()
            if tracer is not None:
                headers: Mapping[str, str] = message.headers
                if traceparent is not None:
                    headers = {**headers, "traceparent": traceparent}
                run.span = self._tracing.start_consumer(
                    run.queue.name,
                    name,
                    run.task_id,
                    retried=message.retried,
                    max_retry=message.retry,
                    headers=headers,
                    relation=task.options.relation,
                    body_size=len(message.payload),
                    tracer=tracer,
                )
                if run.span.is_malformed:
                    self._trace_malformed(run.queue.name)
            if self._listener is not None:
                self._listener.task_started(run.context)
            if isinstance(task, Handler):
                run.kwargs = task.arguments(message, payload, run.queue.name)
            else:
                run.kwargs, ignored = task.codec.decode_counting(payload)
                if ignored:
                    self.ignored_fields += ignored
                    self._fields_ignored(run.queue.name, name, ignored)
            if run.ends_by <= now:
                run.ending = Ending.TIMEOUT
                raise TimeoutError(Ending.TIMEOUT.value)
        except BaseException as error:  # whatever it is, it is this run's: the one who starts runs must go on
            run.error = readable(error)
            self._loop.call_soon(self._finish, run)  # later, so that who starts runs sees none end meanwhile
            return
        if task.is_coroutine or (task.runs_in_process and self._processes is not None):
            self._start_coroutine(run)
        else:
            self._threads.submit(run)

    def _fill(self, run: Run, context: TaskContext) -> None:
        """Set what a running function reads of itself, when it first does."""
        message = run.message
        context.id = message.id
        context.name = run.name
        context.queue = run.queue.name
        context.retried = message.retried
        context.max_retry = message.retry
        context.deadline = utc_datetime(self.deadline_s(run))
        context.headers = dict(message.headers)
        context.local = False
        context.state = self._state
        context._loop = self._loop
        context.worker = self._worker
        context.outcome = None if run.outcome is None else run.outcome.value
        context._loops = None
        context._open_notes = partial(self._notes_of, run)

    def deadline_s(self, run: Run) -> float:
        """Return the Unix second, by Redis's clock, at which a run is told to end."""
        return min(self._redis_time() + run.ends_by - self._clock.monotonic(), LATEST_S)

    def _set_deadline(self, run: Run, message: TaskMessage, now: float) -> None:
        """Set when the run is told to end."""
        timeout_s = message.timeout
        if message.deadline > 0:
            ends_by = ends_at(message, now, clock_ahead_s=self._redis_time() - now)
        elif timeout_s > 0:  # by far the most, so without a call
            ends_by = now + timeout_s
        else:
            ends_by = ends_at(message, now, clock_ahead_s=0.0)
        run.ends_by = ends_by
        if ends_by < self._timer_at:
            self._arm(ends_by)

    def hold(self, run: Run) -> None:
        """Let the time of a run stand still until it begins anew, but for its deadline: its process comes up."""
        if run.ending is None:
            deadline_s = run.message.deadline
            run.ends_by = self._clock.monotonic() + deadline_s - self._redis_time() if deadline_s > 0 else math.inf

    def begin(self, run: Run) -> None:
        """Let the time of a run begin now."""
        if run.ending is None:
            self._set_deadline(run, run.message, self._clock.monotonic())

    if sys.version_info >= (3, 12):

        def _start_coroutine(self, run: Run) -> None:
            # Eagerly: a coroutine that never waits needs no turn of the loop.
            run.coroutine = RunTask(self._run_coroutine(run), loop=self._loop, eager_start=True)

    else:

        def _start_coroutine(self, run: Run) -> None:
            run.coroutine = RunTask(self._run_coroutine(run), loop=self._loop)

    async def _run_coroutine(self, run: Run) -> None:
        # This asyncio task has a context of its own, so what is set here ends with it.
        task, context = run.task, run.context
        assert task is not None
        current.set(context)
        if run.span is not None:
            run.span.attach()
        try:
            if not task.is_coroutine:
                assert self._processes is not None
                run.result = await self._processes.call(run)
            elif self._middleware.wraps_runs:
                run.result = await self._wrapped_coroutine(run)
            elif task.takes_context:
                run.result = await task.body(context, **run.kwargs)
            else:
                run.result = await task.body(**run.kwargs)
        except BaseException as raised:
            if issubclass(type(raised), MemoryError):
                traceback.clear_frames(raised.__traceback__)  # as for a plain function
            error = run.error = readable(raised)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                logger.warning("task %s raised %s; it counts as failed", task.name, type(error).__name__)
        self._finish(run)

    def _wrapped_coroutine(self, run: Run) -> Awaitable[object]:
        call: Callable[[], Awaitable[object]] = self._bound(run)
        assert run.context is not None
        for middleware in reversed(self._around(run)):
            call = partial(middleware.aaround, run.context, call)
        return call()

    def _around(self, run: Run) -> tuple[Middleware, ...]:
        assert run.task is not None
        return self._middleware.of_run(run.queue.name, run.task.name, run.name)

    def _bound(self, run: Run) -> Callable[[], Any]:
        assert run.task is not None
        if run.task.takes_context:
            return partial(run.task.body, run.context, **run.kwargs)
        return partial(run.task.body, **run.kwargs)

    def _call(self, run: Run) -> object:
        """Run a plain function, in its thread."""
        task, context = run.task, run.context
        assert task is not None
        assert context is not None
        current.set(context)
        if run.span is not None:
            run.span.attach()
        if self._middleware.wraps_runs:
            call = self._bound(run)
            for middleware in reversed(self._around(run)):
                call = partial(middleware.around, context, call)
            return call()
        if task.takes_context:
            return task.body(context, **run.kwargs)
        return task.body(**run.kwargs)

    # --- end ----------------------------------------------------------------------------------------------------------

    def _finish(self, run: Run) -> None:
        run.coroutine = run.thread = None
        if run.is_abandoned:
            self.abandoned -= 1
            logger.info("an abandoned function of task %s has ended", run.name, extra=_ids(run))
        else:
            self._report_end(run)

    @property
    def is_worn_out(self) -> bool:
        """Whether no further function can be abandoned, so that the process should be replaced."""
        return self.abandoned >= self._most_abandoned

    def _abandon(self, run: Run) -> bool:
        """Settle a run whose function still runs. Return False if its slot has to wait for the function.

        A worker that stops returns such a run to its queue, and a task in a process is killed.
        """
        assert run.task is not None
        if self.is_worn_out or run.ending is Ending.SHUTDOWN:
            return False
        stack = ""
        if run.thread is not None:
            stack = run.thread.stack()
            if not self._threads.abandon(run):
                return False
        elif run.coroutine is None:  # it has ended, and its progress is still to be written
            return False
        run.is_abandoned = True
        self.abandoned += 1
        logger.warning(
            "task %s still runs %g s after it was interrupted (%s): its run is settled and its slot is free, but its "
            "function may still have effects; %d of at most %d functions are abandoned%s",
            run.name,
            STUCK_S,
            _ending(run),
            self.abandoned,
            self._most_abandoned,
            f", this one at\n{stack}" if stack else "",
            extra=_ids(run),
        )
        self._report_end(run)
        return True

    def end(self, run: Run, ending: Ending, *, again: bool = False) -> None:
        """Tell a run's function to end. What it was told first counts, but a lost lease counts always.

        A plain function is told once, unless `again`: it may be cleaning up.
        """
        if run.settlement is not None:
            return
        if run.ending is None or ending is Ending.LEASE_LOST:
            if run.ending is None:
                self._look_again(run)
            run.ending = ending
        if run.coroutine is not None:
            # Later: a coroutine that is cancelled before its first step would never run, nor report its end.
            self._loop.call_soon(run.coroutine.end)
        elif run.task is not None and not run.task.is_coroutine:
            self._threads.interrupt(run, again=again)

    def _look_again(self, run: Run) -> None:
        """Look in a while whether a run that is told to end now has ended."""
        run.ends_by = min(run.ends_by, self._clock.monotonic() + STUCK_S)
        if run.ends_by < self._timer_at:
            self._arm(run.ends_by)

    def runs_of(self, queue_names: tuple[str, ...], task_id: str) -> list[Run]:
        """Return the runs of a task here, in whichever of these queues."""
        found = [self.running.get((name, task_id)) for name in queue_names]
        return [run for run in found if run is not None]

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock.monotonic()), self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._clock.monotonic()
        upcoming = math.inf
        for run in list(self.running.values()):
            if run.settlement is not None or run.error is not None:  # it has ended, and is about to be settled
                continue
            if run.ends_by > now:
                upcoming = min(upcoming, run.ends_by)
                continue
            if run.ending is None:
                self.end(run, Ending.TIMEOUT)
            else:
                self.end(run, run.ending, again=True)  # it may have caught the first
                is_abandoned = self._abandon(run)
                if not run.is_stuck:
                    run.is_stuck = True
                    self._report_stuck(run)
                if is_abandoned:
                    continue
                logger.warning(
                    "task %s was interrupted (%s) and still runs; it keeps its slot",
                    run.name,
                    _ending(run),
                    extra=_ids(run),
                )
            run.ends_by = now + STUCK_S
            upcoming = min(upcoming, run.ends_by)
        if upcoming < self._timer_at:
            self._arm(upcoming)

    def resize(self, concurrency: int) -> None:
        """Set the maximum number of threads and of abandoned functions. Surplus threads stay idle."""
        self._most_abandoned = concurrency
        self._threads.resize(concurrency)

    async def close(self) -> None:
        """Let threads and processes end and stop the timer."""
        self._threads.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._processes is not None:
            await self._processes.close()


def _ending(run: Run) -> str:
    assert run.ending is not None
    return run.ending.value


def _ids(run: Run) -> dict[str, str]:
    return {"queue": run.queue.name, "task_id": run.task_id}
