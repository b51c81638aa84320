"""The errors that taskq raises, and the exceptions that a task raises to control its queue.

::

    TaskQError
    |-- ConfigurationError           a setting, a task option or a URL is not valid (also a ValueError)
    |   |-- TaskDefinitionError      a function cannot become a task (also a TypeError)
    |   `-- WorkflowDefinitionError  a workflow has a mistake; the error names the step
    |-- TaskArgumentsError           the arguments of a call do not match the task's parameters (also a TypeError)
    |-- PayloadError                 a stored payload does not match the parameters of the task that should run it
    |-- MissingReferenceError        an argument refers to an object that does not exist, such as a deleted row
    |-- PayloadTooLargeError         a payload is over the limit (also a ValueError)
    |-- WireFormatError              data in Redis does not have the expected format
    |-- EnqueueError                 a task was not enqueued; the error has its id
    |   |-- DuplicateTaskError       another task holds the unique lock
    |   |-- TaskIdConflictError      another task of the queue has this id
    |   |-- QueueFullError           as many tasks are pending as the setting LIMITS allows
    |   |-- EnqueueUnknownError      Redis did not answer, so the task may or may not be enqueued
    |   `-- NotReplicatedError       the task is enqueued, but replicas have not confirmed it in time
    |-- BulkEnqueueError             a bulk enqueue stopped before its end; the error has the number of enqueued tasks
    |-- BrokerError                  Redis refused a request or could not be reached
    |   |-- BrokerUnavailableError   no connection, or no answer in time (also a ConnectionError)
    |   |   `-- CircuitOpenError     Redis failed several times in a row, so no request was sent
    |   |-- BrokerAuthenticationError
    |   |-- BrokerFullError          Redis is over its memory limit and accepts no new tasks
    |   |-- BrokerReplicationError   Redis executed the request, but replicas have not confirmed it in time
    |   |-- BrokerReplyError         Redis returned an error, or data of an unexpected format
    |   `-- EmbeddedRedisError       the private redis-server cannot be started or used
    |-- QueueNotFoundError
    |-- QueueStateError              the state of a queue does not allow the request; the error names the queue
    |   |-- QueuePausedError         the queue is already paused
    |   |-- QueueNotPausedError      the queue is not paused
    |   `-- QueueNotEmptyError       the queue contains tasks, so it was not removed
    |-- TaskNotFoundError
    |-- EntryNotFoundError           no schedule entry has this id
    |-- WorkerNotFoundError          no running worker has this name
    |-- TaskStateError               the state of a task does not allow the request
    |   `-- TaskActiveError          the task is running
    |-- NoCurrentTaskError           current_task() was called outside a task (also a LookupError)
    |-- ResultError                  the result of a task is not available
    |   |-- ResultNotKeptError       the task has no retention, so its result is not stored
    |   |-- ResultTimeoutError       the task did not finish in time (also a TimeoutError)
    |   |-- ResultTooLargeError      the result is over the limit and was not stored (also a ValueError)
    |   |-- TaskNotSentError         the surrounding transaction has not committed yet, or sending failed
    |   `-- TaskFailedError          the task was archived; the error has the task's error text
    |       `-- TaskExpiredError     the task was not started in time; error handlers get this error too
    |-- WorkflowError                the result of a workflow is not available; the error has its id
    |   |-- WorkflowFailedError      a step failed
    |   |-- WorkflowCancelledError   the workflow was cancelled
    |   |-- WorkflowNotFoundError    the workflow does not exist, or its retention is over
    |   |-- WorkflowDamagedError     the data of the workflow in Redis cannot be read
    |   |-- WorkflowNotSentError     the surrounding transaction has not committed yet, or sending failed
    |   `-- WorkflowTimeoutError     the workflow did not end in time (also a TimeoutError)
    |-- ResultValueError             a result has no JSON form, or a stored one has the wrong type (also a ValueError)
    |-- IterationError               another run could not continue the iteration of a task (also a ValueError)
    |-- ProgressError                reported progress is not a number or not text (also a ValueError)
    |-- SemaphoreFullError           all places of a semaphore are held
    |-- LeaseLostError               the worker no longer holds the lease of the task
    |-- TaskProcessError             the separate process of a task has ended, or did not start
    |-- TaskCancelledError           a run was cancelled on request; only error handlers get this error
    `-- UnknownTaskError             neither a task nor a handler is registered for a type

    TaskControl                      raised by a task, never by taskq
    |-- Retry(after=)                run the task again later; uses an attempt
    |-- Snooze(after=)               run the task again later; uses no attempt
    |-- SkipRetry                    archive the task now
    `-- Discard                      delete the task, without a retry and without an entry in the archive

    TaskInterrupted                  a BaseException raised inside a plain function that must end: its time is over, it
                                     was cancelled, its lease is lost, or the worker stops
    `-- TaskPaused                   raised between two items of `context.iterate`, and by `context.checkpoint`:
                                     another run of the task continues there

An error has its data as attributes, its text is a sentence, and it can be pickled. No error contains a password or the
value of a task's argument, except that `MissingReferenceError` contains the keys of missing objects. Each error has a
`code`, and `taskq explain CODE` shows its causes and their fixes.
"""

