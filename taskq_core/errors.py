"""Every error taskq raises, and the small tree a task raises to steer the queue.

::

    TaskQError
    |-- ConfigurationError           a setting, an option of a task or a URL is not usable (also a ValueError)
    |   |-- TaskDefinitionError      a function cannot become a task (also a TypeError)
    |   `-- WorkflowDefinitionError  a workflow has a mistake; carries the step
    |-- TaskArgumentsError           the arguments of a call do not fit the task (also a TypeError)
    |-- PayloadError                 a stored payload does not fit the task that should run it
    |-- MissingReferenceError        an argument refers to an object that does not exist, such as a deleted row
    |-- PayloadTooLargeError         a payload is over the limit (also a ValueError)
    |-- WireFormatError              stored bytes are not what the layout says
    |-- EnqueueError                 a task was not enqueued; carries its id
    |   |-- DuplicateTaskError       another task holds the unique lock
    |   |-- TaskIdConflictError      the id is taken in this queue
    |   |-- QueueFullError           as many tasks are pending as the setting LIMITS allows
    |   |-- EnqueueUnknownError      the store did not answer: the task may or may not be there
    |   `-- NotReplicatedError       the task is there, and its replicas have not confirmed it in time
    |-- BulkEnqueueError             a bulk enqueue stopped half-way; carries what was enqueued
    |-- BrokerError                  the store refused, or was not reached
    |   |-- BrokerUnavailableError   no connection or no answer in time (also a ConnectionError)
    |   |   `-- CircuitOpenError     it failed several times, so it was not asked again just now
    |   |-- BrokerAuthenticationError
    |   |-- BrokerFullError          the store is over its memory limit and takes no new work
    |   |-- BrokerReplicationError   the store did it, and its replicas have not confirmed it in time
    |   |-- BrokerReplyError         the store answered something else than the layout says
    |   `-- EmbeddedRedisError       the private redis-server cannot be started or used
    |-- QueueNotFoundError
    |-- QueueStateError              the state of a queue does not allow it; carries its name
    |   |-- QueuePausedError         it is paused already
    |   |-- QueueNotPausedError      it is not paused
    |   `-- QueueNotEmptyError       it holds tasks, or tasks that run
    |-- TaskNotFoundError
    |-- EntryNotFoundError           no periodic entry has this id
    |-- WorkerNotFoundError          no worker that is alive has this name
    |-- TaskStateError               the state of a task does not allow what was asked
    |   `-- TaskActiveError          it runs
    |-- NoCurrentTaskError           current_task() was called outside a task (also a LookupError)
    |-- ResultError                  the result of a task is not available
    |   |-- ResultNotKeptError       retention is 0: nothing is kept
    |   |-- ResultTimeoutError       not finished in time (also a TimeoutError)
    |   |-- ResultTooLargeError      the result is over the limit and was not stored (also a ValueError)
    |   |-- TaskNotSentError         the surrounding transaction has not committed yet, or sending failed
    |   `-- TaskFailedError          the task was archived; carries its error text
    |       `-- TaskExpiredError     it was not started in time; error handlers get it too
    |-- WorkflowError                the result of a workflow is not available; carries its id
    |   |-- WorkflowFailedError      steps of it failed
    |   |-- WorkflowCancelledError   it was cancelled
    |   |-- WorkflowNotFoundError    it does not exist, or its retention is over
    |   |-- WorkflowDamagedError     its data in Redis cannot be read
    |   |-- WorkflowNotSentError     the surrounding transaction has not committed yet, or sending failed
    |   `-- WorkflowTimeoutError     not finished in time (also a TimeoutError)
    |-- ResultValueError             a result has no JSON form, or a stored one does not fit (also a ValueError)
    |-- IterationError               items or a cursor that another run could not continue (also a ValueError)
    |-- ProgressError                reported progress is not a number or not text (also a ValueError)
    |-- SemaphoreFullError           all places of a semaphore are held
    |-- LeaseLostError               the worker no longer owns the task
    |-- TaskProcessError             the separate process of a task has ended, or did not start
    |-- TaskCancelledError           a run was cancelled on request; error handlers get it, no task sees it
    `-- UnknownTaskError             neither a task nor a handler is registered for a type

    TaskControl                      raised by a task, never by taskq
    |-- Retry(after=)                run again later, uses an attempt
    |-- Snooze(after=)               run again later, uses no attempt
    |-- SkipRetry                    archive now
    `-- Discard                      drop: neither retried nor archived

    TaskInterrupted                  a BaseException raised inside a plain function that must end: its time is over, it
                                     was cancelled, its lease is lost, or the worker stops
    `-- TaskPaused                   raised between two items of `context.iterate`, and by `context.checkpoint`: the
                                     task goes on there in another run

Errors have their facts as attributes, read as a sentence and can be pickled. They never contain the value of a task's
argument or a password; only `MissingReferenceError` names keys. Each has a `code`, and `taskq explain CODE` shows its
causes and their fixes.
"""

