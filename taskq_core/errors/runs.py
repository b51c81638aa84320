"""The errors of running tasks, and the exceptions that a task raises to control its queue."""

from datetime import timedelta

from taskq_core.errors.base import TaskQError


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


class UnknownTaskError(TaskQError):
    """Neither a task nor a handler is registered for the type of a task.

    A worker returns such a task to its queue for other workers, without using an attempt. After the setting
    `UNKNOWN_TASK_TIMEOUT`, it archives the task with this error.

    Attributes:
        name: Type of the task.
        hint: Advice of a framework's adapter, "" if no adapter is used.
    """

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(name, hint)
        self.name, self.hint = name, hint

    def __str__(self) -> str:
        text = f'handler not found for task "{self.name}": no worker that took it has this task registered'
        return f"{text}; {self.hint}" if self.hint else text


class NoCurrentTaskError(TaskQError, LookupError):
    """The code does not run inside a task."""

    def __str__(self) -> str:
        return "no task runs here; current_task() works inside a task only"


class IterationError(TaskQError, ValueError):
    """Another run of the task could not continue its iteration over these items.

    The message names types, but never values.
    """


class StepError(TaskQError, ValueError):
    """A step of a task cannot be stored or continued, or a signal cannot be sent. The message never contains values.

    Attributes:
        is_final: True if no retry can succeed. A task that fails with such an error is archived at once.
    """

    is_final = False  # for a derived class that does not call this constructor

    def __init__(self, *args: object, is_final: bool = False) -> None:
        super().__init__(*args)
        self.is_final = is_final


class StepFailedError(StepError):
    """A step of a task raised an exception. `context.step` raises this error inside the task.

    Exceptions whose class is in the task's option `step_errors` are raised instead of this error. In the run in which
    the step failed, `__cause__` is the original exception. A later run has only its class name and its text.

    Attributes:
        step: Name of the step.
        error_type: Name of the class of the original exception.
        text: Text of the original exception.
    """

    def __init__(self, step: str, error_type: str, text: str) -> None:
        super().__init__(step, error_type, text)
        self.step, self.error_type, self.text = step, error_type, text

    def __str__(self) -> str:
        return f"step {self.step!r} failed: {self.error_type}" + (f": {self.text}" if self.text else "")


class SignalTimeoutError(StepError, TimeoutError):
    """The task received no signal in time. `context.receive` raises it inside the task, in each later run too.

    Attributes:
        name: Name of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, is_final=True)
        self.name = name

    def __str__(self) -> str:
        return f"no signal {self.name!r} has arrived within its timeout"


class ProgressError(TaskQError, ValueError):
    """The progress that a task reports is not valid. The message names the value and the expected values."""


class SemaphoreFullError(TaskQError):
    """All permits of a semaphore are held, and none was released while the caller waited.

    Attributes:
        scope: Name of the semaphore.
        limit: Number of permits of the semaphore.
    """

    def __init__(self, scope: str, limit: int) -> None:
        super().__init__(scope, limit)
        self.scope, self.limit = scope, limit

    def __str__(self) -> str:
        return f"all {self.limit} permits of semaphore {self.scope!r} are held"


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


class TaskWaiting(TaskPaused):
    """Raised by `context.sleep`, `receive` and `call` to end this run of the task.

    Do not suppress it. The task is scheduled at the end of its wait, uses no attempt, and another run continues it.

    Attributes:
        wait: What the task waits for, as in the record of its steps.
        until_ms: End of the wait, Unix ms. 0 if it has no time limit.
        emitted: Number of values that the task has emitted outside its steps.
    """

    def __init__(self, wait: str, until_ms: int, emitted: int = 0) -> None:
        super().__init__(is_stopping=False)
        self.args = (wait, until_ms, emitted)
        self.wait, self.until_ms, self.emitted = wait, until_ms, emitted
