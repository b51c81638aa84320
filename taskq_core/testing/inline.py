"""Run tasks one after the other in the test's own thread or event loop, without a worker.

Tasks are taken from the store and settled there with the same scripts and rules as in a worker. The function runs in
the test's thread or event loop, so it uses the transaction, the debugger and the patched modules of the test. Time
limits do not apply.

All methods that run tasks are coroutines. Blocking code calls them with `drive`.
"""

import asyncio
import contextlib
import contextvars
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations import dispatch as dispatch_ops
from taskq_core.broker.operations import limits as limit_ops
from taskq_core.broker.operations import new_tasks, operation, rehearsal, services
from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.plans import run_plan
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.codec.oversized import OversizedResult
from taskq_core.codec.progress import encode_progress
from taskq_core.errors import TaskInterrupted, TaskPaused, WireFormatError
from taskq_core.execution.context import TaskContext, current
from taskq_core.execution.step_failures import track_branches
from taskq_core.service.user_code import readable
from taskq_core.tasks.handlers import Handler
from taskq_core.tasks.task import Task
from taskq_core.testing.records import TaskRun, task_run
from taskq_core.testing.steps import InlineSteps
from taskq_core.wire import QueueKeys, decode_message
from taskq_core.wire.durations import LATEST_S
from taskq_core.wire.tokens import new_token
from taskq_core.worker.outcome import requeued, run_outcome, settle, state_after, warn_oversized
from taskq_core.worker.progress import end_cancelled, written_fields
from taskq_core.worker.run import Ending, Run, ends_at
from taskq_core.workflow.dispatch import dispatch

logger = logging.getLogger("taskq.testing")

LEASE_S = 7 * 86_400
"""Length of a lease in seconds. A lease is long, because nothing extends it and a debugger may stop a run for long."""


T = TypeVar("T")


