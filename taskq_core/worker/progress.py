"""Store what running tasks write: results, progress and cursors.

A function may write from any thread. It waits only if it stores a cursor explicitly. If several values of one kind are
waiting, only the last is written. Results are written soon. Progress and cursors are written at most once per
`EVERY_S`, and the last value is always written. All writes of a run are sequential, and its settlement waits until the
last write was answered, so no write arrives after the settlement. The last cursor is part of the settlement. Each write
is fenced: if the worker has lost the task, Redis changes nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from taskq_core.broker.operations.runs import (
    CURSOR_FIELD,
    OVERSIZED_FIELD,
    PROGRESS_FIELD,
    RESULT_FIELD,
    read_cursor,
    write_fields,
)
from taskq_core.codec.oversized import OversizedResult
from taskq_core.codec.progress import encode_progress
from taskq_core.errors import BrokerError, BrokerUnavailableError, TaskInterrupted, TaskWaiting
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.outcome import warn_oversized
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.step_store import RunSteps

logger = logging.getLogger("taskq.worker")

PATIENCE_S = 5.0
"""Seconds for which a write of progress is repeated while Redis does not answer."""
EVERY_S = 1.0
"""Minimum seconds between two writes of progress or cursors of one run."""
CHECK_S = 0.2
"""Seconds between two checks whether a run that waits for a write has to end."""
_WHAT = {RESULT_FIELD: "its result", PROGRESS_FIELD: "its progress", CURSOR_FIELD: "its cursor"}

T = TypeVar("T")


def written_fields(data: bytes | OversizedResult) -> dict[str, bytes]:
    """Return the task's fields that store a written result, or its size and limit if it is too large."""
    if isinstance(data, OversizedResult):
        return {RESULT_FIELD: b"", OVERSIZED_FIELD: data.stored}
    return {RESULT_FIELD: data} if data else {RESULT_FIELD: b"", OVERSIZED_FIELD: b""}


class RunBuffer:
    """Buffers what one run writes until it is stored. The run's context uses it as its progress buffer.

    Attributes:
        cursor: The last cursors that this run wrote, or None.
    """

    def __init__(self, run: Run, writer: "ProgressWriter") -> None:
        self._run = run
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting: dict[str, bytes] = {}
        self._waiters: list[asyncio.Future[bool | None]] = []
        self._is_planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._busy: asyncio.Task[None] | None = None
        self._next_at = 0.0
        self._has_ended = False
        self._reports_itself = self._has_warned = False
        self._steps: RunSteps | None = None
        self.cursor: bytes | None = None

    # --- for the function, from any thread ----------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """True once the worker stops."""
        return self._writer.is_stopping()

    @property
    def is_on_event_loop(self) -> bool:
        """True in a thread with a running event loop, where no call may block."""
        return asyncio._get_running_loop() is not None

    def check(self) -> None:
        """Raise `TaskInterrupted` if the run has to end.

        After a suspension of this process or of its machine, another worker may have the task.
        """
        run, writer = self._run, self._writer
        if run.ending is None and writer.clock.monotonic() > run.lease_until + writer.grace_s:
            run.ending = Ending.LEASE_LOST
        if run.ending is not None:
            raise TaskInterrupted

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

    def buffer(self, cursor: bytes) -> None:
        """Buffer cursors. The worker writes them soon, and once more with the settlement of the run."""
        self.cursor = cursor
        self._put({CURSOR_FIELD: cursor})

    def store(self, cursor: bytes) -> None:
        """Store cursors now, and return when they are stored."""
        self.cursor = cursor
        self._wait_for(self._flush(cursor))

    async def astore(self, cursor: bytes) -> None:
        """Store cursors like `store`, for coroutines."""
        self.cursor = cursor
        await self._await(self._flush(cursor))

    def read_cursor(self) -> bytes:
        """Return the cursors that an earlier run stored."""
        return self._wait_for(self._read())

    async def aread_cursor(self) -> bytes:
        """Return stored cursors like `read_cursor`, for coroutines."""
        return await self._await(self._read())

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._writer.loop).result()

    async def _await(self, work: Coroutine[Any, Any, T]) -> T:
        if asyncio.get_running_loop() is self._writer.loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._writer.loop))

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
        if pause_s <= 0 or self._has_ended or self._waiters or RESULT_FIELD in self._waiting:
            self._write_now()
        elif self._timer is None:
            self._timer = self._writer.loop.call_later(pause_s, self._write_now)

    def _write_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy is None:
            self._busy = self._writer.start(self._write())

    async def _read(self) -> bytes:
        run, writer = self._run, self._writer
        while True:
            try:
                return await writer.runner.run(read_cursor(run.queue, run.task_id), patience_s=CHECK_S)
            except BrokerUnavailableError:
                # Try again, because without its cursor the function would start from the beginning.
                self.check()
                await asyncio.sleep(CHECK_S)

    async def _flush(self, cursor: bytes) -> None:
        """Write cursors now, and return when they are stored. While Redis is down, keep trying."""
        stored: bool | None = None
        while not stored:
            with self._lock:
                self._waiting[CURSOR_FIELD] = cursor
            waiter: asyncio.Future[bool | None] = self._writer.loop.create_future()
            self._waiters.append(waiter)
            self._plan()
            while not waiter.done():
                await asyncio.wait((waiter,), timeout=CHECK_S)
                self.check()
            stored = waiter.result()
            if stored is False:  # another worker has taken the task
                raise TaskInterrupted

    async def _write(self) -> None:
        run, writer = self._run, self._writer
        with self._lock:
            fields, self._waiting = self._waiting, {}
            self._is_planned = False
        waiters, self._waiters = self._waiters, []
        stored: bool | None = None
        try:
            operation = write_fields(run.queue, run.task_id, fields, owner=writer.owner, run=run.number)
            stored = await writer.runner.run(operation, patience_s=PATIENCE_S)
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
        finally:
            self._busy = None
            self._next_at = writer.clock.monotonic() + EVERY_S
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(stored)
            if stored is False:
                with self._lock:
                    self._waiting.clear()
            if self._has_ended and not self._waiting:
                writer.ended(run)
            else:
                self._plan()

    def finish(self) -> bool:
        """Write the remaining values of an ended run. Return whether its settlement has to wait for these writes.

        If so, the writer calls `ended` after the last write.
        """
        steps = self._steps
        if steps is not None and steps.close():
            self._writer.start(self._finish_after(steps))
            return True
        return self._finish()

    async def _finish_after(self, steps: RunSteps) -> None:
        await steps.drain()
        if not self._finish():
            self._writer.ended(self._run)

    def _finish(self) -> bool:
        run = self._run
        if self._steps is not None:
            if run.error is None or isinstance(run.error, TaskWaiting):  # after a wait, nothing is emitted again
                run.error = self._steps.problem or run.error
            if run.ending is None:
                run.error = self._steps.check_end(run.error)
        with self._lock:
            self._waiting.pop(CURSOR_FIELD, None)  # the settlement stores the cursor
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
