"""Aggregators: functions that turn the tasks of a group into one task.

A task with the option `aggregate` waits in a group of its queue. When the group is due, a worker hands its tasks to the
function registered for it and enqueues the one task that it returns. This module knows which function is for which
group and what it is given; when a group is due is judged in Redis, and the worker's aggregator does the rest.
"""

import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from taskq_core.codec import ArgumentsCodec, decode_payload
from taskq_core.errors import ConfigurationError, TaskDefinitionError
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.functions import function_name
from taskq_core.tasks.injection import refuse_markers
from taskq_core.telemetry import unwrap
from taskq_core.wire import TaskMessage, validate_group_name, validate_queue_name

DEFAULT_GRACE_S = 60.0
"""As Asynq."""
DEFAULT_TIMEOUT_S = 120.0
"""As Asynq's fixed time."""
MAX_SIZE = 10_000
"""Largest limit of tasks for one call of an aggregator."""


class GroupedTask:
    """One task of a group, as its aggregator sees it.

    Attributes:
        id: Id of the task.
        name: Name of the task (its type on the wire).
        queue: Queue it was enqueued to.
        payload: Payload bytes.
        headers: Text that travelled with it.
    """

    __slots__ = ("_codec", "_kwargs", "headers", "id", "name", "payload", "queue")

    def __init__(self, message: TaskMessage, codec: ArgumentsCodec | None) -> None:
        self.id: str = message.id
        self.name: str = message.type
        self.queue: str = message.queue
        payload, traceparent = unwrap(message.payload, () if codec is None else codec.parameters)
        self.payload: bytes = payload
        headers = dict(message.headers)
        if traceparent is not None:
            headers["traceparent"] = traceparent
        self.headers: Mapping[str, str] = headers
        self._codec = codec
        self._kwargs: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<grouped task {self.id!r} of {self.name!r}>"

    @property
    def kwargs(self) -> dict[str, Any]:
        """Its arguments by name, decoded at the first look.

        As the task would be called with them if it is registered here, else the values of the JSON object. What travels
        as its key is that key.

        Raises:
            PayloadError: The payload does not fit the task, or is no JSON object.
        """
        if self._kwargs is None:
            self._kwargs = self._decode()
        return self._kwargs

    def _decode(self) -> dict[str, Any]:
        if self._codec is not None:
            return self._codec.decode(self.payload)
        return cast("dict[str, Any]", decode_payload(self.payload, dict[str, Any], task=self.name))


Combined = Signature[Any] | Awaitable[Signature[Any]]
AggregatorFunction = Callable[[str, list[GroupedTask]], Combined]
F = TypeVar("F", bound=AggregatorFunction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """An aggregator: its function, the groups it is for and what makes them due."""

    function: AggregatorFunction
    """Called with the name of the group and its tasks, oldest first."""
    pattern: str = ""
    """A group's whole name, or what it begins with."""
    queue: str | None = None
    """Only groups of this queue. None: of any."""
    grace: Duration = DEFAULT_GRACE_S
    """A group is due when no task joined it for this long. Whole seconds, at least 1."""
    max_delay: Duration | None = None
    """It is due when its oldest task has waited this long. Whole seconds, at least 1. None: no limit."""
    max_size: int | None = None
    """It is due with this many tasks, and no more are given to one call. None: no limit."""
    timeout: Duration = DEFAULT_TIMEOUT_S
    """Longest time from taking the tasks to storing the one; then they are given back to their group."""

    def __post_init__(self) -> None:
        _check_function(self.function)
        if self.pattern != "":
            validate_group_name(self.pattern)
        if self.queue is not None:
            validate_queue_name(self.queue)
        _check_seconds("grace", self.grace)
        if self.max_delay is not None:
            _check_seconds("max_delay", self.max_delay)
        if self.max_size is not None:
            check_whole("max_size", self.max_size, least=1, most=MAX_SIZE)
        _check_seconds("timeout", self.timeout)

    @property
    def name(self) -> str:
        """Name of its function."""
        return function_name(self.function)

    @property
    def is_coroutine(self) -> bool:
        """True if its function is a coroutine function."""
        return is_coroutine_function(self.function)

    @property
    def grace_s(self) -> int:
        """Whole seconds, rounded up."""
        return _whole_seconds("grace", self.grace)

    @property
    def max_delay_s(self) -> int:
        """Whole seconds, rounded up; 0 for no limit."""
        return 0 if self.max_delay is None else _whole_seconds("max_delay", self.max_delay)

    @property
    def timeout_s(self) -> int:
        """Whole seconds, rounded up."""
        return _whole_seconds("timeout", self.timeout)


class Aggregators:
    """The aggregators of a queue application."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, str], Aggregation] = {}

    def add(self, aggregation: Aggregation) -> None:
        """Make an aggregator known.

        Raises:
            TaskDefinitionError: Another function has the same pattern and queue.
        """
        key = (aggregation.queue, aggregation.pattern)
        known = self._known.get(key)
        if known is not None and known.name != aggregation.name:  # the same name: its module was imported again
            where = "" if aggregation.queue is None else f" of queue {aggregation.queue!r}"
            raise TaskDefinitionError(
                f"groups {aggregation.pattern!r}{where} are aggregated by {known.name} already; "
                f"{aggregation.name} needs another pattern or queue"
            )
        self._known[key] = aggregation

    def find(self, queue: str, group: str) -> Aggregation | None:
        """Return the aggregator of a group: the longest pattern that fits, that of its queue before that of any."""
        fitting = [each for each in self.of_queue(queue) if group.startswith(each.pattern)]
        return max(fitting, key=lambda each: (len(each.pattern), each.queue is not None), default=None)

    def of_queue(self, queue: str) -> list[Aggregation]:
        """Return those that some group of a queue may need."""
        return [each for each in self._known.values() if each.queue in (None, queue)]

    def fingerprint(self, queue: str) -> str:
        """Return a short text, equal where the same groups of a queue have aggregators; "" where none has."""
        patterns = sorted((each.pattern, each.queue is not None) for each in self.of_queue(queue))
        return hashlib.sha256(repr(patterns).encode()).hexdigest()[:8] if patterns else ""


class AggregatorDecorator:
    """What `@taskq.aggregator(...)` returns: it registers the function below it and leaves it as it is."""

    def __init__(self, aggregators: Aggregators, build: Callable[[AggregatorFunction], Aggregation]) -> None:
        self._aggregators = aggregators
        self._build = build

    def __call__(self, function: F, /) -> F:
        """Register the function. Raises as `TaskQ.aggregator`."""
        self._aggregators.add(self._build(function))
        return function


def _check_function(function: Any) -> None:
    if isinstance(function, BaseTask):
        raise TaskDefinitionError(
            f"{function!r} is a task; an aggregator must be a function that returns one's signature"
        )
    if not callable(function) or inspect.isclass(function):
        raise TaskDefinitionError(f"an aggregator must be a function, got {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{function!r} is a generator; an aggregator must return one task's signature")
    refuse_markers(f"aggregator {function!r}", function, "only a task is given dependencies")
    try:
        inspect.signature(function).bind("", [])
    except TypeError as error:
        raise TaskDefinitionError(
            f"aggregator {function_name(function)} must take the group's name and its tasks: {error}"
        ) from None
    except ValueError:  # some built-in functions tell nothing of themselves
        pass


def _check_seconds(name: str, value: Any) -> None:
    value_s = seconds(name, value)
    if value_s < 1:
        raise ConfigurationError(f"{name} must be at least one second, got {value!r}")


def _whole_seconds(name: str, value: Any) -> int:
    return math.ceil(seconds(name, value))
