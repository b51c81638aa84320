"""Records of enqueued tasks and ended runs for tests, and the assertions about them."""

import inspect
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.errors import PayloadError, TaskArgumentsError
from taskq_core.execution.context import TaskContext
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.task import Task
from taskq_core.wire import TaskMessage, decode_message


class ForeignTask(Protocol):
    """A task that was defined with another interface than taskq's, for example with Django's `django.tasks`."""

    @property
    def module_path(self) -> str:
        """Module and name of the task's function."""
        ...


TaskLike = BaseTask[Any] | Signature[Any] | ForeignTask | str
"""A task in an assertion: a task object, the name of a task, or a signature, which means one exact call."""

SHOWN = 20
"""Maximum number of tasks that a failed assertion lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedTask:
    """One task that was enqueued.

    Attributes:
        id: Id of the task.
        name: Name of the task.
        queue: Queue of the task.
        arguments: Arguments by name, decoded as for the function. Arguments that were not passed are missing. Empty if
            the payload is not a JSON object.
        payload: Payload bytes.
        headers: Headers of the task, including the trace.
        max_retry: Maximum number of retries.
        timeout: Maximum run time, None for no limit.
        deadline: Latest time at which the task may run, None for no limit.
        retention: How long the task is stored after success.
        group: Group in which the task waits, "" outside of a group.
        run_after: Delay of the start. None if the task starts at once or at `run_at`.
        run_at: Start as an absolute time, None if the call sets no absolute time.
        is_unique: True if the task holds a unique lock.
    """

    id: str
    name: str
    queue: str
    arguments: Mapping[str, object]
    payload: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    max_retry: int
    timeout: timedelta | None
    deadline: datetime | None
    retention: timedelta
    group: str
    run_after: timedelta | None
    run_at: datetime | None
    is_unique: bool

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        later = self.run_after or self.run_at
        return f"{self.name}({shown}) in {self.queue!r}{f', {later}' if later else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One run of a task that has ended.

    Attributes:
        id: Id of the task.
        name: Name of the task.
        queue: Queue of the task.
        attempt: Number of the run, from 1.
        outcome: completed, retried, archived, snoozed, discarded, requeued or lost.
        error: The exception that the function raised, None if it returned.
    """

    id: str
    name: str
    queue: str
    attempt: int
    outcome: str
    error: BaseException | None

    @property
    def has_failed(self) -> bool:
        """True if the run failed, even if the task is retried."""
        return self.outcome in ("retried", "archived", "lost")


def task_run(context: TaskContext, outcome: str, error: BaseException | None) -> TaskRun:
    """Return the record of a run that has ended."""
    return TaskRun(
        id=context.id,
        name=context.name,
        queue=context.queue,
        attempt=context.attempt,
        outcome=outcome,
        error=error,
    )


def enqueued_task(new: NewTask, tasks: Mapping[str, Task[Any, Any]]) -> EnqueuedTask:
    """Return the record of a task that was sent."""
    message = decode_message(new.message)
    arguments = _arguments(message, tasks.get(message.type))
    return EnqueuedTask(
        id=new.task_id,
        name=message.type,
        queue=message.queue,
        arguments=MappingProxyType(arguments),
        payload=message.payload,
        headers=MappingProxyType(dict(message.headers)),
        max_retry=message.retry,
        timeout=timedelta(seconds=message.timeout) if message.timeout else None,
        deadline=datetime.fromtimestamp(message.deadline, UTC) if message.deadline else None,
        retention=timedelta(seconds=message.retention),
        group=message.group_key,
        run_after=None if new.start_in_ms is None else timedelta(milliseconds=new.start_in_ms),
        run_at=None if new.start_at_s is None else datetime.fromtimestamp(new.start_at_s, UTC),
        is_unique=bool(new.unique_key),
    )