import re
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self


class TaskQError(Exception):
    """Base class of every error that taskq raises."""

    code: ClassVar[str] = "taskq"
    """Stable name of the kind of error, such as `queue-not-found` for `QueueNotFoundError`. A class that is renamed
    sets this attribute to its old code."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in vars(cls):
            cls.code = code_of(cls.__name__)


def code_of(name: str) -> str:
    """Return the error code for the name of a class: `queue-full` for `QueueFullError`."""
    words = re.sub(r"(Error|Warning)$", "", name.lstrip("_"))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", words).lower()


class ConfigurationError(TaskQError, ValueError):
    """A setting, an option or a URL is not valid. The message names it, its value and the expected values."""


class TaskDefinitionError(ConfigurationError, TypeError):
    """A function cannot become a task, for example because it takes `*args`."""


class WorkflowDefinitionError(ConfigurationError):
    """A workflow has a mistake; nothing was written.

    Attributes:
        step: Name of the step with the mistake, "" for the workflow itself.
        problem: The mistake.
    """

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(step, problem)
        self.step, self.problem = step, problem

    def __str__(self) -> str:
        return f"step {self.step!r}: {self.problem}" if self.step else f"workflow: {self.problem}"


class TaskArgumentsError(TaskQError, TypeError):
    """The arguments of a call do not match the parameters of the task.

    The message names task, parameter, position and types, but never the value.

    Attributes:
        task: Name of the task.
        parameter: Name of the parameter, "" if the problem is not with one parameter.
        problem: The mistake, as the rest of a sentence.
    """

    def __init__(self, task: str, parameter: str, problem: str) -> None:
        super().__init__(task, parameter, problem)
        self.task, self.parameter, self.problem = task, parameter, problem

    def __str__(self) -> str:
        where = f"task {self.task!r}, parameter {self.parameter!r}" if self.parameter else f"task {self.task!r}"
        return f"{where}: {self.problem}"


class PayloadError(TaskQError):
    """A stored payload does not match the parameters of the task that should run it. A retry cannot succeed.

    Attributes:
        task: Name of the task.
        parameter: Name of the parameter, "" if the whole payload cannot be read.
        problem: The mistake. It names types, never the value.
    """

    def __init__(self, task: str, parameter: str, problem: str) -> None:
        super().__init__(task, parameter, problem)
        self.task, self.parameter, self.problem = task, parameter, problem

    def __str__(self) -> str:
        where = f"parameter {self.parameter!r} of task {self.task!r}" if self.parameter else f"task {self.task!r}"
        return f"payload of {where}: {self.problem}"


class MissingReferenceError(TaskQError):
    """An argument of a task refers to an object that does not exist, such as a deleted row. A retry cannot succeed.

    Attributes:
        task: Name of the task.
        label: Kind of the object, for example the label of a model.
        keys: Keys of the missing objects.
    """

    def __init__(self, task: str, label: str, keys: tuple[object, ...]) -> None:
        super().__init__(task, label, keys)
        self.task, self.label, self.keys = task, label, keys

    def __str__(self) -> str:
        shown = ", ".join(f"{key!s:.100}" for key in self.keys[:3])
        more = f" and {len(self.keys) - 3} more" if len(self.keys) > 3 else ""
        return f"no {self.label} with primary key {shown}{more}, to which task {self.task!r} refers"


class PayloadTooLargeError(TaskQError, ValueError):
    """A payload is larger than the limit. Nothing was written."""

    def __init__(self, task: str, size: int, limit: int) -> None:
        super().__init__(task, size, limit)
        self.task, self.size, self.limit = task, size, limit

    def __str__(self) -> str:
        return (
            f"payload of task {self.task!r} is {self.size} bytes, the limit is {self.limit}; "
            "store the data elsewhere and pass its address"
        )


class WireFormatError(TaskQError, ValueError):
    """Data in Redis does not have the format that taskq and Asynq use."""


class EnqueueError(TaskQError):
    """A task was not enqueued.

    Attributes:
        task: Name (type) of the task.
        queue: Queue to which the task should have been enqueued.
        task_id: Id of the task.
        reason: Why the task was not enqueued, as a sentence.
    """

    def __init__(self, task: str, queue: str, task_id: str, reason: str = "") -> None:
        super().__init__(task, queue, task_id, reason)
        self.task, self.queue, self.task_id, self.reason = task, queue, task_id, reason

    def __str__(self) -> str:
        return f"task {self.task!r} with id {self.task_id!r} was not enqueued to {self.queue!r}: {self.reason}"


class DuplicateTaskError(EnqueueError):
    """Another task with the same queue, name and arguments holds the unique lock.

    Attributes:
        existing_id: Id of the task that holds the lock, "" if unknown.
    """

    def __init__(self, task: str, queue: str, task_id: str, reason: str = "", existing_id: str = "") -> None:
        super().__init__(task, queue, task_id, reason)
        self.args = (task, queue, task_id, reason, existing_id)
        self.existing_id = existing_id

    def __str__(self) -> str:
        holder = f"task {self.existing_id!r}" if self.existing_id else "a task"
        return (
            f"task {self.task!r} was not enqueued to {self.queue!r}: "
            f"{holder} with the same arguments holds the unique lock"
        )


class TaskIdConflictError(EnqueueError):
    """Another task of the queue has the same id. The state of that task does not matter."""

    def __str__(self) -> str:
        return f"task {self.task!r} was not enqueued: id {self.task_id!r} is taken in queue {self.queue!r}"


class QueueFullError(EnqueueError):
    """As many tasks of the queue are pending as the setting `LIMITS` allows. Nothing was written, no lock was taken.

    If `when_full` is `block`, the client waited first, and the queue stayed full.

    Attributes:
        size: Number of pending tasks.
        limit: Maximum number of pending tasks.
    """

    def __init__(self, task: str, queue: str, task_id: str, size: int = 0, limit: int = 0) -> None:
        super().__init__(task, queue, task_id, f"{size} tasks are pending, and the limit is {limit}")
        self.args = (task, queue, task_id, size, limit)
        self.size, self.limit = size, limit

    def __str__(self) -> str:
        return f"task {self.task!r} was not enqueued: queue {self.queue!r} is full; {self.reason}"


class EnqueueUnknownError(EnqueueError):
    """Redis did not answer, or refused only a repeated request, so the task may or may not have been enqueued.

    Enqueueing again with the same `task_id` is safe: it either succeeds or raises `TaskIdConflictError`.
    """

    def __str__(self) -> str:
        return (
            f"task {self.task!r} with id {self.task_id!r} may or may not be in queue {self.queue!r}: {self.reason}; "
            "enqueue again with the same task_id to be sure"
        )


class NotReplicatedError(EnqueueError):
    """The task is enqueued, but the confirmation that `replicated` or `fsynced` requires did not arrive in time.

    A failover may lose the task. Otherwise a worker runs it. Enqueueing the same call again with the same `task_id`
    within an hour is safe: that call waits for the confirmation of this task, even after the task's run, and stores the
    task again only if it was lost.

    Attributes:
        wanted: Number of replicas that had to confirm.
        confirmed: Number of replicas that confirmed.
    """

    def __init__(
        self, task: str, queue: str, task_id: str, reason: str = "", wanted: int = 0, confirmed: int = 0
    ) -> None:
        EnqueueError.__init__(self, task, queue, task_id, reason)
        self.args = (task, queue, task_id, reason, wanted, confirmed)
        self.wanted, self.confirmed = wanted, confirmed

    def __str__(self) -> str:
        return (
            f"task {self.task!r} with id {self.task_id!r} is in queue {self.queue!r}, but not confirmed: "
            f"{self.reason}; enqueue again with the same task_id to have it confirmed"
        )


class BulkEnqueueError(TaskQError):
    """A bulk enqueue stopped before its end, because Redis refused a batch or did not answer. See the error's cause.

    Attributes:
        enqueued: Number of tasks that were enqueued before the failed batch.
        task_ids: Ids of the tasks of the failed batch.
        may_have_happened: True if the failed batch may have been enqueued nevertheless.
    """

    def __init__(self, enqueued: int, task_ids: tuple[str, ...], may_have_happened: bool) -> None:
        super().__init__(enqueued, task_ids, may_have_happened)
        self.enqueued, self.task_ids, self.may_have_happened = enqueued, task_ids, may_have_happened

    def __str__(self) -> str:
        if isinstance(self.__cause__, BrokerReplicationError):
            state = "were, but are not confirmed"
        else:
            state = "may or may not have been" if self.may_have_happened else "were not"
        return f"{self.enqueued} tasks were enqueued; the next {len(self.task_ids)} {state}: {self.__cause__}"


class BrokerError(TaskQError):
    """Redis refused a request or could not be reached.

    Attributes:
        may_have_happened: False if the request certainly changed nothing: it was never sent, or Redis refused it. True
            if an attempt got no answer, even if Redis then refused the repeated request, because the first attempt may
            have succeeded.
    """

    may_have_happened = False


class BrokerUnavailableError(BrokerError, ConnectionError):
    """No connection to Redis, or no answer in time."""

    may_have_happened = True

    @classmethod
    def unchanged(cls, message: str) -> Self:
        """Return the error of a request that certainly changed nothing."""
        error = cls(message)
        error.may_have_happened = False
        return error


class CircuitOpenError(BrokerUnavailableError):
    """Redis failed to answer several times in a row, so the client sends no requests during a pause. Nothing was sent.

    Attributes:
        address: Address of Redis.
        failures: Number of consecutive failures.
        retry_in_s: Seconds until a client tries again.
        last_failure: Text of the last failure.
    """

    may_have_happened = False

    def __init__(self, address: str, failures: int, retry_in_s: float, last_failure: str) -> None:
        # Pass a single argument, because OSError takes two arguments for an error number and its text.
        super().__init__(
            f"{address} failed {failures} times in a row, so no request is sent for {retry_in_s:.1f} s; "
            f"the last failure: {last_failure}"
        )
        self.address, self.failures = address, failures
        self.retry_in_s, self.last_failure = retry_in_s, last_failure

    def __reduce__(self) -> tuple[type["CircuitOpenError"], tuple[str, int, float, str]]:
        return type(self), (self.address, self.failures, self.retry_in_s, self.last_failure)


class BrokerAuthenticationError(BrokerError):
    """Redis refused the user name or password, or the user lacks a permission.

    `may_have_happened` is also True if a script was aborted at a command that the user may not run, because earlier
    commands of the script were executed.
    """


class BrokerFullError(BrokerError):
    """Redis is over its memory limit and refuses new tasks. Workers can still finish existing tasks."""


class BrokerReplicationError(BrokerError):
    """Redis executed the request, but its replicas, or its append-only file, have not confirmed it in time.

    Attributes:
        wanted: Number of replicas that had to confirm.
        confirmed: Number of replicas that confirmed.
    """

    may_have_happened = True

    def __init__(
        self, message: str, wanted: int = 0, confirmed: int = 0, *, is_final: bool = False, answer: object = None
    ) -> None:
        super().__init__(message, wanted, confirmed)
        self.wanted, self.confirmed = wanted, confirmed
        self.is_final = is_final
        self.answer = answer

    def __str__(self) -> str:
        return str(self.args[0])


class BrokerReplyError(BrokerError):
    """Redis returned an error, or a reply of an unexpected format."""


class EmbeddedRedisError(BrokerError):
    """The private redis-server of `embedded://` cannot be started or used."""


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
        state: State of the task. "moving": it is being moved to another queue. "lost": its record names a state, but
            the queue's list of that state does not contain the task.
        reason: The reason, as the rest of a sentence.
    """

    def __init__(self, queue: str, task_id: str, state: str, reason: str) -> None:
        super().__init__(queue, task_id, state, reason)
        self.queue, self.task_id, self.state, self.reason = queue, task_id, state, reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} in queue {self.queue!r} is {self.state}: {self.reason}"


