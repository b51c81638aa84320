"""Run tasks: open the span, decode the arguments, call the function, and interrupt it at its timeout.

Coroutines run on the loop. Plain functions run in threads, or in processes if their tasks say so. A function must end
if it timed out, was cancelled or lost its lease, or if the worker stops. The executor then interrupts it. If it has not
ended `STUCK_S` later, the executor abandons it: the run is settled and its slot is free, while the function keeps
running. At most as many functions are abandoned as there are slots. Any further function keeps its slot.
"""

import asyncio
import logging
import socket
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from taskq_core.broker.operations.services import CancelOutcome, read_cancel
from taskq_core.clock import utc_datetime
from taskq_core.execution.context import TaskContext, current
from taskq_core.execution.step_failures import track_branches
from taskq_core.handles.expiry import check_expiry
from taskq_core.service.user_code import readable
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.deadlines import Deadlines
from taskq_core.worker.listener import call_guarded
from taskq_core.worker.progress import ProgressWriter
from taskq_core.worker.run import Ending, Run, RunTask
from taskq_core.worker.run_log import warn_with_stack
from taskq_core.worker.settler import Settler
from taskq_core.worker.threads import TaskThreads

if TYPE_CHECKING:
    from taskq_core.worker.processes import TaskProcesses

logger = logging.getLogger("taskq.worker")

STUCK_S = 10.0
"""Seconds after which an interrupted function that still runs is abandoned."""


