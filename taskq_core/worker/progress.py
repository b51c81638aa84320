"""Store what running tasks write: results, progress and the position of loops.

A function may write from any thread, and never waits. If several values of one kind are waiting, only the last is
written. Results are written soon. Progress and positions are written at most once per `EVERY_S`, and the last value is
always written, except for the position after a success. All writes of a run are sequential, and its settlement waits
until the last write was answered, so no write arrives after the settlement. Each write is fenced: if the worker has
lost the task, Redis changes nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from taskq_core.broker.operations.runs import OVERSIZED_FIELD, PROGRESS_FIELD, RESULT_FIELD, write_fields
from taskq_core.broker.operations.services import CancelOutcome
from taskq_core.broker.operations.steps import POSITION
from taskq_core.codec.oversized import OversizedResult
from taskq_core.codec.progress import encode_progress
from taskq_core.errors import (
    BrokerError,
    BrokerUnavailableError,
    StepError,
    TaskInterrupted,
    TaskPaused,
    TaskWaiting,
)
from taskq_core.execution.step_record import Steps
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.outcome import warn_oversized
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.step_store import RunSteps

logger = logging.getLogger("taskq.worker")

PATIENCE_S = 5.0
"""Seconds for which a write of progress is repeated while Redis does not answer."""
EVERY_S = 1.0
"""Minimum seconds between two writes of progress or the position of one run."""
_WHAT = {RESULT_FIELD: "its result", PROGRESS_FIELD: "its progress"}


def written_fields(data: bytes | OversizedResult) -> dict[str, bytes]:
    """Return the task's fields that store a written result, or its size and limit if it is too large."""
    if isinstance(data, OversizedResult):
        return {RESULT_FIELD: b"", OVERSIZED_FIELD: data.stored}
    return {RESULT_FIELD: data} if data else {RESULT_FIELD: b"", OVERSIZED_FIELD: b""}


def end_cancelled(run: Run, steps: Steps) -> None:
    """End a run as cancelled if this was requested, unless its function has failed or the worker stops it."""
    error = run.error
    is_stopped = run.ending is None and isinstance(error, asyncio.CancelledError | TaskInterrupted)
    has_ended = error is None and run.ending in (None, Ending.SHUTDOWN)
    if steps.wish and (has_ended or (is_stopped and not isinstance(error, TaskPaused))):
        run.ending, run.cancel_outcome = Ending.CANCELLED, CancelOutcome(steps.wish)