def _arguments(message: TaskMessage, task: Task[Any, Any] | None) -> dict[str, object]:
    """Return the arguments of an enqueued task by name, as far as they can be decoded."""
    if task is not None:
        try:
            return task.codec.decode(message.payload)
        except PayloadError:
            pass  # another program or version wrote the payload: return its plain JSON values
    try:
        return msgspec.json.decode(message.payload, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


# --- assertions -------------------------------------------------------------------------------------------------------


class Call:
    """The call that a test expects: a task, and some or all of its arguments.

    Args:
        task: A task or its name, which match any call that has the arguments given here; or a signature, which matches
            exactly this call.
        args, kwargs: Arguments that the call must have. Other arguments may have any value.

    Raises:
        TypeError: `task` is not a task, a name or a signature.
        TaskArgumentsError: The task has no such parameters, or they cannot have these values.
    """

    def __init__(self, task: object, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        self._payload: bytes | None = None
        self._is_whole = isinstance(task, Signature)
        if isinstance(task, Signature):
            if args or kwargs:
                raise TypeError(
                    "a signature already contains its arguments; pass task.s(...) alone, or the task and arguments"
                )
            if not isinstance(task.task, Task) and task.args:
                self._payload = task.task.encode(task.args, task.kwargs)
            else:
                kwargs = task.arguments
            task = task.task
        if not isinstance(task, BaseTask | str):
            raise TypeError(f"expected a task, the name of a task, or a signature, got {type(task).__qualname__}")
        self.name = task if isinstance(task, str) else task.name
        self._task = task if isinstance(task, Task) else None
        if args:
            if self._task is None:
                raise TypeError(f"pass the arguments of {self.name!r} by name, because its code is not in this program")
            kwargs = {**self._named(self._task, args), **kwargs}
        self._arguments = dict(kwargs)
        if self._task is not None:
            self._check_names(self._task)

    def _named(self, task: Task[Any, Any], args: Sequence[object]) -> dict[str, object]:
        parameters = inspect.signature(task.function).parameters
        names = [
            name for name in task.codec.parameters if parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        if len(args) > len(names):
            problem = f"takes {len(names)} positional arguments but {len(args)} were given"
            raise TaskArgumentsError(task.name, "", problem)
        return dict(zip(names, args, strict=False))

    def _check_names(self, task: Task[Any, Any]) -> None:
        for name in self._arguments:
            if name not in task.codec.parameters:
                known = ", ".join(task.codec.parameters) or "none"
                raise TaskArgumentsError(task.name, "", f"has no parameter {name!r}; its parameters are {known}")

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{self.name}({shown if self._is_whole or not shown else f'{shown}, ...'})"

    def matches(self, enqueued: EnqueuedTask) -> bool:
        """Return whether an enqueued task matches this call.

        Arguments are compared as JSON, so a tuple equals a list. A missing argument equals the default value.
        """
        if enqueued.name != self.name:
            return False
        if self._payload is not None:
            return enqueued.payload == self._payload
        actual = {**self._defaults(), **enqueued.arguments}
        expected = {**(self._defaults() if self._is_whole else actual), **self._arguments}
        if expected == actual:
            return True
        # Leave out arguments that are defaults on both sides, because a default may have no JSON form.
        names = enqueued.arguments.keys() | self._arguments.keys()
        return expected.keys() == actual.keys() and self._encode(expected, names) == self._encode(actual, names)

    def _defaults(self) -> dict[str, object]:
        if self._task is None:
            return {}
        parameters = inspect.signature(self._task.function).parameters
        given = {name: parameters[name].default for name in self._task.codec.parameters}
        return {name: default for name, default in given.items() if default is not inspect.Parameter.empty}

    def _encode(self, arguments: Mapping[str, object], names: Set[str]) -> bytes:
        chosen = {name: value for name, value in arguments.items() if name in names}
        return msgspec.json.encode(chosen) if self._task is None else self._task.encode((), chosen)


def describe(tasks: Iterable[EnqueuedTask]) -> str:
    """Return lines that list tasks, for a failed assertion."""
    lines = [f"  {task}" for task in tasks]
    if not lines:
        return "nothing was enqueued"
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "enqueued were:\n" + "\n".join(lines[:SHOWN]) + more


def failures(runs: Iterable[TaskRun]) -> list[Exception]:
    """Return the errors of tasks whose last run failed, each with a note that names its task."""
    last = {(run.queue, run.id): run for run in runs}
    errors: list[Exception] = []
    for run in last.values():
        if not run.has_failed:
            continue
        error = run.error if isinstance(run.error, Exception) else RuntimeError(f"the run ended: {run.error!r}")
        note = f"in task {run.name!r} ({run.id}), attempt {run.attempt}, {run.outcome}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        errors.append(error)
    return errors


def raise_failures(runs: Iterable[TaskRun]) -> None:
    """Raise the exception of the first task whose last run failed. Its notes name the task and the other failures."""
    errors = failures(runs)
    if not errors:
        return
    first, *others = errors
    for error in others:
        note = f"also failed: {error!r} {error.__notes__[-1]}"
        if note not in first.__notes__:
            first.add_note(note)
    raise first
