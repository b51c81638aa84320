"""Aggregators: functions that combine the tasks of a group into one task.

A task with the option `aggregate` waits in a group of its queue. When the group is due, a worker calls the group's
aggregator function with the tasks, and enqueues the one task that the function returns. This module maps groups to
functions. The Lua scripts decide when a group is due. `taskq_core.worker.aggregator` calls the functions.
"""

import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from taskq_core.codec import ArgumentsCodec, decode_payload
from taskq_core.errors import ConfigurationError, TaskDefinitionError
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.functions import check_callable, function_name
from taskq_core.wire import TaskMessage, validate_group_name, validate_queue_name

DEFAULT_GRACE_S = 60.0
"""Default of the option `grace` in seconds, the same as Asynq's."""
DEFAULT_TIMEOUT_S = 120.0
"""Default of the option `timeout` in seconds, the same as the fixed time in Asynq."""
MAX_SIZE = 10_000
"""Largest allowed value of the option `max_size`."""


class GroupedTask:
    """One task of a group, as passed to the aggregator function.

    Attributes:
        id: Id of the task.
        name: Name of the task (its type on the wire).
        queue: Queue of the task.
        payload: Payload bytes.
        headers: Headers of the task.
    """

    __slots__ = ("_codec", "_kwargs", "headers", "id", "name", "payload", "queue")

    def __init__(self, message: TaskMessage, codec: ArgumentsCodec | None) -> None:
        self.id: str = message.id
        self.name: str = message.type
        self.queue: str = message.queue
        self.payload: bytes = message.payload
        self.headers: Mapping[str, str] = dict(message.headers)
        self._codec = codec
        self._kwargs: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<grouped task {self.id!r} of {self.name!r}>"

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of the task by name, decoded at the first access.

        If the task is registered in this application, the values have the types of its parameters. Otherwise they are
        the values of the JSON object. For an object that is stored as its key, such as a Django model, the value is the
        key.

        Raises:
            PayloadError: The payload does not match the task's parameters, or is not a JSON object.
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
    """An aggregator: its function, its groups, and when they are due."""

    function: AggregatorFunction
    """The user's function. It takes the name of the group and the group's tasks, oldest first."""
    pattern: str = ""
    """The name of a group, or a prefix of group names."""
    queue: str | None = None
    """Name of the queue of the groups. None: any queue."""
    grace: Duration = DEFAULT_GRACE_S
    """A group is due when no task has joined it for this long. At least one second."""
    max_delay: Duration | None = None
    """A group is due when its oldest task has waited this long. At least one second. None: no limit."""
    max_size: int | None = None
    """A group is due when it has this many tasks. One call gets at most this many tasks. None: no limit."""
    timeout: Duration = DEFAULT_TIMEOUT_S
    """Maximum time from taking the tasks to storing the combined task. After it, the tasks return to their group."""
    grace_s: int = field(init=False)
    """The option `grace` in whole seconds, rounded up."""
    max_delay_s: int = field(init=False)
    """The option `max_delay` in whole seconds, rounded up; 0 for no limit."""
    timeout_s: int = field(init=False)
    """The option `timeout` in whole seconds, rounded up."""

    def __post_init__(self) -> None:
        check_callable("an aggregator", self.function, takes="the group's name and its tasks", count=2)
        if self.pattern != "":
            validate_group_name(self.pattern)
        if self.queue is not None:
            validate_queue_name(self.queue)
        if self.max_size is not None:
            check_whole("max_size", self.max_size, least=1, most=MAX_SIZE)
        set_ = object.__setattr__
        set_(self, "grace_s", whole_seconds("grace", self.grace))
        set_(self, "max_delay_s", 0 if self.max_delay is None else whole_seconds("max_delay", self.max_delay))
        set_(self, "timeout_s", whole_seconds("timeout", self.timeout))

    @property
    def name(self) -> str:
        """`module.qualname` of the function."""
        return function_name(self.function)

    @property
    def is_coroutine(self) -> bool:
        """True if the function is a coroutine function."""
        return is_coroutine_function(self.function)


class Aggregators:
    """The aggregators of a queue application."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, str], Aggregation] = {}

    def add(self, aggregation: Aggregation) -> None:
        """Add an aggregator.

        Raises:
            TaskDefinitionError: Another function has the same pattern and queue.
        """
        key = (aggregation.queue, aggregation.pattern)
        known = self._known.get(key)
        # A second function with the same name is the same aggregator: its module was imported again.
        if known is not None and known.name != aggregation.name:
            where = "" if aggregation.queue is None else f" of queue {aggregation.queue!r}"
            raise TaskDefinitionError(
                f"groups {aggregation.pattern!r}{where} already have the aggregator {known.name}; "
                f"{aggregation.name} needs another pattern or queue"
            )
        self._known[key] = aggregation

    def find(self, queue: str, group: str) -> Aggregation | None:
        """Return the aggregator of a group, None if it has none.

        It is the aggregator with the longest matching pattern. If two patterns are equal, the aggregator for this queue
        wins over the aggregator for any queue.
        """
        fitting = [each for each in self.of_queue(queue) if group.startswith(each.pattern)]
        return max(fitting, key=lambda each: (len(each.pattern), each.queue is not None), default=None)

    def of_queue(self, queue: str) -> list[Aggregation]:
        """Return the aggregators that apply to the groups of a queue."""
        return [each for each in self._known.values() if each.queue in (None, queue)]

    def fingerprint(self, queue: str) -> str:
        """Return a short hash of the group patterns that have an aggregator in a queue, "" if there are none."""
        patterns = sorted((each.pattern, each.queue is not None) for each in self.of_queue(queue))
        return hashlib.sha256(repr(patterns).encode()).hexdigest()[:8] if patterns else ""


def whole_seconds(name: str, value: Any) -> int:
    """Convert a duration of at least one second to whole seconds, rounded up.

    Raises:
        ConfigurationError: The value is not a duration, or is shorter than one second.
    """
    value_s = seconds(name, value)
    if value_s < 1:
        raise ConfigurationError(f"{name} must be at least one second, got {value!r}")
    return math.ceil(value_s)