import re
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self


class TaskQError(Exception):
    """Base of every error raised by taskq."""

    code: ClassVar[str] = "taskq"
    """Stable name of the kind of error: `queue-not-found` for `QueueNotFoundError`. A renamed class sets its old
    code."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in vars(cls):
            cls.code = code_of(cls.__name__)


def code_of(name: str) -> str:
    """Return the code for the name of a class: `queue-full` for `QueueFullError`."""
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
    """The arguments of a call do not fit the task.

    The message names task, parameter, position and types; never the value.

    Attributes:
        task: Name of the task.
        parameter: Name of the parameter, or "" when the call as a whole does not fit.
        problem: The mistake, as the rest of a sentence.
    """

    def __init__(self, task: str, parameter: str, problem: str) -> None:
        super().__init__(task, parameter, problem)
        self.task, self.parameter, self.problem = task, parameter, problem

    def __str__(self) -> str:
        where = f"task {self.task!r}, parameter {self.parameter!r}" if self.parameter else f"task {self.task!r}"
        return f"{where}: {self.problem}"


class PayloadError(TaskQError):
    """A stored payload does not fit the task that should run it; retrying cannot help.

    Attributes:
        task: Name of the task.
        parameter: Name of the parameter, or "" when the payload as a whole is unreadable.
        problem: The mistake. It names types, never the value.
    """

    def __init__(self, task: str, parameter: str, problem: str) -> None:
        super().__init__(task, parameter, problem)
        self.task, self.parameter, self.problem = task, parameter, problem

    def __str__(self) -> str:
        where = f"parameter {self.parameter!r} of task {self.task!r}" if self.parameter else f"task {self.task!r}"
        return f"payload of {where}: {self.problem}"


class MissingReferenceError(TaskQError):
    """An argument of a task refers to an object that does not exist, such as a deleted row; retrying cannot help.

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
    """A payload is over the limit; nothing was written."""

    def __init__(self, task: str, size: int, limit: int) -> None:
        super().__init__(task, size, limit)
        self.task, self.size, self.limit = task, size, limit

    def __str__(self) -> str:
        return (
            f"payload of task {self.task!r} is {self.size} bytes, the limit is {self.limit}; "
            "store the data elsewhere and pass its address"
        )


class WireFormatError(TaskQError, ValueError):
    """Bytes or text read from Redis are not what the layout says."""


class EnqueueError(TaskQError):
    """A task was not enqueued.

    Attributes:
        task: Name (type) of the task.
        queue: Queue it was meant for.
        task_id: Id chosen for it.
        reason: Why, as a sentence.
    """

    def __init__(self, task: str, queue: str, task_id: str, reason: str = "") -> None:
        super().__init__(task, queue, task_id, reason)
        self.task, self.queue, self.task_id, self.reason = task, queue, task_id, reason

    def __str__(self) -> str:
        return f"task {self.task!r} with id {self.task_id!r} was not enqueued to {self.queue!r}: {self.reason}"