class Executor:
    """Runs the functions of tasks, on the event loop, in threads or in processes.

    Args:
        context: The worker.
        settler: Receives each run whose function has ended, or was abandoned.
        state: State of the worker's lifespan, for the contexts of runs.
        socket_name: Socket that processes of tasks inherit; see `liveness.hold`.
    """

    def __init__(
        self,
        context: WorkerContext,
        settler: Settler,
        *,
        state: Mapping[str, Any],
        socket_name: socket.socket | None,
    ) -> None:
        self._context = context
        self._app = context.app
        self._middleware = context.app.middleware
        self._tracing = context.app.runtime.tracing
        self._settler = settler
        self._listener = context.listener if context.listener.per_task else None
        self._state = state
        self._loop = asyncio.get_running_loop()
        track_branches(self._loop)
        self._most_abandoned = context.config.concurrency
        self._deadlines = Deadlines(context, self._overdue)
        self._progress = ProgressWriter(context, settler.add)
        self._threads = TaskThreads(
            self._most_abandoned,
            call=self._call,
            ended=self._finish,
            close_thread=context.app.bridge.close_thread,
        )
        self._socket_name = socket_name
        self._processes: TaskProcesses | None = None
        self.abandoned = 0
        """Number of abandoned functions: they still run, although their runs are settled."""
        self.ignored_fields = 0
        """Number of unknown payload fields that were ignored."""

    # --- start --------------------------------------------------------------------------------------------------------

    def start(self, run: Run, now: float) -> None:
        """Start a run; `now` is the monotonic time. The settler receives its end, even if the run cannot start."""
        message = run.message
        run.started = now
        known = self._context.running.setdefault(run.key, run)
        # If the worker lost the lease of a task, it may fetch the task again while the earlier run has not ended.
        if known is not run:
            self.end(known, Ending.LEASE_LOST)
            self._context.running[run.key] = run
        task = run.task = self._app.find_handler(run.name)
        self._deadlines.begin(run, now)
        # Middleware reads the headers in each run. If the task has no headers, reading them must not fill the whole
        # context.
        has_headers = not self._middleware.wraps_runs or bool(message.headers)
        run.context = TaskContext.filled_by(partial(self._fill, run), has_headers=has_headers)
        try:
            if run.error is not None:
                raise run.error
            if run.may_expire:
                check_expiry(message, self._context.redis_clock.time(), run.queue.name)
            if self._tracing.is_active and run.start_span(self._tracing).is_malformed:
                self._context.metrics.malformed_trace(run.queue.name)
            if self._listener is not None:
                call_guarded(self._listener.task_started, run.context)
            ignored = run.decode()
            if ignored:
                self.ignored_fields += ignored
                self._context.metrics.ignored_fields(run.queue.name, run.name, ignored)
            if run.ends_by <= now:
                run.ending = Ending.TIMEOUT
                raise TimeoutError(Ending.TIMEOUT.value)
        except BaseException as error:  # any error fails only this run, so that the caller can start the next one
            run.error = readable(error)
            # Finish the run in the next cycle of the event loop, because the caller of `start` does not expect an
            # earlier end.
            self._loop.call_soon(self._finish, run)
            return
        if task.is_coroutine or (task.runs_in_process and self._context.config.task_processes):
            self._start_coroutine(run)
        else:
            self._threads.submit(run)

    def _fill(self, run: Run, context: TaskContext) -> None:
        """Set all attributes of the task's context. Called when the function first reads one of them."""
        message = run.message
        context.id = message.id
        context.name = run.name
        context.queue = run.queue.name
        context.retried = message.retried
        context.max_retry = message.retry
        context.deadline = utc_datetime(self._deadlines.unix_s(run))
        context.headers = dict(message.headers)
        context.local = False
        context.state = self._state
        context._loop = self._loop
        context.worker = self._context.token
        context.outcome = None if run.outcome is None else run.outcome.value
        context._loops = None
        context._open_buffer = partial(self._progress.of, run)

    if sys.version_info >= (3, 12):

        def _start_coroutine(self, run: Run) -> None:
            # Start the coroutine eagerly: if it never waits, it ends without a cycle of the event loop.
            run.coroutine = RunTask(self._run_coroutine(run), loop=self._loop, eager_start=True)

    else:

        def _start_coroutine(self, run: Run) -> None:
            run.coroutine = RunTask(self._run_coroutine(run), loop=self._loop)

    async def _run_coroutine(self, run: Run) -> None:
        # Each asyncio task has a separate context. So the values that are set below disappear when the coroutine ends.
        task, context = run.task, run.context
        assert task is not None
        current.set(context)
        if run.span is not None:
            run.span.attach()
        try:
            if not task.is_coroutine:
                run.result = await self._in_process(run)
            elif self._middleware.wraps_runs:
                run.result = await run.bound(self._middleware)()
            elif task.takes_context:
                run.result = await task.body(context, **run.kwargs)
            else:
                run.result = await task.body(**run.kwargs)
        except BaseException as raised:
            if issubclass(type(raised), MemoryError):
                # Free the local variables of the failed function, because they may use much memory.
                traceback.clear_frames(raised.__traceback__)
            error = run.error = readable(raised)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                logger.warning("task %s raised %s; the run counts as failed", task.name, type(error).__name__)
        self._finish(run)

    def _call(self, run: Run) -> object:
        """Run a plain function in a thread of the pool."""
        task, context = run.task, run.context
        assert task is not None
        current.set(context)
        if run.span is not None:
            run.span.attach()
        if self._middleware.wraps_runs:
            return run.bound(self._middleware)()
        if task.takes_context:
            return task.body(context, **run.kwargs)
        return task.body(**run.kwargs)

    # --- end ----------------------------------------------------------------------------------------------------------

    def _finish(self, run: Run) -> None:
        run.coroutine = run.thread = None
        if run.is_abandoned:
            self.abandoned -= 1
            logger.info("an abandoned function of task %s has ended", run.name, extra=run.facts)
        elif run.buffer is None or not run.buffer.finish():
            self._settler.add(run)

    @property
    def is_exhausted(self) -> bool:
        """Whether the maximum number of functions was abandoned, so that the process should be replaced."""
        return self.abandoned >= self._most_abandoned

    def _abandon(self, run: Run) -> bool:
        """Settle a run whose function still runs. Return False if its slot has to wait for the function.

        A stopping worker does not abandon runs: it returns them to their queue. A task in a process is not abandoned,
        because its process is killed.
        """
        assert run.ending is not None
        if self.is_exhausted or run.ending is Ending.SHUTDOWN:
            return False
        stack = ""
        if run.thread is not None:
            stack = run.thread.stack()
            if not self._threads.abandon(run):
                return False
        elif run.coroutine is None:  # the function has ended, and only the write of its progress still runs
            return False
        run.is_abandoned = True
        self.abandoned += 1
        warn_with_stack(
            "task %s still runs %g s after it was interrupted (%s): its run is settled and its slot is free, but its "
            "function may still have effects; %d of at most %d functions are abandoned",
            run.name,
            STUCK_S,
            run.ending.value,
            self.abandoned,
            self._most_abandoned,
            stack=stack,
            extra=run.facts,
        )
        self._settler.add(run)
        return True

    def end(self, run: Run, ending: Ending, *, again: bool = False) -> None:
        """Interrupt the function of a run.

        If it was interrupted before, the first reason is kept, unless the lease is lost now.

        Interrupt a plain function only once, unless `again` is True, because the function may be cleaning up.
        """
        if run.settlement is not None:
            return
        if run.ending is None or ending is Ending.LEASE_LOST:
            if run.ending is None:
                self._deadlines.shorten(run, STUCK_S)
            run.ending = ending
        self._interrupt(run, again=again)

    def _interrupt(self, run: Run, *, again: bool = False) -> None:
        if run.coroutine is not None:
            # Cancel the coroutine in the next cycle of the event loop. A coroutine that is cancelled before its first
            # step never runs, so the end of its run would never be reported.
            self._loop.call_soon(run.coroutine.end)
        elif run.task is not None and not run.task.is_coroutine:
            self._threads.interrupt(run, again=again)

    def cancel(self, task_id: str) -> None:
        """Cancel the runs of a task in all queues of this worker."""
        for queue in self._context.queues:
            run = self._context.running.get((queue.name, task_id))
            if run is not None and not run.is_cancelling:  # a second cancel message needs no second request
                run.is_cancelling = True
                self._context.background.start(self._cancel(run))

    async def _cancel(self, run: Run) -> None:
        """Read from Redis what to do with a cancelled task (archive, discard or retry), and interrupt its run.

        If Redis does not answer, the task is archived. A task with steps may call further steps when it is interrupted.
        If this run has not begun a step, the first one reads the request.
        """
        try:
            if run.buffer is not None and await run.buffer.cancel():
                self._interrupt(run)
                return
            run.cancel_outcome = await self._context.runner.run(read_cancel(run.queue, run.task_id))
        finally:
            run.is_cancelling = False
            is_cancelled_by_steps = run.buffer is not None and run.buffer.is_cancelled
            if run.cancel_outcome is not CancelOutcome.STEPS and not is_cancelled_by_steps:
                self.end(run, Ending.CANCELLED)

    def _overdue(self, run: Run, now: float) -> None:
        """Interrupt a run that has reached its timeout or deadline.

        Abandon a run that continues after an interruption.
        """
        if run.ending is None:
            self.end(run, Ending.TIMEOUT)
            run.ends_by = now + STUCK_S
            return
        self.end(run, run.ending, again=True)  # the function may have caught the first interruption
        is_abandoned = self._abandon(run)
        if not run.is_stuck:
            run.is_stuck = True
            self._context.metrics.stuck(run.queue.name, run.name)
            if self.is_exhausted:
                problem = f"{self.abandoned} functions still run after they were interrupted"
                self._context.on_exhausted(f"{problem}; every further one will block a slot of this worker")
        if not is_abandoned:
            run.ends_by = now + STUCK_S
            logger.warning(
                "task %s was interrupted (%s) and still runs; it keeps its slot",
                run.name,
                run.ending.value,
                extra=run.facts,
            )

    def lose(self, runs: list[Run]) -> None:
        """Interrupt runs whose lease is lost. Callable from any thread."""
        self._loop.call_soon_threadsafe(self._lose, runs)

    def _lose(self, runs: list[Run]) -> None:
        for run in runs:
            if self._context.running.get(run.key) is run:
                self.end(run, Ending.LEASE_LOST)

    def resize(self, concurrency: int) -> None:
        """Set the maximum number of threads and of abandoned functions. Surplus threads stay idle."""
        self._most_abandoned = concurrency
        self._threads.resize(concurrency)

    async def _in_process(self, run: Run) -> object:
        if self._processes is None:
            from taskq_core.worker.processes import TaskProcesses  # imported late: few workers have tasks in processes

            self._processes = TaskProcesses(self._context, self._deadlines, self._progress, self._socket_name)
        return await self._processes.call(run)

    async def close(self) -> None:
        """Close threads, processes and the timer."""
        self._threads.close()
        self._deadlines.close()
        if self._processes is not None:
            await self._processes.close()
