"""The errors of reading and changing queues, tasks and workers, and of waiting for results."""

from datetime import datetime

from taskq_core.errors.base import TaskQError


class QueueNotFoundError(TaskQError):
    """No queue with this name is known.

    Attributes:
        queue: The unknown name.
        hint: The existing names, or the most similar one, as the rest of a sentence. "" if they were not read.
    """

    def __init__(self, queue: str, hint: str = "") -> None:
        super().__init__(queue, hint)
        self.queue, self.hint = queue, hint

    def __str__(self) -> str:
        return f"no queue {self.queue!r}{self.hint and '; '}{self.hint}"


class QueueStateError(TaskQError):
    """The state of a queue does not allow the request. Nothing was changed.

    Attributes:
        queue: Name of the queue.
    """

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue


class QueuePausedError(QueueStateError):
    """The queue is already paused."""

    def __str__(self) -> str:
        return f"queue {self.queue!r} is already paused"


class QueueNotPausedError(QueueStateError):
    """The queue is not paused."""

    def __str__(self) -> str:
        return f"queue {self.queue!r} is not paused"


class QueueNotEmptyError(QueueStateError):
    """The queue contains tasks, so it was not removed.

    Attributes:
        queue: Name of the queue.
        active: Number of running tasks. If there is any, even a forced removal is refused.
        waiting: Number of tasks in the other states that prevent a removal, and of unreadable tasks that workers have
            set aside.
    """

    def __init__(self, queue: str, active: int, waiting: int) -> None:
        QueueStateError.__init__(self, queue)
        self.args = (queue, active, waiting)
        self.active, self.waiting = active, waiting

    def __str__(self) -> str:
        if self.active:
            return f"queue {self.queue!r} cannot be removed: {self.active} of its tasks run; stop its workers first"
        tasks = f"{self.waiting} task{'s' if self.waiting != 1 else ''}"
        return f"queue {self.queue!r} is not empty: its removal would delete {tasks} and must be forced"


class TaskNotFoundError(TaskQError):
    """No task with this id is stored in the queue.

    Attributes:
        queue: Name of the queue, "" if all queues were searched.
        task_id: Id of the task.
    """

    def __init__(self, queue: str, task_id: str) -> None:
        super().__init__(queue, task_id)
        self.queue, self.task_id = queue, task_id

    def __str__(self) -> str:
        where = f"queue {self.queue!r}" if self.queue else "any queue"
        return f"no task {self.task_id!r} in {where}; a task that has succeeded is stored only if it has a retention"


class EntryNotFoundError(TaskQError):
    """No running scheduler has a schedule entry with this id, and no enqueue of such an entry is recorded.

    Attributes:
        entry_id: The unknown id.
        hint: The existing ids, or the most similar one, as the rest of a sentence.
    """

    def __init__(self, entry_id: str, hint: str = "") -> None:
        super().__init__(entry_id, hint)
        self.entry_id, self.hint = entry_id, hint

    def __str__(self) -> str:
        return f"no periodic entry {self.entry_id!r}{self.hint and '; '}{self.hint}"


class WorkerNotFoundError(TaskQError):
    """No running worker has this name.

    Attributes:
        worker: The given name: a worker id, a host, or a host and process id.
        hint: The running workers, or the most similar name, as the rest of a sentence.
    """

    def __init__(self, worker: str, hint: str = "") -> None:
        super().__init__(worker, hint)
        self.worker, self.hint = worker, hint

    def __str__(self) -> str:
        return f"no worker {self.worker!r}{self.hint and '; '}{self.hint}"


class TaskStateError(TaskQError):
    """The state of a task does not allow the request. Nothing was changed.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        state: State of the task, or another reason. "copied": the task is the original of an interrupted move
            to another queue. "steps": the task has stored steps, signals or a position, so it cannot be moved. "large":
            its message is too large to be moved. "lost": its record names a state, but the queue's list of that state
            does not contain the task. "answered": the task no longer waits for this value.
            "changing": other clients keep changing the task.
        reason: The reason, as the rest of a sentence.
    """

    def __init__(self, queue: str, task_id: str, state: str, reason: str) -> None:
        super().__init__(queue, task_id, state, reason)
        self.queue, self.task_id, self.state, self.reason = queue, task_id, state, reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} in queue {self.queue!r} is {self.state}: {self.reason}"


class TaskActiveError(TaskStateError):
    """The request is not possible while the task is running. Cancel the task and wait for its end."""


class ResultError(TaskQError):
    """The result of a task is not available.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        reason: Why the result is not available, as a sentence.
    """

    def __init__(self, queue: str, task_id: str, reason: str = "") -> None:
        super().__init__(queue, task_id, reason)
        self.queue, self.task_id, self.reason = queue, task_id, reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} in queue {self.queue!r}: {self.reason}"


class ResultNotKeptError(ResultError):
    """The retention of the task is 0, so its result is not stored."""


class ResultTimeoutError(ResultError, TimeoutError):
    """The task did not finish within the timeout of the caller."""


class ResultTooLargeError(ResultError, ValueError):
    """The task succeeded, but its result was not stored, because it is larger than the option `max_result_bytes`.

    Attributes:
        size: Size of the result in bytes.
        limit: Maximum size in bytes.
    """

    def __init__(self, queue: str, task_id: str, size: int = 0, limit: int = 0) -> None:
        reason = (
            f"it succeeded, but its result of {size:,} bytes was not stored, because the limit is {limit:,}; store the "
            "data elsewhere and return its address, or raise the task option max_result_bytes"
        )
        super().__init__(queue, task_id, reason)
        self.args = (queue, task_id, size, limit)
        self.size, self.limit = size, limit


class TaskNotSentError(ResultError):
    """The task waits for the surrounding transaction to commit, or sending it after the commit failed."""


class TaskFailedError(ResultError):
    """The task was archived. `reason` is its stored error text."""


class TaskExpiredError(TaskFailedError):
    """The task was not started by the time of its option `expires`, so it was archived or deleted without a run.

    Attributes:
        expired_at: The latest time at which the task could start, None if unknown.
    """

    def __init__(self, queue: str, task_id: str, reason: str = "", expired_at: datetime | None = None) -> None:
        super().__init__(queue, task_id, reason)
        self.args = (queue, task_id, reason, expired_at)
        self.expired_at = expired_at


class WorkflowError(TaskQError):
    """The result of a workflow is not available.

    Attributes:
        queue: Home queue of the workflow.
        workflow_id: Id of the workflow.
        reason: Why the result is not available.
    """

    def __init__(self, queue: str, workflow_id: str, reason: str = "") -> None:
        super().__init__(queue, workflow_id, reason)
        self.queue, self.workflow_id, self.reason = queue, workflow_id, reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id} in queue {self.queue!r}: {self.reason}"


class WorkflowFailedError(WorkflowError):
    """A step of the workflow failed. `reason` contains the names and error texts of at most 20 failed steps."""


class WorkflowCancelledError(WorkflowError):
    """The workflow was cancelled."""


class WorkflowNotFoundError(WorkflowError):
    """The queue has no workflow with this id, or its retention is over."""


class WorkflowDamagedError(WorkflowError):
    """The data of the workflow in Redis cannot be read. `reason` names the field and the expected value."""


class WorkflowNotSentError(WorkflowError):
    """The workflow waits for the surrounding transaction to commit, or sending it after the commit failed."""


class WorkflowTimeoutError(WorkflowError, TimeoutError):
    """The workflow did not end within the timeout of the caller. It continues to run."""


class ResultValueError(TaskQError, ValueError):
    """A returned value has no JSON form, or a stored result does not have the expected type.

    The message names types, but never values.
    """