class DuplicateTaskError(EnqueueError):
    """Another task with the same queue, name and arguments holds the unique lock.

    Attributes:
        existing_id: Id of that task, "" where it is not known.
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
    """The id is taken by another task of the queue, in whatever state."""

    def __str__(self) -> str:
        return f"task {self.task!r} was not enqueued: id {self.task_id!r} is taken in queue {self.queue!r}"


class QueueFullError(EnqueueError):
    """As many tasks of the queue are pending as the setting `LIMITS` allows. Nothing was written, no lock was taken.

    With `when_full` `block`, the queue stayed full while the client waited.

    Attributes:
        size: Tasks that were pending.
        limit: Most that may be pending.
    """

    def __init__(self, task: str, queue: str, task_id: str, size: int = 0, limit: int = 0) -> None:
        super().__init__(task, queue, task_id, f"{size} tasks are pending, and no more than {limit} may be")
        self.args = (task, queue, task_id, size, limit)
        self.size, self.limit = size, limit

    def __str__(self) -> str:
        return f"task {self.task!r} was not enqueued: queue {self.queue!r} is full; {self.reason}"


class EnqueueUnknownError(EnqueueError):
    """The store did not answer, or refused only a repeat, so the task may or may not have been enqueued.

    Enqueueing again with the same `task_id` is safe: it either succeeds or raises `TaskIdConflictError`.
    """

    def __str__(self) -> str:
        return (
            f"task {self.task!r} with id {self.task_id!r} may or may not be in queue {self.queue!r}: {self.reason}; "
            "enqueue again with the same task_id to be sure"
        )


class NotReplicatedError(EnqueueError):
    """The task is in its queue, but not confirmed as `replicated` or `fsynced` asked, and a failover may lose it.

    A worker may still run it. Enqueueing the same call again with the same `task_id` within an hour is safe: it waits
    for the confirmation of this task, also after its run, and stores it again only if it was lost.

    Attributes:
        wanted: Replicas that had to confirm.
        confirmed: Replicas that did.
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
    """A bulk enqueue stopped half-way because the store refused or was not reached; the cause says why.

    Attributes:
        enqueued: Tasks that were enqueued before.
        task_ids: Ids of the batch at which it stopped.
        may_have_happened: True if that batch may have been enqueued all the same.
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
    """The store refused an operation or was not reached.

    Attributes:
        may_have_happened: False when the request certainly changed nothing: it was never sent, or it was refused. True
            when an attempt got no answer, also if the store refused a repeat of it: the refusal of the repeat proves
            nothing about the first attempt.
    """

    may_have_happened = False


class BrokerUnavailableError(BrokerError, ConnectionError):
    """No connection to the store, or no answer in time."""

    may_have_happened = True

    @classmethod
    def unchanged(cls, message: str) -> Self:
        """Return the error of a request that certainly changed nothing."""
        error = cls(message)
        error.may_have_happened = False
        return error


class CircuitOpenError(BrokerUnavailableError):
    """The store failed to answer several times in a row, so it was not asked again just now. Nothing was sent.

    Attributes:
        address: Where the store is.
        failures: How often it failed in a row.
        retry_in_s: Seconds until it is asked again.
        last_failure: Text of the last failure.
    """

    may_have_happened = False

    def __init__(self, address: str, failures: int, retry_in_s: float, last_failure: str) -> None:
        # One argument: an OSError takes several for an error number and its text.
        super().__init__(
            f"{address} failed {failures} times in a row and is asked again in {retry_in_s:.1f} s; "
            f"the last time: {last_failure}"
        )
        self.address, self.failures = address, failures
        self.retry_in_s, self.last_failure = retry_in_s, last_failure

    def __reduce__(self) -> tuple[type["CircuitOpenError"], tuple[str, int, float, str]]:
        return type(self), (self.address, self.failures, self.retry_in_s, self.last_failure)


class BrokerAuthenticationError(BrokerError):
    """The store refused the user name or password, or the user may not do this.

    `may_have_happened` is also True when a script was ended half-way, by a command in it that the user may not run.
    """


class BrokerFullError(BrokerError):
    """The store is over its memory limit: new work is refused, work in progress goes on."""


class BrokerReplicationError(BrokerError):
    """The store did what was asked, but its replicas, or its append-only file, have not confirmed it in time.

    Attributes:
        wanted: Replicas that had to confirm.
        confirmed: Replicas that did.
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
    """The store answered with an error, or with something the layout does not know."""


class EmbeddedRedisError(BrokerError):
    """The private redis-server of `embedded://` cannot be started or used."""


class QueueNotFoundError(TaskQError):
    """No queue with this name is known.

    Attributes:
        queue: The name.
        hint: Which names there are, or the nearest of them, as the rest of a sentence; "" if that was not looked for.
    """

    def __init__(self, queue: str, hint: str = "") -> None:
        super().__init__(queue, hint)
        self.queue, self.hint = queue, hint

    def __str__(self) -> str:
        return f"no queue {self.queue!r}{self.hint and '; '}{self.hint}"


