"""The errors of requests to Redis, and of calls that enqueue tasks."""

from typing import Self

from taskq_core.errors.base import TaskQError


class BrokerError(TaskQError):
    """Redis refused a request or could not be reached.

    Attributes:
        may_have_happened: False if the request certainly changed nothing: it was never sent, or Redis refused it. True
            if an attempt got no answer, even if Redis then refused the repeated request, because the first attempt may
            have succeeded.
    """

    may_have_happened = False


class BrokerUnavailableError(BrokerError, ConnectionError):
    """No connection to Redis, or no answer in time.

    Attributes:
        is_permanent: True if time does not resolve the cause, such as an untrusted certificate, a missing certificate
            file, or a port on which another program answers.
    """

    may_have_happened = True
    is_permanent = False

    @classmethod
    def unchanged(cls, message: str, *, is_permanent: bool = False) -> Self:
        """Return the error of a request that certainly changed nothing."""
        error = cls(message)
        error.may_have_happened, error.is_permanent = False, is_permanent
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
        # Pass only one argument, because OSError would treat two arguments as an error number and its text.
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


class WireFormatError(TaskQError, ValueError):
    """Data in Redis does not have the format that taskq and Asynq use."""


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
        task_ids: Ids of the tasks of the failed batch, and of batches that were sent after it.
        may_have_happened: True if any of these tasks may have been enqueued nevertheless.
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
