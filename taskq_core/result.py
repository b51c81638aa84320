"""The handle of an enqueued task: its id, its state and the wait for its outcome."""

from typing import Any, Generic, Protocol, TypeVar

from taskq_core.errors import TaskNotSentError
from taskq_core.records import TaskInfo
from taskq_core.settings import Duration
from taskq_core.wire import TaskState

R_co = TypeVar("R_co", covariant=True)


class HandleSource(Protocol):
    """What a handle asks: the client that made it."""

    def wait_for_result(self, handle: "TaskHandle[Any]", timeout: Duration | None) -> Any:
        """Block until the task has ended and return what it returned."""
        ...

    async def await_result(self, handle: "TaskHandle[Any]", timeout: Duration | None) -> Any:
        """Wait until the task has ended and return what it returned."""
        ...

    def fetch_info(self, handle: "TaskHandle[Any]") -> TaskInfo:
        """Read the task."""
        ...

    async def afetch_info(self, handle: "TaskHandle[Any]") -> TaskInfo:
        """Read the task."""
        ...

    def cancel_task(self, handle: "TaskHandle[Any]") -> bool:
        """Delete the task if it waits, or ask its worker to cancel it."""
        ...

    async def acancel_task(self, handle: "TaskHandle[Any]") -> bool:
        """Delete the task if it waits, or ask its worker to cancel it."""
        ...


class TaskHandle(Generic[R_co]):
    """One enqueued task.

    Attributes:
        id: Id of the task, chosen before it was sent.
        queue: Queue it was sent to.
        name: Name of the task.
        info: The task as it stood at the last `refresh`, or None.
        first_state: State it is enqueued in: pending, scheduled where its start is put off, or aggregating.
        is_late: True while the task may still wait in an outbox although its transaction has committed.
        note: What an adapter wants kept for as long as the task may still be sent; taskq itself does not look at it.
    """

    __slots__ = (
        "_failure",
        "_is_deferred",
        "_source",
        "first_state",
        "id",
        "info",
        "is_kept",
        "is_late",
        "name",
        "note",
        "queue",
        "result_type",
    )

    def __init__(
        self,
        source: HandleSource,
        *,
        id: str,  # noqa: A002 - the attribute's name
        queue: str,
        name: str,
        is_kept: bool,
        result_type: Any = Any,
        first_state: TaskState = TaskState.PENDING,
    ) -> None:
        self._source = source
        self.id = id
        self.queue = queue
        self.name = name
        self.is_kept = is_kept
        self.result_type = result_type
        self.first_state = first_state
        self.info: TaskInfo | None = None
        self.is_late = False
        self.note: Any = None
        self._is_deferred = False
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"TaskHandle(id={self.id!r}, name={self.name!r}, queue={self.queue!r})"

    @property
    def is_sent(self) -> bool:
        """False while the task waits for the surrounding transaction to commit, or if sending it then failed."""
        return not self._is_deferred and self._failure is None

    def mark_deferred(self) -> None:
        """Note that the task is sent when the surrounding transaction commits. For clients."""
        self._is_deferred = True

    def mark_sent(self, failure: BaseException | None = None, *, is_late: bool = False) -> None:
        """Note that the task was sent, or why it was not; `is_late`: a worker sends it from the outbox. For clients."""
        self._is_deferred = False
        self._failure = failure
        if failure is not None:
            self.note = None
        self.is_late = is_late

    def _check_sent(self) -> None:
        if self._failure is not None:
            raise TaskNotSentError(self.queue, self.id, f"sending it after the commit failed: {self._failure}")
        if self._is_deferred:
            raise TaskNotSentError(
                self.queue, self.id, "it is sent when the surrounding transaction commits; ask after the commit"
            )

    def result(self, timeout: Duration | None = None) -> R_co:
        """Block until the task has ended and return what it returned.

        Args:
            timeout: Most seconds to wait; None waits without end.

        Raises:
            ResultNotKeptError: The task keeps no result: its `retention` is 0.
            ResultTimeoutError: It did not end in time; it goes on all the same.
            TaskFailedError: It was archived after its last failure.
            TaskNotFoundError: It was deleted, or its retention is over.
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        self._check_sent()
        result: R_co = self._source.wait_for_result(self, timeout)
        return result

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """Wait until the task has ended and return what it returned. As `result`, for coroutines."""
        self._check_sent()
        result: R_co = await self._source.await_result(self, timeout)
        return result

    def refresh(self) -> TaskInfo:
        """Read the task and return it; also kept as `info`.

        Raises:
            TaskNotFoundError: It has ended without being kept, or was deleted.
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        self._check_sent()
        self.info = self._source.fetch_info(self)
        return self.info

    async def arefresh(self) -> TaskInfo:
        """Read the task and return it; also kept as `info`. As `refresh`, for coroutines."""
        self._check_sent()
        self.info = await self._source.afetch_info(self)
        return self.info

    def cancel(self) -> bool:
        """Delete the task if it waits, or ask the worker that runs it to cancel it.

        Returns:
            True if it was deleted or a worker was asked; False if it has ended already.
        """
        self._check_sent()
        return self._source.cancel_task(self)

    async def acancel(self) -> bool:
        """Delete the task if it waits, or ask the worker that runs it to cancel it. As `cancel`, for coroutines."""
        self._check_sent()
        return await self._source.acancel_task(self)
