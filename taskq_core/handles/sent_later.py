"""The base class of handles: whether a task or workflow was sent, because a transaction or an outbox may delay it."""

from typing import Any

from taskq_core.errors import TaskNotSentError, WorkflowNotSentError


class SentLater:
    """Base class of handles. A handle may exist before its task or workflow is sent at the commit of a transaction.

    Attributes:
        is_late: True while the task or workflow may still wait in an outbox although its transaction has committed.
        note: Data that an adapter stores until the send has succeeded or failed. taskq itself does not use it.
    """

    id: str
    queue: str
    is_late = False
    note: Any = None
    _is_deferred = False
    _is_rolled_back = False
    _failure: BaseException | None = None
    _not_sent: type[TaskNotSentError | WorkflowNotSentError]

    @property
    def is_sent(self) -> bool:
        """Whether Redis has received the task or workflow.

        False before the transaction commits, after its rollback, while the outbox has the task, and if the send failed.
        """
        return not (self._is_deferred or self.is_late) and self._failure is None

    @property
    def send_error(self) -> BaseException | None:
        """Error of the send after the transaction's commit. None if the send did not fail."""
        return self._failure

    def mark_deferred(self) -> None:
        """Record that the send waits for the commit of the surrounding transaction. For clients."""
        self._is_deferred = True

    def mark_rolled_back(self) -> None:
        """Record that the surrounding transaction was rolled back, so nothing is ever sent. For clients."""
        self._is_deferred = self._is_rolled_back = True
        self.note = None

    def mark_sent(self, failure: BaseException | None = None, *, is_late: bool = False) -> None:
        """Record that the send has succeeded, or store the error of the send. For clients.

        With `is_late`, the task waits in the outbox, and a worker sends it later.
        """
        self._is_deferred = False
        self._failure = failure
        if failure is not None:
            self.note = None
        self.is_late = is_late

    def check_not_lost(self) -> None:
        """Raise `TaskNotSentError` or `WorkflowNotSentError` if the send failed, or the transaction was rolled back."""
        if self._failure is not None:
            raise self._not_sent(
                self.queue, self.id, f"the send after the commit failed: {self._failure}"
            ) from self._failure
        if self._is_rolled_back:
            raise self._not_sent(self.queue, self.id, "it was never sent, because its transaction was rolled back")

    def _check_sent(self) -> None:
        self.check_not_lost()
        if self._is_deferred:
            raise self._not_sent(
                self.queue, self.id, "it is sent when the surrounding transaction commits; try again after the commit"
            )