class QueueStateError(TaskQError):
    """The state of a queue does not allow the request; nothing was changed.

    Attributes:
        queue: Name of the queue.
    """

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue


class QueuePausedError(QueueStateError):
    """The queue is paused already."""

    def __str__(self) -> str:
        return f"queue {self.queue!r} is already paused"


class QueueNotPausedError(QueueStateError):
    """The queue is not paused."""

    def __str__(self) -> str:
        return f"queue {self.queue!r} is not paused"


class QueueNotEmptyError(QueueStateError):
    """The queue holds tasks and was not removed.

    Attributes:
        queue: Name of the queue.
        active: Tasks of it that run; with any, it cannot be removed at all.
        waiting: Tasks in the other states that count, and those set aside as unreadable.
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
        queue: Name of the queue, "" where the task was looked for in all of them.
        task_id: The id.
    """

    def __init__(self, queue: str, task_id: str) -> None:
        super().__init__(queue, task_id)
        self.queue, self.task_id = queue, task_id

    def __str__(self) -> str:
        where = f"queue {self.queue!r}" if self.queue else "any queue"
        return f"no task {self.task_id!r} in {where}; one that has succeeded is kept only with a retention"


class EntryNotFoundError(TaskQError):
    """No scheduler that is alive has a periodic entry with this id, and none has enqueued for it.

    Attributes:
        entry_id: The id.
        hint: Which ids there are, or the nearest of them, as the rest of a sentence.
    """

    def __init__(self, entry_id: str, hint: str = "") -> None:
        super().__init__(entry_id, hint)
        self.entry_id, self.hint = entry_id, hint

    def __str__(self) -> str:
        return f"no periodic entry {self.entry_id!r}{self.hint and '; '}{self.hint}"


class WorkerNotFoundError(TaskQError):
    """No worker that is alive has this name.

    Attributes:
        worker: The id, host, or host and process id.
        hint: Which workers there are, or the nearest of them, as the rest of a sentence.
    """

    def __init__(self, worker: str, hint: str = "") -> None:
        super().__init__(worker, hint)
        self.worker, self.hint = worker, hint

    def __str__(self) -> str:
        return f"no worker {self.worker!r}{self.hint and '; '}{self.hint}"


class TaskStateError(TaskQError):
    """The state of a task does not allow what was asked; nothing was changed.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        state: Its state; "moving" during a move to another queue, "lost" if it is missing in the list of its state.
        reason: The reason, as the rest of a sentence.
    """

    def __init__(self, queue: str, task_id: str, state: str, reason: str) -> None:
        super().__init__(queue, task_id, state, reason)
        self.queue, self.task_id, self.state, self.reason = queue, task_id, state, reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} in queue {self.queue!r} is {self.state}: {self.reason}"


class TaskActiveError(TaskStateError):
    """The task runs. Cancel it and wait for its end."""


class NoCurrentTaskError(TaskQError, LookupError):
    """The code does not run inside a task."""

    def __str__(self) -> str:
        return "no task runs here; current_task() works inside a task only"


class ResultError(TaskQError):
    """The result of a task is not available.

    Attributes:
        queue: Queue of the task.
        task_id: Id of the task.
        reason: Why, as a sentence.
    """

    def __init__(self, queue: str, task_id: str, reason: str = "") -> None:
        super().__init__(queue, task_id, reason)
        self.queue, self.task_id, self.reason = queue, task_id, reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} in queue {self.queue!r}: {self.reason}"


class ResultNotKeptError(ResultError):
    """The task keeps no result because its retention is 0."""


class ResultTimeoutError(ResultError, TimeoutError):
    """The task did not finish in the time given."""


