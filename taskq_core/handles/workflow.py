"""The handle of an enqueued workflow."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from taskq_core.broker.plans import RequestPlan
from taskq_core.errors import WorkflowNotFoundError, WorkflowNotSentError, WorkflowTimeoutError
from taskq_core.handles import workflow_plans
from taskq_core.handles.sent_later import SentLater
from taskq_core.handles.source import NOT_YET, HandleSource
from taskq_core.handles.workflow_records import WorkflowGraph, WorkflowInfo
from taskq_core.settings import Duration, seconds
from taskq_core.wire import QueueKeys

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # only known to type checkers, not installed

    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)


class WorkflowHandle(SentLater, Generic[R_co]):
    """One enqueued workflow.

    Attributes:
        id: Id of the workflow, chosen before it was sent.
        queue: Home queue. The state of the workflow is stored in the same cluster slot.
        name: Given name, or the names of the first steps, such as `fetch → resize → notify`.
        result_type: Type of the result.
        is_late: True while the workflow may still wait in an outbox although its transaction has committed.
    """

    _not_sent = WorkflowNotSentError

    def __init__(
        self,
        source: HandleSource,
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

    def __repr__(self) -> str:
        return f"WorkflowHandle(id={self.id!r}, queue={self.queue!r})"

    def result(self, timeout: Duration | None = None) -> R_co:
        """Block until the workflow has ended, and return the result of its last step.

        If the last part is a group, the result is the list of its members' results. If a `Workflow` has several last
        steps, the result is a dict of their results by name.

        Args:
            timeout: Maximum seconds to wait, also while Redis does not answer; then up to two more seconds. None: no
                limit.

        Raises:
            BrokerUnavailableError: The time is over, and Redis does not answer.
            WorkflowFailedError: Steps of the workflow failed.
            WorkflowCancelledError: The workflow was cancelled.
            WorkflowTimeoutError: The workflow did not end in time. It is not cancelled.
            ResultTooLargeError: A step's result that is part of the result was too large to be stored.
            WorkflowNotFoundError: The retention of the workflow is over.
            WorkflowNotSentError: The surrounding transaction has not committed yet.
        """
        self._check_sent()
        result = self._source.poll(self._ask_end, self.queue, self.id, timeout)
        return self._checked(result, timeout)

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """Wait until the workflow has ended and return its result. Like `result`, for coroutines."""
        self._check_sent()
        result = await self._source.apoll(self._ask_end, self.queue, self.id, timeout)
        return self._checked(result, timeout)

    @property
    def _keys(self) -> QueueKeys:
        return self._source.keys.queue(self.queue)

    def _ask_end(self) -> RequestPlan[Any]:
        """Return the result, `NOT_YET` while the workflow has not ended."""
        try:
            return (yield from self._asked(workflow_plans.ask_result(self._keys, self.id, self.result_type)))
        except WorkflowNotSentError:
            return NOT_YET

    def _checked(self, result: Any, timeout: Duration | None) -> R_co:
        if result is NOT_YET:
            waited_s = seconds("timeout", timeout)
            raise WorkflowTimeoutError(self.queue, self.id, f"the workflow did not end within {waited_s:g} s")
        checked: R_co = result
        return checked

    def _asked(self, plan: RequestPlan[T]) -> RequestPlan[T]:
        """Execute a plan. Raise `WorkflowNotSentError` if the workflow may still wait in an outbox."""
        self._check_sent()
        try:
            answer = yield from plan
        except WorkflowNotFoundError:
            if not self.is_late:
                raise
        else:
            self.is_late = False
            return answer
        raise WorkflowNotSentError(self.queue, self.id, "the workflow waits in the outbox until a worker sends it")

    def _ask_graph(self) -> RequestPlan[WorkflowGraph]:
        return self._asked(workflow_plans.ask_graph(self._source.keys, self.queue, self.id))

    def _ask_cancel(self) -> RequestPlan[bool]:
        return self._asked(workflow_plans.ask_cancel(self._source.keys, self.queue, self.id))

    def _ask_retry(self) -> RequestPlan[int]:
        return self._asked(workflow_plans.ask_retry(self._keys, self.id))

    def refresh(self) -> WorkflowInfo:
        """Read the workflow: its state, and the counts of its steps.

        Raises:
            WorkflowNotFoundError: The retention of the workflow is over.
            WorkflowNotSentError: The surrounding transaction has not committed yet.
        """
        return self.graph().info

    async def arefresh(self) -> WorkflowInfo:
        """Read the workflow. Like `refresh`, for coroutines."""
        return (await self.agraph()).info

    def graph(self) -> WorkflowGraph:
        """Read the workflow with all its steps, their states and their dependencies. Raises as `refresh`."""
        return self._source.run(self._ask_graph())

    async def agraph(self) -> WorkflowGraph:
        """Read the workflow with all its steps. Like `graph`, for coroutines."""
        return await self._source.arun(self._ask_graph())

    def cancel(self) -> bool:
        """Cancel the workflow: no further step starts, workers drop waiting steps, and running steps are cancelled.

        A second call repeats the cancellation of running steps, for example after an interrupted first call.

        Returns:
            True if the workflow is cancelled, by this call or an earlier one. False if it ended in another way.
        """
        return self._source.run(self._ask_cancel())

    async def acancel(self) -> bool:
        """Cancel the workflow. Like `cancel`, for coroutines."""
        return await self._source.arun(self._ask_cancel())

    def retry(self) -> int:
        """Run the failed steps again, and then the steps that were skipped because of them.

        A member of a group in the home queue stays failed if its task was dropped or deleted.

        Returns:
            Number of steps that run again.
        """
        return self._source.run(self._ask_retry())

    async def aretry(self) -> int:
        """Run the failed steps again. Like `retry`, for coroutines."""
        return await self._source.arun(self._ask_retry())
