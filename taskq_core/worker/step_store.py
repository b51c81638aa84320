"""Read and write the record of a run's steps, and send what the run emits.

All requests carry the run's fence, so a worker that lost the task changes nothing. While Redis does not answer, a
request is repeated until the run has to end. Emitted values are collected for `EMIT_EVERY_S`, and the settlement of the
run waits until they are sent.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations import steps as operations
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.steps import LoadedSteps, Refusal
from taskq_core.broker.plans import arun_plan
from taskq_core.errors import BrokerError, BrokerUnavailableError, EnqueueError, StepError, TaskInterrupted
from taskq_core.handles.source import NOT_YET
from taskq_core.handles.workflow_plans import ask_raw_result
from taskq_core.worker.run import Ending, Run

if TYPE_CHECKING:
    from taskq_core.worker.progress import ProgressWriter

logger = logging.getLogger("taskq.worker")

EMIT_EVERY_S = 0.05
"""Maximum seconds for which an emitted value is collected."""
EMIT_BYTES = 65_536
"""Bytes of collected values that are sent at once."""
EMIT_VALUES = 1_000
"""Maximum number of values that are sent at once, so that no script takes long."""
OVERHEAD_BYTES = 100
"""Bytes that a value counts in addition to its JSON, so that short values do not fill the memory."""
WAITING_BYTES = 1 << 20
"""Bytes of unsent values at which `emit` waits until some are sent."""
PATIENCE_S = 5.0
"""Maximum seconds of one request."""
CHECK_S = 0.2
"""Seconds between two checks whether a run that waits for Redis has to end."""
BLOCKING = "this method would block the event loop; in a coroutine, use the one whose name begins with `a`"

T = TypeVar("T")


def answered(answer: T | Refusal) -> T:
    """Return the answer to a write of a run. Raise an error if it was refused."""
    if isinstance(answer, Refusal):
        if answer.is_lost:
            raise StepError(operations.LOST)
        raise TaskInterrupted
    return answer


class StepRequests:
    """The requests for the steps of one run.

    Args:
        app: The queue application.
        run: The run.
        owner: Token of the worker.
    """

    def __init__(self, app: TaskQ, run: Run, owner: str) -> None:
        self._app = app
        self._run = run
        self._owner = owner
        self._calls = 0
        self.is_closed = False

    async def _ask(self, operation: Operation[T], *, at_end: bool = False) -> T:
        """Send an operation, and return the answer. Subclasses implement it.

        With `at_end`, the operation stores what the run has done, so it is also sent if the run has to end.
        """
        raise NotImplementedError

    def span(self, name: str) -> AbstractContextManager[None]:
        """Record the span of a step."""
        return self._app.runtime.tracing.step(name)

    async def load(self) -> LoadedSteps:
        """Return the record of the steps."""
        run = self._run
        load = operations.load_steps(run.queue, run.task_id, owner=self._owner, run=run.number)
        return answered(await self._ask(load))

    async def store(self, field: str, value: bytes, *, missed: str = "") -> bytes:
        """Store a field of the record."""
        run = self._run
        store = operations.store_step(
            run.queue, run.task_id, field, value, missed=missed, owner=self._owner, run=run.number
        )
        return answered(await self._ask(store, at_end=True))

    async def read_children(self, workflow_id: str) -> bytes | None:
        """Return the results of sub-tasks."""
        result = await arun_plan(ask_raw_result(self._run.queue, workflow_id), self._ask)
        return None if result is NOT_YET else result

    async def _append(self, values: Sequence[tuple[str, bytes]], attempt: int) -> None:
        """Append values to the output of the task."""
        run = self._run
        self._calls += 1
        append = operations.emit(
            run.queue, run.task_id, values, owner=self._owner, run=run.number, call=self._calls, attempt=attempt
        )
        answered(await self._ask(append, at_end=True))


class RunSteps(StepRequests):
    """Stores the steps of one run of a worker. All its coroutines run on the worker's event loop.

    Args:
        run: The run.
        writer: The worker's writer of progress.
    """

    def __init__(self, run: Run, writer: "ProgressWriter") -> None:
        super().__init__(writer.app, run, writer.owner)
        self._writer = writer
        self._emitted: list[tuple[str, bytes]] = []
        self._attempt = 1
        self._bytes = 0
        self._sending: asyncio.Task[None] | None = None
        self._problem: Exception | None = None
        self._flush = asyncio.Event()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a thread of the worker, and return its result."""
        if asyncio._get_running_loop() is not None:
            work.close()
            raise StepError(BLOCKING)
        return asyncio.run_coroutine_threadsafe(work, self._writer.loop).result()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a coroutine of any event loop, and return its result."""
        if asyncio.get_running_loop() is self._writer.loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._writer.loop))

    async def _ask(self, operation: Operation[T], *, at_end: bool = False) -> T:
        while True:
            ending = self._run.ending
            if ending is Ending.LEASE_LOST or (ending is not None and not at_end):
                raise TaskInterrupted
            try:
                return await self._writer.runner.run(operation, patience_s=PATIENCE_S)
            except BrokerUnavailableError:
                at_end = at_end and ending is None
                await asyncio.sleep(CHECK_S)

    async def start_children(self, name: str, workflow_id: str, calls: Sequence[Any]) -> None:
        """Enqueue sub-tasks as a workflow."""
        run = self._run
        client = self._app.workflows.asyncio
        while True:
            if run.ending is not None:
                raise TaskInterrupted
            try:
                await client.enqueue_children(
                    calls, workflow_id=workflow_id, queue=run.queue.name, parent=(name, run.task_id)
                )
                return
            except EnqueueError as error:  # a repeat changes nothing if the workflow has begun
                if not isinstance(error.__cause__, BrokerUnavailableError):
                    raise
                await asyncio.sleep(CHECK_S)

    # --- emitted values -----------------------------------------------------------------------------------------------

    async def emit(self, step: str, value: bytes, attempt: int) -> None:
        """Collect a value. Wait while more than `WAITING_BYTES` wait."""
        if self.is_closed:  # the function has ended, but code that it started still runs
            raise TaskInterrupted
        if self._problem is not None:
            raise self._problem
        self._attempt = attempt
        self._emitted.append((step, value))
        self._bytes += len(value) + OVERHEAD_BYTES
        if self._sending is None:
            self._sending = self._writer.start(self._send())
        if self._bytes >= EMIT_BYTES:
            self._flush.set()
        while self._bytes >= WAITING_BYTES and self._sending is not None:
            await asyncio.wait((self._sending,), timeout=CHECK_S)
            if self._run.ending is not None:
                raise TaskInterrupted

    async def _send(self) -> None:
        try:
            while self._emitted:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EMIT_EVERY_S):
                        await self._flush.wait()
                self._flush.clear()
                values, self._emitted = self._emitted[:EMIT_VALUES], self._emitted[EMIT_VALUES:]
                self._bytes -= sum(len(value) + OVERHEAD_BYTES for _, value in values)
                if self._emitted:
                    self._flush.set()
                await self._append(values, self._attempt)
        except TaskInterrupted:
            self._emitted.clear()
        except (BrokerError, StepError) as error:  # the next `emit` raises it
            self._problem = error
            self._emitted.clear()
            raise
        finally:
            self._sending = None

    @property
    def is_sending(self) -> bool:
        """Whether emitted values still wait to be sent."""
        return self._sending is not None

    def close(self) -> None:
        """Refuse further values, because the function has ended."""
        self.is_closed = True

    async def drain(self) -> None:
        """Wait until all emitted values are sent, or the run has lost its lease."""
        while self._sending is not None:
            self._flush.set()
            await asyncio.wait((self._sending,), timeout=CHECK_S)