class InlineWorker:
    """Takes tasks from a store, and runs them in the thread or event loop of the caller.

    Args:
        app: The queue application.
        runner: Sends operations to the store.
        state: Value of `context.state` for the tasks. The application's worker lifespans do not run.
    """

    def __init__(self, app: TaskQ, runner: SyncRunner, state: Mapping[str, Any] | None = None) -> None:
        self._app = app
        self._state = dict(state or {})
        self._runner = runner
        self._owner = new_token()
        self._calls = 0
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, str], Run] = {}

    def can_run(self, name: str) -> bool:
        """Return whether this application has the code of a task: a registered task or a matching handler."""
        return self._app.find_task(name) is not None or self._app.handlers.find(name).name != ""

    # --- take and give back -------------------------------------------------------------------------------------------

    def take(self, queue: QueueKeys) -> list[Run]:
        """Take pending and due tasks of a queue, oldest first, at most one batch."""
        self._forward(queue)
        with self._lock:
            return self._dequeue(queue)

    def claim(self, queue: QueueKeys, task_id: str) -> Run | None:
        """Take one task.

        Return None if the task cannot be taken: its queue is paused, or another thread took the task.
        """
        key = (queue.name, task_id)
        self._forward(queue)
        # A dequeue may return other tasks than the requested one. `_taken` keeps them for the threads that request
        # them.
        with self._lock:
            while key not in self._taken:
                runs = self._dequeue(queue)
                if not runs:
                    return None
                self._taken.update((run.key, run) for run in runs)
            return self._taken.pop(key)

    def _forward(self, queue: QueueKeys) -> None:
        while self._runner.run(services.forward(queue, owner=self._owner, leader_ms=1)).moved >= 100:
            pass
        # Tasks whose rate or concurrency limit now allows their start become pending.
        self._runner.run(limit_ops.admit(queue, owner=self._owner, leader_ms=1))

    def dispatch(self, queues: Iterable[QueueKeys]) -> None:
        """Move data of workflows between queues, until nothing is left to move.

        Outcomes of ended steps go to the home queue of their workflow. The next steps go to the queues of their tasks.
        """
        keys = self._app.runtime.keys
        todo = {queue.name for queue in queues}
        while todo:
            queue = keys.queue(todo.pop())
            due = self._runner.run(dispatch_ops.read_due(queue, owner="", leader_ms=1))
            plan = dispatch(keys, queue, due, lambda other: new_tasks.register_queue(keys.queues, (other.name,)))
            todo |= run_plan(plan, self._runner.run)
            if due.ends or due.out:
                todo.add(queue.name)

    def pending_steps(self, queue: QueueKeys) -> list[str]:
        """Return the ids of tasks in a queue that are started steps of workflows."""
        steps = self._runner.run(rehearsal.list_waiting(queue.steps, 0, -1))
        return [step.split(" ")[2] for step, _ in steps]

    def _dequeue(self, queue: QueueKeys) -> list[Run]:
        self._calls += 1
        answer = self._runner.run(
            run_ops.dequeue(queue, owner=self._owner, call=self._calls, limit=operation.BATCH_MAX, lease_s=LEASE_S)
        )
        runs = []
        for task_id, data in answer.tasks:
            try:
                runs.append(Run(queue, task_id, decode_message(data), math.inf, number=self._calls))
            except WireFormatError:
                self._runner.run(run_ops.quarantine(queue, task_id, owner=self._owner, run=self._calls))
        return runs

    def give_back(self, runs: Iterable[Run]) -> None:
        """Give back taken tasks: put them at the head of their queues, in the same order."""
        for run in reversed(list(runs)):
            self._runner.run(run_ops.settle(run.queue, [requeued(run)], owner=self._owner))

    # --- run ----------------------------------------------------------------------------------------------------------

    async def run(self, run: Run, *, on_loop: bool) -> TaskRun:
        """Run a task that was taken, and settle it.

        Args:
            run: The task.
            on_loop: True if the caller is a coroutine: a coroutine function then runs on the caller's event loop, and a
                plain function where the application's bridge runs blocking code. False: a plain function runs in this
                thread, and a coroutine function on a new event loop, which blocks this thread.
        """
        try:
            if on_loop:
                track_branches(asyncio.get_running_loop())
            call = self._prepare(run, on_loop)
            if on_loop and _task(run).is_coroutine:
                # Run the coroutine in a separate asyncio task, which gives it a separate context.
                run.result = await asyncio.create_task(self._acall(run, call))
            else:
                run.result = await self._plain(partial(contextvars.copy_context().run, self._call, run, call), on_loop)
        except (Exception, SystemExit, TaskPaused) as error:
            run.error = readable(error)
        except BaseException as error:
            # another interruption than that of a cancelled task is for example Ctrl-C in the test
            if run.buffer is None or not run.buffer.steps.is_cancelled:
                self.give_back((run,))
                raise
            run.error = error
        if run.buffer is not None:
            steps = run.buffer.steps
            run.error, run.failed_step = steps.failure_behind(steps.check_end(run.error))
            end_cancelled(run, steps)
            with contextlib.suppress(TaskInterrupted):  # the task was deleted during its run
                await steps.store_position()
        ended = self._settle(run)
        context = run.context
        assert context is not None
        observer = self._app.observer
        if observer is not None and observer.wants_ended(context.outcome or ""):
            with _harmless(run):
                failure = run.failure or run.error
                await self._plain(partial(observer.ended, context, run.result, failure), on_loop)
        for handler in self._app.error_handlers if run.failure is not None else ():
            with _harmless(run):
                function = partial(handler.function, run.failure, context)
                if not handler.is_coroutine:
                    await self._plain(function, on_loop)
                elif on_loop:
                    await function()
                else:
                    self._app.bridge.run(function())
        return ended

    async def _plain(self, function: Callable[[], T], on_loop: bool) -> T:
        return await self._app.bridge.arun(function) if on_loop else function()

    def _prepare(self, run: Run, on_loop: bool) -> Callable[[], Any]:
        """Return a function without arguments that runs the task's function inside its middleware."""
        run.task = self._app.find_handler(run.name)
        run.started = SYSTEM_CLOCK.monotonic()
        run.context = self._context(run, on_loop)
        tracing = self._app.runtime.tracing
        if tracing.is_active:
            run.start_span(tracing)
        run.decode()
        return run.bound(self._app.middleware, in_worker=False)

    def _context(self, run: Run, on_loop: bool) -> TaskContext:
        message = run.message
        return TaskContext(
            id=run.task_id,
            name=run.name,
            queue=run.queue.name,
            retried=message.retried,
            max_retry=message.retry,
            deadline=utc_datetime(min(ends_at(message, SYSTEM_CLOCK.time(), clock_ahead_s=0.0), LATEST_S)),
            headers=dict(message.headers),
            state=self._state,
            _loop=asyncio._get_running_loop() if on_loop else None,
            worker=self._owner,
            _open_buffer=partial(self._buffer_of, run),
        )

    def _buffer_of(self, run: Run) -> "_InlineBuffer":
        if run.buffer is None:
            steps = InlineSteps(self._app, run, self._runner, self._owner)
            run.buffer = _InlineBuffer(run, steps, self._runner, self._owner)
        assert isinstance(run.buffer, _InlineBuffer)
        return run.buffer

    def _enter(self, run: Run) -> None:
        current.set(run.context)
        if run.span is not None:
            run.span.attach()

    def _call(self, run: Run, call: Callable[[], Any]) -> object:
        self._enter(run)
        result = call()
        return self._app.bridge.run(_tracked(result)) if _task(run).is_coroutine else result

    async def _acall(self, run: Run, call: Callable[[], Any]) -> object:
        self._enter(run)
        return await call()

    def _settle(self, run: Run) -> TaskRun:
        settlement = run.settlement = settle(
            run,
            run.result,
            run.error,
            now_s=SYSTEM_CLOCK.time(),
            duration_s=SYSTEM_CLOCK.monotonic() - run.started,
            worker=self._owner,
        )
        archive = self._app.settings.archive.limits(run.queue.name)
        code = self._runner.run(run_ops.settle(run.queue, [settlement], owner=self._owner, archive=archive))
        if code in services.SETTLE_CANCELS:
            run.ending, run.cancel_outcome = Ending.CANCELLED, services.SETTLE_CANCELS[code]
            return self._settle(run)
        error = run.failure if isinstance(run.error, TaskInterrupted | asyncio.CancelledError) else run.error
        if run.span is not None:
            run.span.end(state_after(settlement), error)
        assert run.context is not None
        outcome = run.context.outcome = run_outcome(settlement, error).value
        return task_run(run.context, outcome, error)