class RunBuffer:
    """Buffers what one run writes until it is stored. The run's context uses it as its progress buffer."""

    def __init__(self, run: Run, writer: "ProgressWriter") -> None:
        self._run = run
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting: dict[str, bytes] = {}
        self._is_planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._busy: asyncio.Task[None] | None = None
        self._next_at = 0.0
        self._has_ended = False
        self._reports_itself = self._has_warned = False
        self._steps: RunSteps | None = None

    # --- for the function, from any thread ----------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """True once the worker stops."""
        return self._writer.is_stopping()

    def check(self) -> None:
        """Raise `TaskInterrupted` if the run has to end, or the error of a position that could not be stored.

        After a suspension of this process or of its machine, another worker may have the task.
        """
        run, writer = self._run, self._writer
        if run.ending is None and writer.clock.monotonic() > run.lease_until + writer.grace_s:
            run.ending = Ending.LEASE_LOST
        if run.ending is not None:
            raise TaskInterrupted
        if self._steps is not None and self._steps.failure is not None:
            raise self._steps.failure

    @property
    def max_result_bytes(self) -> int:
        """Maximum bytes of the task's result."""
        assert self._run.task is not None
        return self._run.task.options.max_result_bytes

    @property
    def steps(self) -> RunSteps:
        """Stores the steps of the run."""
        with self._lock:
            if self._steps is None:
                self._steps = RunSteps(self._run, self._writer)
            return self._steps

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was interrupted so that its code can undo steps."""
        return self._steps is not None and self._steps.is_cancelled

    async def cancel(self) -> bool:
        """Read whether the task is to be cancelled by its own code. Return whether to interrupt its function now."""
        return self._steps is not None and await self._steps.cancel()

    def write_result(self, data: bytes | OversizedResult) -> None:
        """Buffer bytes as the result, which is stored soon.

        Of a result that is too large, store only its size and the limit.
        """
        if isinstance(data, OversizedResult) and not self._has_warned:
            self._has_warned = True
            warn_oversized(self._run, data)
        self._put(written_fields(data))

    def store_progress(self, progress: bytes) -> None:
        """Buffer progress that the task's function reports itself."""
        self._reports_itself = True
        self._put({PROGRESS_FIELD: progress})

    def report(self, done: int, total: int | None) -> None:
        """Buffer the progress of an `iterate` loop, unless the task's function reports progress itself."""
        if not self._reports_itself:
            self._put({PROGRESS_FIELD: encode_progress(done, total)})

    def save_position(self, position: bytes) -> None:
        """Buffer the position of the loops. It is stored soon, and before the settlement of a run without success."""
        steps = self._steps or self.steps
        steps.position = position
        self._put({POSITION: position})

    def _put(self, fields: Mapping[str, bytes]) -> None:
        with self._lock:
            self._waiting.update(fields)
            if self._is_planned and RESULT_FIELD not in fields:
                return
            self._is_planned = True
        try:
            self._writer.loop.call_soon_threadsafe(self._plan)
        except RuntimeError:  # the event loop is closed: the worker has ended and requeued this task
            raise TaskInterrupted from None

    # --- on the event loop --------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Write the buffered values now, or start a timer that writes them when the next write is allowed."""
        if self._busy is not None or not self._waiting:  # when a running write ends, it calls `_plan` again
            return
        pause_s = self._next_at - self._writer.clock.monotonic()
        if pause_s <= 0 or self._has_ended or RESULT_FIELD in self._waiting:
            self._write_now()
        elif self._timer is None:
            self._timer = self._writer.loop.call_later(pause_s, self._write_now)

    def _write_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy is None:
            self._busy = self._writer.start(self._write())

    async def _write(self) -> None:
        with self._lock:
            fields, self._waiting = self._waiting, {}
            self._is_planned = False
            has_position = fields.pop(POSITION, None) is not None
            if has_position and not self._next_at:  # not with the first progress, because many loops are short
                self._waiting[POSITION] = b""
                has_position = False
        try:
            if fields:
                await self._write_fields(fields)
            if has_position:
                with suppress(TaskInterrupted, BrokerError, StepError):  # `check` raises it in the function
                    await self.steps.store_position()
        finally:
            self._busy = None
            self._next_at = self._writer.clock.monotonic() + EVERY_S
            if self._has_ended and not self._waiting:
                self._writer.ended(self._run)
            else:
                self._plan()

    async def _write_fields(self, fields: Mapping[str, bytes]) -> None:
        run, writer = self._run, self._writer
        try:
            operation = write_fields(run.queue, run.task_id, fields, owner=writer.owner, run=run.number)
            if not await writer.runner.run(operation, patience_s=PATIENCE_S):  # another worker has taken the task
                with self._lock:
                    self._waiting.clear()
        except BrokerUnavailableError as error:
            writer.outage.report(f"storing the progress of task {run.name} failed", error)
        except BrokerError as error:
            logger.error(
                "task %s wrote %s, which could not be stored: %s",
                run.name,
                " and ".join(_WHAT[field] for field in fields if field in _WHAT),
                error,
                extra={"queue": run.queue.name, "task_id": run.task_id},
            )

    def finish(self) -> bool:
        """Write the remaining values of an ended run. Return whether its settlement has to wait for these writes.

        If so, the writer calls `ended` after the last write.
        """
        run, steps = self._run, self._steps
        if steps is not None:
            if run.ending is None:
                run.error, run.failed_step = steps.failure_behind(steps.check_end(run.error))
            end_cancelled(run, steps)
            # A run whose result is stored may still fail, because the result may have no JSON form.
            has_result = run.result is not None and run.message.retention
            has_succeeded = run.error is None and run.ending in (None, Ending.SHUTDOWN) and not has_result
            if steps.close(has_succeeded=has_succeeded):
                self._writer.start(self._finish_after(steps))
                return True
        return self._finish()

    async def _finish_after(self, steps: RunSteps) -> None:
        await steps.drain()
        if not self._finish():
            self._writer.ended(self._run)

    def _finish(self) -> bool:
        run = self._run
        if self._steps is not None and (run.error is None or isinstance(run.error, TaskWaiting)):
            run.error = self._steps.problem or run.error  # also after a wait, because nothing is emitted again
        with self._lock:
            self._waiting.pop(POSITION, None)  # it is stored, or no longer needed
            if not self._waiting and self._busy is None:
                return False
        self._has_ended = True
        self._plan()
        return True


class ProgressWriter:
    """Writes the progress of running tasks.

    Args:
        context: The worker.
        ended: Called with each run whose settlement had to wait, after its last write.
    """

    def __init__(self, context: WorkerContext, ended: Callable[[Run], None]) -> None:
        self.app = context.app
        self.runner = context.runner
        self.clock = context.clock
        self.owner = context.token
        self.lease_s, self.lock_s, self.grace_s = context.lease_s, context.lock_s, context.grace_s
        self.outage = context.outage
        self.ended = ended
        self.is_stopping = context.stopping.is_set
        self.loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self.start = context.background.start

    def of(self, run: Run) -> RunBuffer:
        """Return the buffer of a run. Callable from any thread."""
        buffer = run.buffer
        if buffer is None:
            with self._lock:
                buffer = run.buffer
                if buffer is None:
                    buffer = run.buffer = RunBuffer(run, self)
        assert isinstance(buffer, RunBuffer)
        return buffer
