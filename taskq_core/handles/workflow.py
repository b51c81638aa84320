"""The handle of an enqueued workflow."""

from typing import Any, Protocol

from taskq_core.errors import WorkflowNotSentError
from taskq_core.handles.workflow_records import WorkflowGraph, WorkflowInfo
from taskq_core.settings import Duration


class BlockingClient(Protocol):
    """Answers handles in blocking code."""

    def wait(self, handle: "WorkflowHandle", timeout: Duration | None) -> Any:
        """Block until the workflow has ended and return its result."""
        ...

    def read(self, handle: "WorkflowHandle") -> WorkflowGraph:
        """Read the workflow."""
        ...

    def cancel(self, handle: "WorkflowHandle") -> bool:
        """Cancel the workflow."""
        ...

    def retry(self, handle: "WorkflowHandle") -> int:
        """Run the steps that failed again."""
        ...


class AsyncioClient(Protocol):
    """Answers handles in coroutines. As `BlockingClient`."""

    async def wait(self, handle: "WorkflowHandle", timeout: Duration | None) -> Any: ...  # noqa: D102 - as above
    async def read(self, handle: "WorkflowHandle") -> WorkflowGraph: ...  # noqa: D102 - as above
    async def cancel(self, handle: "WorkflowHandle") -> bool: ...  # noqa: D102 - as above
    async def retry(self, handle: "WorkflowHandle") -> int: ...  # noqa: D102 - as above


class WorkflowSource(Protocol):
    """The workflow clients that handles ask."""

    @property
    def blocking(self) -> BlockingClient:
        """The client for blocking code."""
        ...

    @property
    def asyncio(self) -> AsyncioClient:
        """The client for coroutines."""
        ...


class WorkflowHandle:
    """One enqueued workflow.

    Attributes:
        id: Its id, chosen before it was sent.
        queue: Its home queue, beside which its state is kept.
        name: Its given name, or the names of its first steps, such as `fetch → resize → notify`.
        result_type: Type of its result.
        is_late: True while it may still wait in an outbox although its transaction has committed.
    """

    __slots__ = ("_failure", "_is_deferred", "_source", "id", "is_late", "name", "queue", "result_type")

    def __init__(
        self,
        source: WorkflowSource,
        *,
        id: str,  # noqa: A002 - the attribute's name
        queue: str,
        name: str = "",
        result_type: Any = Any,
    ) -> None:
        self._source = source
        self.id = id
        self.queue = queue
        self.name = name
        self.result_type = result_type
        self.is_late = False
        self._is_deferred = False
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"WorkflowHandle(id={self.id!r}, queue={self.queue!r})"

    @property
    def is_sent(self) -> bool:
        """False while the workflow waits for the surrounding transaction to commit, or if sending it then failed."""
        return not self._is_deferred and self._failure is None

    def mark_deferred(self) -> None:
        """Note that it is sent when the surrounding transaction commits. For clients."""
        self._is_deferred = True

    def mark_sent(self, failure: BaseException | None = None, *, is_late: bool = False) -> None:
        """Note that it was sent, or why it was not; `is_late`: a worker sends it from the outbox. For clients."""
        self._is_deferred = False
        self._failure = failure
        self.is_late = is_late

    def _check_sent(self) -> None:
        if self._failure is not None:
            raise WorkflowNotSentError(self.queue, self.id, f"sending it after the commit failed: {self._failure}")
        if self._is_deferred:
            raise WorkflowNotSentError(
                self.queue, self.id, "it is sent when the surrounding transaction commits; ask after the commit"
            )

    def result(self, timeout: Duration | None = None) -> Any:
        """Block until the workflow has ended and return its result: that of its last step.

        After a group it is the list of results, and of several last steps by name a dict.

        Args:
            timeout: Most seconds to wait; None waits without end.

        Raises:
            WorkflowFailedError: Steps of it failed.
            WorkflowCancelledError: It was cancelled.
            WorkflowTimeoutError: It did not end in time; it goes on all the same.
            ResultTooLargeError: The result of a step that it consists of was too large to be stored.
            WorkflowNotFoundError: It is kept no longer.
            WorkflowNotSentError: The surrounding transaction has not committed yet.
        """
        self._check_sent()
        return self._source.blocking.wait(self, timeout)

    async def aresult(self, timeout: Duration | None = None) -> Any:
        """Wait until the workflow has ended and return its result. As `result`, for coroutines."""
        self._check_sent()
        return await self._source.asyncio.wait(self, timeout)

    def refresh(self) -> WorkflowInfo:
        """Read how the workflow stands: its state, and counts of its steps.

        Raises:
            WorkflowNotFoundError: It is kept no longer.
            WorkflowNotSentError: The surrounding transaction has not committed yet.
        """
        return self.graph().info

    async def arefresh(self) -> WorkflowInfo:
        """Read how the workflow stands. As `refresh`, for coroutines."""
        return (await self.agraph()).info

    def graph(self) -> WorkflowGraph:
        """Read the workflow with all its steps, what they come after and how they stand. Raises as `refresh`."""
        self._check_sent()
        return self._source.blocking.read(self)

    async def agraph(self) -> WorkflowGraph:
        """Read the workflow with all its steps. As `graph`, for coroutines."""
        self._check_sent()
        return await self._source.asyncio.read(self)

    def cancel(self) -> bool:
        """Cancel the workflow: no further step starts, those that wait in queues are not run, those that run are told.

        A second call tells them again, as after a first that was cut off.

        Returns:
            True if it is cancelled, now or before; False if it has ended otherwise.
        """
        self._check_sent()
        return self._source.blocking.cancel(self)

    async def acancel(self) -> bool:
        """Cancel the workflow. As `cancel`, for coroutines."""
        self._check_sent()
        return await self._source.asyncio.cancel(self)

    def retry(self) -> int:
        """Run the steps that failed again, and then what was skipped for their sake.

        A member of a group in the home queue stays failed if its task was dropped or deleted.

        Returns:
            How many steps are run again.
        """
        self._check_sent()
        return self._source.blocking.retry(self)

    async def aretry(self) -> int:
        """Run the steps that failed again. As `retry`, for coroutines."""
        self._check_sent()
        return await self._source.asyncio.retry(self)
