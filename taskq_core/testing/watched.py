"""Runners that send operations to a store, as the runners for Redis do. They report each task that is stored."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.failures import ClosedClientError
from taskq_core.broker.operations.new_tasks import NewTask, StoreCode
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.client.runtime import Store
from taskq_core.errors import BrokerError
from taskq_core.testing.steps import drive

T = TypeVar("T")

BEGINNINGS = ("create_workflow", "add_members", "close_groups", "retry_steps")
"""Names of operations that may start steps of a workflow."""


class Watcher(Protocol):
    """Receives the reports of a watched runner, in the thread that enqueues and before the enqueue returns."""

    def changed(self, task: NewTask, task_id: str) -> None:
        """React to an enqueue that changed the existing task with this id instead of storing `task`."""
        ...

    async def stored(self, tasks: Sequence[NewTask], *, on_loop: bool) -> None:
        """React to stored tasks. `on_loop` is True if a coroutine enqueued them, False for blocking code."""
        ...

    async def begun(self, *, on_loop: bool) -> None:
        """React to an operation that may have started workflow steps."""
        ...

    async def signalled(self, queue_name: str, task_id: str, *, on_loop: bool) -> None:
        """React to a signal that was sent to a task."""
        ...


async def _report(watcher: Watcher, operation: Operation[Any], answer: Any, *, on_loop: bool) -> None:
    if operation.tasks:
        for task, (code, holder) in zip(operation.tasks, answer.each(), strict=True):
            if code == StoreCode.CHANGED:
                watcher.changed(task, holder)
        stored = [task for task, code in zip(operation.tasks, answer, strict=True) if code == StoreCode.STORED]
        await watcher.stored(stored, on_loop=on_loop)
    elif operation.name in BEGINNINGS:
        await watcher.begun(on_loop=on_loop)
    elif (operation.name, answer) in (("signal", "ok"), ("cancel_steps", True)):
        task_id = str(operation.args[1])
        queue_name = operation.keys[0].removesuffix(f"}}:t:{task_id}").partition(":{")[2]
        await watcher.signalled(queue_name, task_id, on_loop=on_loop)


class WatchedRunner(SyncRunner):
    """A blocking runner that reports the tasks that are enqueued through it."""

    def __init__(self, endpoint: Endpoint, watcher: Watcher) -> None:
        super().__init__(endpoint)
        self._watcher = watcher

    def run(self, operation: Operation[T], *, patience_s: float | None = None, sent: Any = None) -> T:
        """Send one operation and return its response. See `SyncRunner.run`."""
        answer = super().run(operation, patience_s=patience_s, sent=sent)
        drive(_report(self._watcher, operation, answer, on_loop=False))
        return answer


class WatchedAsyncRunner(AsyncRunner):
    """An asyncio runner that reports the tasks that are enqueued through it.

    Attributes:
        is_closed: True once the runner rejects all operations, like a closed blocking runner.
    """

    sends_together = False  # each operation is reported before the next one is sent

    def __init__(self, endpoint: Endpoint, watcher: Watcher) -> None:
        super().__init__(endpoint)
        self._watcher = watcher
        self.is_closed = False

    async def run(
        self, operation: Operation[T], *, patience_s: float | None = None, failure: BrokerError | None = None
    ) -> T:
        """Send one operation and return its response. See `AsyncRunner.run`."""
        if self.is_closed:
            raise ClosedClientError(f"the client of {self.endpoint.address} is closed")
        answer = await super().run(operation, patience_s=patience_s, failure=failure)
        await _report(self._watcher, operation, answer, on_loop=True)
        return answer


class WatchedStore(Store):
    """A store whose runners report the tasks that are enqueued."""

    __slots__ = ()

    def close(self) -> None:
        """Reject all further operations, because code may still use handles and clients after the test."""
        self.runner.close()
        assert isinstance(self.async_runner, WatchedAsyncRunner)
        self.async_runner.is_closed = True


def watched_store(endpoint: Endpoint, watcher: Watcher, *, propagates: bool = False) -> WatchedStore:
    """Return a store whose runners report the tasks that are enqueued."""
    return WatchedStore(
        endpoint=endpoint,
        runner=WatchedRunner(endpoint, watcher),
        async_runner=WatchedAsyncRunner(endpoint, watcher),
        propagates=propagates,
    )