class TaskActiveError(TaskStateError):
    """The request is not possible while the task is running. Cancel the task and wait for its end."""


class NoCurrentTaskError(TaskQError, LookupError):
    """The code does not run inside a task."""

    def __str__(self) -> str:
        return "no task runs here; current_task() works inside a task only"


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
    """A step of the workflow failed. `reason` contains the name and the error text of the first failed step."""


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


class IterationError(TaskQError, ValueError):
    """Another run of the task could not continue its iteration, or the cursor of the iteration cannot be stored.

    The message names types, but never values.
    """


class ProgressError(TaskQError, ValueError):
    """The progress that a task reports is not valid. The message names the value and the expected values."""


class SemaphoreFullError(TaskQError):
    """All places of a semaphore are held, and no place became free while the caller waited.

    Attributes:
        scope: Name of the semaphore.
        limit: Number of places of the semaphore.
    """

    def __init__(self, scope: str, limit: int) -> None:
        super().__init__(scope, limit)
        self.scope, self.limit = scope, limit

    def __str__(self) -> str:
        return f"all {self.limit} places of semaphore {self.scope!r} are held"


class LeaseLostError(TaskQError):
    """The worker's lease on the task ended, so this worker may no longer change the task.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        before_start: True if the run had not started. Then no attempt was used.
    """

    def __init__(self, queue: str, task_id: str, before_start: bool = False) -> None:
        super().__init__(queue, task_id, before_start)
        self.queue, self.task_id, self.before_start = queue, task_id, before_start

    def __str__(self) -> str:
        when = " before its run started" if self.before_start else ""
        return f"the lease of task {self.task_id!r} in queue {self.queue!r} is lost{when}"


