"""Store the steps of tasks that run without a worker."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import StepError
from taskq_core.execution.step_record import Steps
from taskq_core.worker.outcome import counts
from taskq_core.worker.run import Run
from taskq_core.worker.step_store import BLOCKING, read_children

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from blocking code and return its result. The coroutine must never wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the value is the result of the coroutine
    raise AssertionError("the coroutine waits, but it was called from blocking code")


class InlineSteps(Steps):
    """The steps of one run without a worker. Its coroutines never wait.

    Args:
        app: The queue application.
        run: The run.
        runner: Sends operations to the store.
        owner: Token of the worker.
    """

    def __init__(self, app: TaskQ, run: Run, runner: SyncRunner, owner: str) -> None:
        assert run.task is not None
        super().__init__(
            run.queue,
            run.task_id,
            owner=owner,
            run=run.number,
            tracing=app.runtime.tracing,
            span=run.span,
            signals=run.task.options.signals,
            step_errors=run.task.options.step_errors,
            max_emitted=run.task.options.max_emitted,
        )
        self._app = app
        self._run = run
        self._runner = runner

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from blocking code."""
        assert self._run.task is not None
        if self._run.task.is_coroutine and asyncio._get_running_loop() is not None:
            work.close()
            raise StepError(BLOCKING, is_final=True)
        return drive(work)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one of this class's coroutines from a coroutine."""
        return await work

    async def _ask(self, operation: Operation[T], *, at_end: bool = False) -> T:
        return self._runner.run(operation)

    async def _hold_lease(self) -> None:
        """Do nothing, because no other worker can take the task."""

    async def _interrupt(self, *, is_first: bool) -> None:
        assert self._run.task is not None
        if self._run.task.is_coroutine:
            raise asyncio.CancelledError

    def _counts(self, error: Exception) -> bool:
        return counts(self._run, error)

    async def _pause(self, seconds: float) -> bool:
        return seconds <= 0

    async def _start_children(self, name: str, workflow_id: str, calls: Sequence[Any]) -> None:
        # In eager mode, `enqueue_children` also runs the sub-tasks.
        self._app.workflows.blocking.enqueue_children(
            calls, workflow_id=workflow_id, queue=self._queue.name, parent=(name, self._task_id)
        )

    async def _read_children(self, workflow_id: str, *, each: bool) -> bytes | None:
        return await read_children(self._queue, workflow_id, self._ask, each=each)

    async def _send(self, step: str, value: bytes) -> None:
        await self._append([(step, value)])