class ResultTooLargeError(ResultError, ValueError):
    """The task succeeded, and its result was not stored because it is over the limit `max_result_bytes`.

    Attributes:
        size: Bytes of the result.
        limit: Most bytes that the task may store.
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
    """The task was not started by the time its `expires` says, so it was archived or dropped and does not run.

    Attributes:
        expired_at: The time by which it would have had to be started; None if it is not known.
    """

    def __init__(self, queue: str, task_id: str, reason: str = "", expired_at: datetime | None = None) -> None:
        super().__init__(queue, task_id, reason)
        self.args = (queue, task_id, reason, expired_at)
        self.expired_at = expired_at


class WorkflowError(TaskQError):
    """The result of a workflow is not available.

    Attributes:
        queue: Its home queue.
        workflow_id: Its id.
        reason: Why.
    """

    def __init__(self, queue: str, workflow_id: str, reason: str = "") -> None:
        super().__init__(queue, workflow_id, reason)
        self.queue, self.workflow_id, self.reason = queue, workflow_id, reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id} in queue {self.queue!r}: {self.reason}"


class WorkflowFailedError(WorkflowError):
    """Steps of the workflow failed. `reason` names the first of them and its error text."""


class WorkflowCancelledError(WorkflowError):
    """The workflow was cancelled."""


class WorkflowNotFoundError(WorkflowError):
    """The queue has no workflow with this id, or its retention is over."""


class WorkflowDamagedError(WorkflowError):
    """The data of the workflow in Redis cannot be read. `reason` names the field and the expected value."""


class WorkflowNotSentError(WorkflowError):
    """The workflow waits for the surrounding transaction to commit, or sending it after the commit failed."""


class WorkflowTimeoutError(WorkflowError, TimeoutError):
    """The workflow did not end in the time given. It is not cancelled."""


class ResultValueError(TaskQError, ValueError):
    """A returned value has no JSON form, or a stored result is not of the type expected. Names types, never values."""


class IterationError(TaskQError, ValueError):
    """Another run could not continue the items of a task, or their cursor cannot be stored.

    The message names types, never values.
    """


class ProgressError(TaskQError, ValueError):
    """The progress that a task reports is not valid. The message names the value and what was expected."""


class SemaphoreFullError(TaskQError):
    """All places of a semaphore are held, and were for as long as the caller waited.

    Attributes:
        scope: Name of the semaphore.
        limit: Its places.
    """

    def __init__(self, scope: str, limit: int) -> None:
        super().__init__(scope, limit)
        self.scope, self.limit = scope, limit

    def __str__(self) -> str:
        return f"all {self.limit} places of semaphore {self.scope!r} are held"


class LeaseLostError(TaskQError):
    """The worker's lease on the task ended, so it may no longer change the task.

    Attributes:
        queue: Queue of the task.
        task_id: Its id.
        before_start: True if the run had not started; it used no attempt.
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
        task_id: Its id.
        status: Exit status of the process, negative for the signal that ended it, None if it was not started.
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

    The task goes back for other workers, without using an attempt, and is archived after `UNKNOWN_TASK_TIMEOUT`.

    Attributes:
        name: The type.
        hint: Advice of a framework's adapter; "" outside of one.
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
    """Run the task again later; uses an attempt, and archives the task when none is left.

    Args:
        after: Seconds or `timedelta` until the next attempt; None takes the task's retry policy.
    """

    def __init__(self, after: timedelta | float | None = None) -> None:
        super().__init__(after)
        self.after = after


class Snooze(TaskControl):
    """Run the task again later without using an attempt.

    Args:
        after: Seconds or `timedelta` until then.
    """

    def __init__(self, after: timedelta | float) -> None:
        super().__init__(after)
        self.after = after


class SkipRetry(TaskControl):
    """Archive the task now, whatever attempts are left.

    Args:
        reason: Stored as the task's error text.
    """

    def __init__(self, reason: str = "skip retry for the task") -> None:
        super().__init__(reason)
        self.reason = reason


class Discard(TaskControl):
    """Delete the task: it is neither retried nor archived, and counts as processed."""


class TaskInterrupted(BaseException):
    """Raised inside a plain function that must end now. Clean up and let it pass.

    It is a `BaseException`, as `asyncio.CancelledError` is, so that `except Exception` does not swallow it.
    """


class TaskPaused(TaskInterrupted):
    """Raised between two items of `context.iterate`, and by `context.checkpoint`, to end a run that goes on later.

    Let it pass: the task goes back to its queue without using an attempt. Also raised inside coroutines.

    Attributes:
        is_stopping: True if the worker stops, and the task goes to the head of its queue; False if its slot was given
            back to other tasks, and it waits its turn behind them.
    """

    def __init__(self, is_stopping: bool = True) -> None:
        super().__init__(is_stopping)
        self.is_stopping = is_stopping
