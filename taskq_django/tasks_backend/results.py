"""Convert a task in Redis to a `TaskResult` of Django's framework."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from taskq_core import OversizedResult, ResultTooLargeError, TaskInfo, TaskState
from taskq_core.errors import PayloadError
from taskq_django.tasks_backend.codec import JsonArgumentsCodec
from taskq_django.tasks_backend.facts import Facts, read_facts, shown
from taskq_django.tasks_backend.framework import (
    AnyResult,
    AnyTask,
    InvalidTask,
    TaskError,
    TaskResultStatus,
)

STATUSES: Mapping[TaskState, TaskResultStatus] = {
    TaskState.SCHEDULED: TaskResultStatus.READY,
    TaskState.PENDING: TaskResultStatus.READY,
    TaskState.AGGREGATING: TaskResultStatus.READY,
    TaskState.RETRY: TaskResultStatus.READY,
    TaskState.ACTIVE: TaskResultStatus.RUNNING,
    TaskState.COMPLETED: TaskResultStatus.SUCCESSFUL,
    TaskState.ARCHIVED: TaskResultStatus.FAILED,
}
"""The framework's status for each state."""
UNKNOWN_WORKER = ""
"""Worker id of an attempt without a stored record: an old attempt, or one of a worker in Go."""
NO_CLASS = "taskq_core.errors.TaskFailedError"
"""Name of the error class shown for an error that is stored without a class, as by workers in Go."""


class StoredTaskError(TaskError):
    """An error read from Redis.

    Anyone who can write to Redis can choose the class path, so reading the class imports no module.
    """

    __slots__ = ()

    @property
    def exception_class(self) -> type[BaseException]:
        """Class of the exception.

        Raises:
            ImportError: The module is not imported in this process, or has no such class.
            ValueError: The path does not name an exception.
        """
        module_path, _, name = self.exception_class_path.rpartition(".")
        module = sys.modules.get(module_path)
        if module is None:
            raise ImportError(
                f"the module of {self.exception_class_path!r}, an error read from Redis, is not imported in this "
                "process; import it before you read exception_class"
            )
        if name not in vars(module):
            raise ImportError(f"module {module_path!r} has no class {name!r}")
        found = vars(module)[name]
        if not isinstance(found, type) or not issubclass(found, BaseException):
            raise ValueError(f"{self.exception_class_path!r} is not an exception class")
        return found


class BackendResult(AnyResult):
    """A result of this backend. Raises an error if the return value was too large to be stored."""

    __slots__ = ()

    @property
    def return_value(self) -> Any:
        """Return value of the task.

        Raises:
            ResultTooLargeError: It was too large to be stored. The error is also a `ValueError`.
            ValueError: The task has failed, or has not finished.
        """
        value = super().return_value
        if isinstance(value, OversizedResult):
            raise ResultTooLargeError(self.task.queue_name, self.id, value.size, value.limit)
        return value


def new_result(task: AnyTask, result_id: str, args: Any, kwargs: Any) -> AnyResult:
    """Return the result of a new call, which has not started.

    Raises:
        TypeError: An argument has no JSON type.
    """
    return BackendResult(
        task=task,
        id=result_id,
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=args,
        kwargs=kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[],
    )


def called(task: AnyTask, facts: Facts) -> AnyTask:
    """Return the task with the options of a call, or unchanged if its backend no longer accepts them."""
    changes: dict[str, Any] = {
        "backend": facts.backend,
        "queue_name": facts.queue_name,
        "priority": facts.priority,
        "run_after": facts.run_after,
    }
    if all(getattr(task, name) == value for name, value in changes.items()):
        return task
    try:
        return replace(task, **changes)
    except (InvalidTask, ValueError):  # the project has since removed the queue or backend
        return task


def read_result(task: AnyTask, codec: JsonArgumentsCodec, info: TaskInfo) -> AnyResult:
    """Return the result of a task in Redis."""
    facts = read_facts(info.headers, task)
    try:
        args, kwargs = codec.split(codec.decode(info.payload), facts.positional)
    except PayloadError:
        args, kwargs = [], {}  # the run of this task will report the invalid payload
    result = new_result(called(task, facts), info.id, args, kwargs)
    set_status(result, info, facts)
    if info.state is TaskState.COMPLETED:
        object.__setattr__(result, "_return_value", info.oversized_result or _value(info.result))
    return result


def set_status(result: AnyResult, info: TaskInfo, facts: Facts) -> None:
    """Copy status, times, errors and workers of a task to its result."""
    is_running = info.state is TaskState.ACTIVE
    attempts = info.attempts
    missing = attempts[0].number - 1 if attempts else info.retried
    workers = [UNKNOWN_WORKER] * missing + [each.worker for each in attempts]
    starts = [each.started_at for each in attempts]
    if is_running:
        workers.append(info.worker)
        starts.append(info.started_at)
    errors: list[TaskError] = [
        StoredTaskError(exception_class_path=each.error, traceback=each.traceback) for each in attempts if each.error
    ]
    if info.last_error and not attempts:
        errors.append(TaskError(exception_class_path=NO_CLASS, traceback=info.last_error))
    finished_at = None
    if info.state in (TaskState.COMPLETED, TaskState.ARCHIVED):
        finished_at = attempts[-1].ended_at if attempts else (info.completed_at or info.archived_at)
    put(
        result,
        status=STATUSES[info.state],
        enqueued_at=facts.enqueued_at,
        started_at=next((each for each in starts if each is not None), None),
        last_attempted_at=starts[-1] if starts else None,
        finished_at=finished_at,
        errors=errors,
        worker_ids=workers,
    )


def put(result: AnyResult, **values: Any) -> None:
    """Set attributes of a frozen result. Make its times ascend even if the clocks of the machines differ."""
    earliest: datetime | None = values.get("enqueued_at")
    for name in ("started_at", "last_attempted_at", "finished_at"):
        if values.get(name) is not None:
            earliest = values[name] if earliest is None else max(earliest, values[name])
            values[name] = earliest
    for name, value in values.items():
        object.__setattr__(result, name, shown(value) if name.endswith("_at") else value)


def _value(data: bytes) -> Any:
    try:
        return json.loads(data or b"null")
    except ValueError:  # not JSON, so another program wrote the result
        return data.decode("utf-8", "replace")
