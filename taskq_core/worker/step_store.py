"""Read and write the record of a run's steps, and send the values that the run emits.

All requests contain the run's fence: Redis refuses them if the worker has lost the task. While Redis does not answer,
the worker repeats a request until the run has to end. Emitted values are collected for `EMIT_EVERY_S`. The values of a
step are stored before or together with its result, because a later run does not repeat the step. In the same way, all
values are stored before the position of the loops. The settlement of the run waits until everything is stored.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Raw
from msgspec.json import encode

from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import extend_leases
from taskq_core.broker.operations.steps import read_steps
from taskq_core.broker.plans import arun_plan
from taskq_core.errors import (
    BrokerError,
    BrokerUnavailableError,
    EnqueueError,
    StepError,
    TaskInterrupted,
    WorkflowFailedError,
)
from taskq_core.execution.step_failures import branch, in_branch
from taskq_core.execution.step_record import PARTIAL, PartialResults, Steps
from taskq_core.handles.source import NOT_YET
from taskq_core.handles.workflow_plans import ask_each, ask_raw_result
from taskq_core.wire import QueueKeys
from taskq_core.worker.outcome import counts
from taskq_core.worker.run import Ending, Run

if TYPE_CHECKING:
    from taskq_core.worker.progress import ProgressWriter

logger = logging.getLogger("taskq.worker")

EMIT_EVERY_S = 0.05
"""Maximum seconds for which an emitted value is collected."""
EMIT_BYTES = 65_536
"""Bytes of collected values at which they are sent at once."""
EMIT_VALUES = 1_000
"""Maximum number of values in one request, so that no script takes long."""
OVERHEAD_BYTES = 100
"""Bytes that are counted for each value in addition to its JSON, so that many short values do not fill the memory."""
WAITING_BYTES = 1 << 20
"""Maximum bytes of unsent values. Above this, `emit` waits until some values are sent."""
PATIENCE_S = 5.0
"""Maximum seconds for one request to Redis."""
CHECK_S = 0.2
"""Seconds between two checks whether a run that waits for Redis has to end."""
NESTED_MAX = 100
"""Maximum depth of nested task groups through which a cancellation reaches the coroutine that has read the request."""
PAUSE_MAX_S = 5.0
"""Maximum seconds for which a run waits for the next attempt of a step. Before a longer wait, the run ends."""
BLOCKING = (
    "this call would block the event loop; in a coroutine, use `async for`, or the method with the prefix `a`, such as "
    "`astep`, and `acursor` before the first `checkpoint`"
)

T = TypeVar("T")


async def read_children(
    queue: QueueKeys, workflow_id: str, send: Callable[[Operation[Any]], Awaitable[Any]], *, each: bool
) -> bytes | None:
    """Return the results of the workflow of sub-tasks, None while this workflow runs. See `Steps._read_children`."""
    try:
        result = await arun_plan(ask_raw_result(queue, workflow_id), send)
    except WorkflowFailedError:
        if not each:
            raise
        data, errors = await arun_plan(ask_each(queue, workflow_id), send)
        return PARTIAL + encode(PartialResults(Raw(data), errors, queue.name, workflow_id))
    return None if result is NOT_YET else result


class RunSteps(Steps):
    """The steps of one run of a worker.

    Args:
        run: The run.
        writer: The worker's writer of progress.

    Attributes:
        failure: Why values and positions can no longer be stored, or None.
        problem: The same, if it is an error and not an interruption.
    """

    def __init__(self, run: Run, writer: "ProgressWriter") -> None:
        assert run.task is not None
        super().__init__(
            run.queue,
            run.task_id,
            owner=writer.owner,
            run=run.number,
            tracing=writer.app.runtime.tracing,
            span=run.span,
            signals=run.task.options.signals,
            step_errors=run.task.options.step_errors,
            max_emitted=run.task.options.max_emitted,
        )
        self._run = run
        self._writer = writer
        self._collected: list[tuple[str, bytes]] = []
        self._bytes = 0
        self._unsent: Counter[str] = Counter()  # number of values that are not stored yet, by step
        self._sending: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # requests with values are sent one after another
        self.failure: BaseException | None = None
        self.problem: Exception | None = None
        self._flush = asyncio.Event()
        self._earlier: set[asyncio.Task[Any]] = set()  # asyncio tasks that existed when the function was interrupted

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a thread of the worker, and return its result."""
        if asyncio._get_running_loop() is not None:
            work.close()
            raise StepError(BLOCKING, is_final=True)
        return asyncio.run_coroutine_threadsafe(in_branch(branch.get(), work), self._writer.loop).result()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a coroutine of any event loop, and return its result."""
        if asyncio.get_running_loop() is self._writer.loop:
            return await work
        work = in_branch(branch.get(), work)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._writer.loop))

    async def _ask(self, operation: Operation[T], *, at_end: bool = False) -> T:
        while True:
            ending = self._run.ending
            if ending is Ending.LEASE_LOST or (ending is not None and not at_end):
                raise TaskInterrupted
            try:
                return await self._writer.runner.run(operation, patience_s=PATIENCE_S)
            except BrokerUnavailableError:
                at_end = at_end and (ending is None or self.is_closed)
                await asyncio.sleep(CHECK_S)

    async def _hold_lease(self) -> None:
        """Extend the lease if it has ended, because this process or its machine was suspended.

        If another worker has taken the task, raise `TaskInterrupted`.
        """
        run, writer = self._run, self._writer
        sent_at = writer.clock.monotonic()
        if run.ending is not Ending.LEASE_LOST and sent_at < run.lease_until:
            return
        extend = extend_leases(
            run.queue, [(run.task_id, run.number)], owner=writer.owner, lease_s=writer.lease_s, lock_s=writer.lock_s
        )
        if not (await self._ask(extend)).owned[0]:
            raise TaskInterrupted
        run.lease_until = sent_at + writer.lease_s - 1  # Redis stores whole seconds

    async def _interrupt(self, *, is_first: bool) -> None:
        coroutine = self._run.coroutine
        if coroutine is not None and self._run.task is not None and self._run.task.is_coroutine:
            if is_first:
                self._earlier = asyncio.all_tasks()
                coroutine.end()
            for _ in range(
                NESTED_MAX
            ):  # each task group around this coroutine passes the cancellation on one cycle later
                await asyncio.sleep(0)

    def _is_late(self) -> bool:
        caller = asyncio.current_task()
        return caller is not None and caller in self._earlier and not caller.cancelling()

    async def cancel(self) -> bool:
        """Read the request to cancel the task. Return whether the function has to be interrupted for it now.

        False if the run has not begun a step, or the code must not end the task itself.
        """
        if self._ahead_ms < 0 or self.is_cancelled:
            return False
        with suppress(TaskInterrupted):  # the run ends for another reason
            self.read_wish(await self._ask(read_steps(self._queue, self._task_id)))
        self.is_cancelled = bool(self.wish)
        self._earlier = asyncio.all_tasks()
        return self.is_cancelled

    def _counts(self, error: Exception) -> bool:
        return counts(self._run, error)

    async def _pause(self, seconds: float) -> bool:
        if seconds > PAUSE_MAX_S:
            return False
        until = self._writer.clock.monotonic() + seconds
        while (left := until - self._writer.clock.monotonic()) > 0:
            if self._run.ending is not None:
                raise TaskInterrupted
            await asyncio.sleep(min(left, CHECK_S))
        return True

    async def _start_children(self, name: str, workflow_id: str, calls: Sequence[Any]) -> None:
        run = self._run
        client = self._writer.app.workflows.asyncio
        while True:
            if run.ending is not None:
                raise TaskInterrupted
            try:
                await client.enqueue_children(
                    calls, workflow_id=workflow_id, queue=run.queue.name, parent=(name, run.task_id)
                )
                return
            except EnqueueError as error:  # a repeated call changes nothing if the workflow has begun
                if not isinstance(error.__cause__, BrokerUnavailableError):
                    raise
                await asyncio.sleep(CHECK_S)

    async def _read_children(self, workflow_id: str, *, each: bool) -> bytes | None:
        return await read_children(self._queue, workflow_id, self._ask, each=each)

    # --- emitted values -----------------------------------------------------------------------------------------------

    async def _send(self, step: str, value: bytes) -> None:
        """Collect a value, and wait while more than `WAITING_BYTES` are not sent yet."""
        if self.is_closed:  # called by background code after the end of the function
            raise TaskInterrupted
        if self.failure is not None:
            raise self.failure
        self._collected.append((step, value))
        self._bytes += len(value) + OVERHEAD_BYTES
        self._unsent[step] += 1
        if self._sending is None:
            self._sending = self._writer.start(self._send_collected())
        if self._bytes >= EMIT_BYTES:
            self._flush.set()
        while self._bytes >= WAITING_BYTES and self._sending is not None:
            await asyncio.wait((self._sending,), timeout=CHECK_S)
            if self._run.ending is not None:
                raise TaskInterrupted

    async def _send_collected(self) -> None:
        try:
            while self._collected:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EMIT_EVERY_S):
                        await self._flush.wait()
                self._flush.clear()
                async with self._taken() as values:
                    if self._collected:
                        self._flush.set()
                    if values:
                        await self._append(values)
        except TaskInterrupted:
            pass
        finally:
            self._sending = None

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Take the oldest unsent values, which the caller stores. If that fails, no later value may be stored."""
        async with self._turn:
            if self.failure is not None:
                raise self.failure
            values, self._collected = self._collected[:EMIT_VALUES], self._collected[EMIT_VALUES:]
            self._bytes -= sum(len(value) + OVERHEAD_BYTES for _, value in values)
            try:
                yield values
            except BaseException as error:
                self.failure = error
                self._collected.clear()
                if isinstance(error, BrokerError | StepError):  # the next `emit` or the end of the run raises it
                    self.problem = error
                raise
            self._unsent.subtract(step for step, _ in values)

    async def _store_step(self, name: str, value: bytes) -> bytes:
        if not self._unsent[name]:
            return await super()._store_step(name, value)
        return await self._complete(self._store_with_output(name, value))

    async def _complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work in the background: it stores emitted values, so it must end even if the caller is cancelled."""
        ended: asyncio.Future[T] = self._writer.loop.create_future()

        async def complete() -> None:
            try:
                answer = await work
            except BaseException as error:
                if not ended.done():
                    ended.set_exception(error)
            else:
                if not ended.done():
                    ended.set_result(answer)

        self._writer.start(complete())
        return await ended

    async def _store_with_output(self, step: str, value: bytes) -> bytes:
        while True:
            async with self._taken() as values:
                if self._unsent[step] == sum(step == each for each, _ in values):
                    self._flush.set()  # the sender need not wait for further values
                    return await self._store(f"s:{step}", value, values=values)
                await self._append(values)

    async def store_position(self) -> None:
        """Store the newest position of the loops, unless it is stored, after all values that were emitted before it."""
        await self._complete(self._store_position_with_output())

    async def _store_position_with_output(self) -> None:
        is_last = False
        while not is_last:
            async with self._taken() as values:
                is_last = not self._collected
                await (self._store_position(values) if is_last else self._append(values))

    def close(self, *, has_succeeded: bool) -> bool:
        """Refuse further emitted values, because the function has ended. After a success, drop the position.

        Return whether values or the position still have to be stored.
        """
        self.is_closed = True
        if has_succeeded:
            self.position = None
        return self._sending is not None or self._turn.locked() or self._has_new_position

    async def drain(self) -> None:
        """Wait until all emitted values and the position are stored, or the run has lost its lease."""
        while self._sending is not None:
            self._flush.set()
            await asyncio.wait((self._sending,), timeout=CHECK_S)
        if self.failure is None:
            with suppress(TaskInterrupted, BrokerError, StepError):
                await self.store_position()
