"""Runners that tell of every task they have stored."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations.new_tasks import Admitted, EnqueueCode, NewTask, each_code
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerUnavailableError
from taskq_core.runtime import Store

T = TypeVar("T")


Stored = Callable[[Sequence[NewTask]], None]
"""Told of tasks that were stored, in this order, where they were enqueued and before the one who did goes on."""
AsyncStored = Callable[[Sequence[NewTask]], Awaitable[None]]
"""As `Stored`, on the event loop that enqueued them."""


BEGINNINGS = ("create_workflow", "add_members", "close_groups", "retry_steps")
"""Names of operations after which steps of a workflow may have been started."""
Changed = Callable[[NewTask, str], None]
"""Told of a task in whose stead the one with this id was changed."""


def _tell_changed(operation: Operation[Any], answer: Any, changed: Changed) -> None:
    codes = answer.codes if isinstance(answer, Admitted) else answer
    if EnqueueCode.CHANGED in codes:
        for task, (code, holder) in zip(operation.tasks, each_code(codes), strict=True):
            if code == EnqueueCode.CHANGED:
                changed(task, holder)


def _tasks_stored(operation: Operation[Any], answer: Any) -> list[NewTask]:
    codes = answer.codes if isinstance(answer, Admitted) else answer
    return [task for task, code in zip(operation.tasks, codes, strict=True) if code == EnqueueCode.STORED]


class WatchedRunner(SyncRunner):
    """A blocking runner that tells of what was enqueued through it."""

    def __init__(
        self, endpoint: Endpoint, stored: Stored, changed: Changed, begun: Callable[[], None] | None = None
    ) -> None:
        super().__init__(endpoint)
        self._stored = stored
        self._changed = changed
        self._begun = begun

    def _finish(self, operation: Operation[T], sent: Any, patience_s: float | None) -> T:
        answer = super()._finish(operation, sent, patience_s)
        if operation.tasks:
            _tell_changed(operation, answer, self._changed)
            self._stored(_tasks_stored(operation, answer))
        elif operation.name in BEGINNINGS and self._begun is not None:
            self._begun()
        return answer


class WatchedAsyncRunner(AsyncRunner):
    """An asyncio runner that tells of what was enqueued through it.

    Attributes:
        is_closed: True to refuse everything from now on, as a blocking runner that was closed does.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stored: AsyncStored,
        changed: Changed,
        begun: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(endpoint)
        self._stored = stored
        self._changed = changed
        self._begun = begun
        self.is_closed = False

    async def run(self, operation: Operation[T], *, patience_s: float | None = None) -> T:
        """Send one operation and return its answer. As `AsyncRunner.run`."""
        if self.is_closed:
            raise BrokerUnavailableError.unchanged(f"the client of {self.endpoint.address} is closed")
        answer = await super().run(operation, patience_s=patience_s)
        if operation.tasks:
            _tell_changed(operation, answer, self._changed)
            await self._stored(_tasks_stored(operation, answer))
        elif operation.name in BEGINNINGS and self._begun is not None:
            await self._begun()
        return answer


class WatchedStore(Store):
    """A store whose runners tell of what is enqueued."""

    __slots__ = ()

    def close(self) -> None:
        """Refuse everything from now on. Handles and clients of a test that is over may still be about."""
        self.runner.close()
        assert isinstance(self.async_runner, WatchedAsyncRunner)
        self.async_runner.is_closed = True


def watched_store(
    endpoint: Endpoint,
    *,
    stored: Stored,
    astored: AsyncStored,
    changed: Changed,
    begun: Callable[[], None] | None = None,
    abegun: Callable[[], Awaitable[None]] | None = None,
    propagates: bool = False,
) -> WatchedStore:
    """Return a store whose runners tell of what is enqueued."""
    return WatchedStore(
        endpoint=endpoint,
        runner=WatchedRunner(endpoint, stored, changed, begun),
        async_runner=WatchedAsyncRunner(endpoint, astored, changed, abegun),
        propagates=propagates,
    )