class TaskProcessError(TaskQError):
    """The separate process of a task has ended, or did not start. The attempt has failed.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        status: Exit status of the process. A negative number is the signal that ended it. None if it was not started.
        problem: Further details, "" if the status is enough.
    """

    def __init__(self, queue: str, task_id: str, status: int | None, problem: str = "") -> None:
        super().__init__(queue, task_id, status, problem)
        self.queue, self.task_id, self.status, self.problem = queue, task_id, status, problem

    def __str__(self) -> str:
        what = f"the process of task {self.task_id!r} of queue {self.queue!r}"
        if self.status is None:
            return f"{what}: {self.problem}" if self.problem else f"{what} has ended"
        how = f"was ended by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"
        return f"{what} {how}" + (f": {self.problem}" if self.problem else "")


class TaskCancelledError(TaskQError):
    """The run of a task was cancelled on request. Error handlers get this error; the function itself does not."""

    def __init__(self, queue: str, task_id: str) -> None:
        super().__init__(queue, task_id)
        self.queue, self.task_id = queue, task_id

    def __str__(self) -> str:
        return f"task {self.task_id!r} in queue {self.queue!r} was cancelled while it ran"


class UnknownTaskError(TaskQError):
    """Neither a task nor a handler is registered for the type of a task.

    A worker returns such a task to its queue for other workers, without using an attempt. After the setting
    `UNKNOWN_TASK_TIMEOUT`, it archives the task with this error.

    Attributes:
        name: Type of the task.
        hint: Advice of a framework's adapter, "" without an adapter.
    """

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(name, hint)
        self.name, self.hint = name, hint

    def __str__(self) -> str:
        text = f'handler not found for task "{self.name}": no worker that took it has this task registered'
        return f"{text}; {self.hint}" if self.hint else text