class _InlineBuffer:
    """The progress buffer of an inline run. It stores progress and results at once, without buffering."""

    is_stopping = False

    def __init__(self, run: Run, steps: InlineSteps, runner: SyncRunner, owner: str) -> None:
        self._run = run
        self.steps = steps
        self._runner = runner
        self._owner = owner
        self._reports_itself = False

    def check(self) -> None:
        """Do nothing: nothing interrupts the run."""

    @property
    def max_result_bytes(self) -> int:
        return _task(self._run).options.max_result_bytes

    def write_result(self, data: bytes | OversizedResult) -> None:
        run = self._run
        if isinstance(data, OversizedResult):
            warn_oversized(run, data)
        self._write(written_fields(data))

    def store_progress(self, progress: bytes) -> None:
        self._reports_itself = True
        self._write({run_ops.PROGRESS_FIELD: progress})

    def report(self, done: int, total: int | None) -> None:
        if not self._reports_itself:
            self._write({run_ops.PROGRESS_FIELD: encode_progress(done, total)})

    def save_position(self, position: bytes) -> None:
        self.steps.position = position

    def _write(self, fields: Mapping[str, bytes]) -> None:
        run = self._run
        self._runner.run(run_ops.write_fields(run.queue, run.task_id, fields, owner=self._owner, run=run.number))


async def _tracked(work: Coroutine[Any, Any, T]) -> T:
    track_branches(asyncio.get_running_loop())
    return await work


@contextlib.contextmanager
def _harmless(run: Run) -> Iterator[None]:
    """Log errors of the `with` block instead of raising them, as a worker does with errors of error handlers."""
    try:
        yield
    except Exception:
        logger.exception("an error handler failed", extra={"queue": run.queue.name, "task_id": run.task_id})


def _task(run: Run) -> Task[Any, Any] | Handler:
    assert run.task is not None
    return run.task