class TaskControl(Exception):  # noqa: N818 - controls the queue, not an error
    """Base class of exceptions that a task raises to control the queue. They are not failures."""


class Retry(TaskControl):
    """Run the task again later. This uses an attempt. If no attempt is left, the task is archived.

    Args:
        after: Seconds or `timedelta` until the next attempt. None: as the task's retry policy decides.
    """

    def __init__(self, after: timedelta | float | None = None) -> None:
        super().__init__(after)
        self.after = after


class Snooze(TaskControl):
    """Run the task again later without using an attempt.

    Args:
        after: Seconds or `timedelta` until the next run.
    """

    def __init__(self, after: timedelta | float) -> None:
        super().__init__(after)
        self.after = after


class SkipRetry(TaskControl):
    """Archive the task now, even if attempts are left.

    Args:
        reason: Stored as the task's error text.
    """

    def __init__(self, reason: str = "skip retry for the task") -> None:
        super().__init__(reason)
        self.reason = reason


class Discard(TaskControl):
    """Delete the task. It is neither retried nor archived, and counts as processed."""


class TaskInterrupted(BaseException):
    """Raised inside a plain function that must end now. Release resources, and do not suppress this exception.

    It is a `BaseException`, like `asyncio.CancelledError`, so that `except Exception` does not catch it.
    """


class TaskPaused(TaskInterrupted):
    """Raised between two items of `context.iterate`, and by `context.checkpoint`, to end this run of the task.

    Do not suppress it. The task returns to its queue without using an attempt, and another run continues there. Unlike
    `TaskInterrupted`, it is also raised inside coroutines.

    Attributes:
        is_stopping: True if the worker stops; the task then returns to the head of its queue. False if the run was
            paused so that other tasks get its slot; the task then waits behind them.
    """

    def __init__(self, is_stopping: bool = True) -> None:
        super().__init__(is_stopping)
        self.is_stopping = is_stopping
