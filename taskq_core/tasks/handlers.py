"""Functions that a worker calls for raw messages, for unknown task types, and after failed runs.

A handler runs all types that begin with its pattern. A worker looks for the function of a type in this order::

    1. the task of this name              @taskq.task(name="email:welcome")
    2. the handler of exactly this name   @taskq.handler("email:welcome")
    3. the handler of the longest pattern that the type begins with        @taskq.handler("email:")
    4. the handler for unknown types      @taskq.not_found; by default it raises `UnknownTaskError`

A handler receives the raw message: no arguments are bound, and the payload need not be JSON.
"""

import builtins
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from taskq_core.codec import decode_payload
from taskq_core.errors import TaskDefinitionError, UnknownTaskError
from taskq_core.execution.context import TaskContext
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.settings import unknown
from taskq_core.tasks.base import Enqueuer
from taskq_core.tasks.functions import check_callable, context_parameter, function_name, parameters
from taskq_core.tasks.options import HandlerOptionsDict, TaskOptions, task_options
from taskq_core.wire import TaskMessage, validate_task_type

T = TypeVar("T")
H = TypeVar("H", bound="Callable[[RawTask], Any] | Callable[[TaskContext, RawTask], Any]")
"""A handler's function."""
E = TypeVar("E", bound="Callable[[BaseException, TaskContext], Any]")
"""An error handler's function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTask:
    """A task as a handler receives it.

    Attributes:
        id: Id of the task.
        type: Its type, the name under which it was enqueued.
        queue: Queue it came from.
        payload: Payload bytes.
        headers: Its headers.
        retried: Failures counted so far.
        max_retry: Most retries.
    """

    id: str
    type: str
    queue: str
    payload: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    retried: int
    max_retry: int

    def decode(self, type_: builtins.type[T]) -> T:
        """Read the JSON of the payload as a type: a dataclass, a `TypedDict`, a Struct, a Pydantic model, `dict`.

        Raises:
            PayloadError: It does not fit. If the handler does not catch it, the task is archived without retry.
        """
        return cast("T", decode_payload(self.payload, type_, task=self.type))


_OPTIONS = tuple(HandlerOptionsDict.__annotations__)


class Handler:
    """A function that runs raw messages.

    Attributes:
        name: Its pattern; "" for the handler of unknown types.
        function: The function itself.
        body: The function, under the name that workers use for tasks and handlers alike.
        is_coroutine: True for a coroutine function.
        takes_context: True if its first parameter receives the `TaskContext`.

    Raises:
        TaskDefinitionError: The function cannot be a handler.
        ConfigurationError: An option is unknown or its value is not usable.
    """

    runs_in_process = False
    """Handlers run in the main process of the worker."""

    def __init__(
        self, name: str, function: Callable[..., Any], owner: Enqueuer, options: Mapping[str, Any] | None = None
    ) -> None:
        what = f"the handler of {name!r}" if name else "the handler of unknown types"
        check_callable(what, function)
        self.name = name
        self.function = self.body = function
        self.is_coroutine = is_coroutine_function(function)
        self.takes_context = context_parameter(what, function) is not None
        self._message = _message_parameter(what, function, self.takes_context)
        self._given = dict(options or {})
        self._owner = owner
        self._options: tuple[Mapping[str, Any], TaskOptions] | None = None
        for option in self._given:
            if option not in _OPTIONS:
                raise unknown("option of a handler", option, _OPTIONS)
        task_options(self._given)

    def __repr__(self) -> str:
        return f"<handler {self.name!r}>" if self.name else "<handler of unknown types>"

    @property
    def options(self) -> TaskOptions:
        """Its options over the defaults of the queue application."""
        defaults = self._owner.task_defaults
        if self._options is None or self._options[0] is not defaults:
            self._options = (defaults, task_options({**defaults, **self._given}))
        return self._options[1]

    def arguments(self, message: TaskMessage, payload: bytes, queue: str) -> dict[str, object]:
        """Return the arguments that its function is called with."""
        raw = RawTask(
            id=message.id,
            type=message.type,
            queue=queue,
            payload=payload,
            headers=dict(message.headers),
            retried=message.retried,
            max_retry=message.retry,
        )
        return {self._message: raw}


class Handlers:
    """The handlers of a queue application, by pattern.

    Args:
        owner: The queue application. Its `task_defaults` are the default options of handlers.
        unknown_hint: Advice in the error of an unknown type.
    """

    def __init__(self, owner: Enqueuer, *, unknown_hint: str = "") -> None:
        self._by_pattern: dict[str, Handler] = {}
        self._lengths: tuple[int, ...] = ()
        self._unknown_hint = unknown_hint
        self.not_found = self._default = Handler("", self._raise_unknown, owner)

    def get(self, pattern: str) -> Handler | None:
        """Return the handler of exactly this pattern."""
        return self._by_pattern.get(pattern)

    def add(self, handler: Handler) -> None:
        """Add a handler.

        Raises:
            TaskDefinitionError: Another function has its pattern.
        """
        refuse_other(self._by_pattern.get(handler.name), handler, f"the pattern {handler.name!r}")
        self._by_pattern[handler.name] = handler
        self._lengths = tuple(sorted({len(pattern) for pattern in self._by_pattern}, reverse=True))

    def set_not_found(self, handler: Handler) -> None:
        """Set the handler of unknown types.

        Raises:
            TaskDefinitionError: Another function is that handler already.
        """
        known = None if self.not_found is self._default else self.not_found
        refuse_other(known, handler, "the place for unknown types")
        self.not_found = handler

    def __bool__(self) -> bool:
        """Whether the application has a handler."""
        return bool(self._by_pattern) or self.not_found is not self._default

    def find(self, name: str) -> Handler:
        """Return the handler of a type that has no registered task."""
        known = self._by_pattern.get(name)
        if known is not None:
            return known
        for length in self._lengths:
            known = self._by_pattern.get(name[:length])
            if known is not None:
                return known
        return self.not_found

    async def _raise_unknown(self, message: RawTask) -> None:
        raise UnknownTaskError(message.type, self._unknown_hint)


class Callback:
    """A function that a worker calls after a run, or for an archived task.

    Args:
        what: Names the function in errors.
        function: The function.
        takes: Names its arguments in errors.
        count: Number of its arguments.
        guard: Wraps the function, for example to check database connections. Adapters set it.

    Attributes:
        name: `module.qualname` of the function, for logs.
        function: The function. Tests that run tasks in the code that enqueues them call it directly.
        guarded: The guarded function, which workers call.
        is_coroutine: True for a coroutine function.

    Raises:
        TaskDefinitionError: The function does not take these arguments.
    """

    def __init__(
        self,
        what: str,
        function: Callable[..., Any],
        *,
        takes: str,
        count: int,
        guard: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        check_callable(what, function, takes=takes, count=count)
        self.name = function_name(function)
        self.function = function
        self.guarded = function if guard is None else guard(function)
        self.is_coroutine = is_coroutine_function(function)


def error_handler(
    function: Callable[..., Any], *, guard: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
) -> Callback:
    """Return the callback for failed runs of a function `(error, context)`."""
    return Callback("an error handler", function, takes="the error and the task's context", count=2, guard=guard)


def check_pattern(pattern: object) -> str:
    """Return the pattern of a handler if it can be used.

    Raises:
        TaskDefinitionError: It is not text, is blank, or cannot begin a type.
    """
    if not isinstance(pattern, str):
        raise TaskDefinitionError(
            f'a handler takes the pattern of its types, as in @taskq.handler("email:"), got {pattern!r}'
        )
    try:
        return validate_task_type(pattern)
    except ValueError as error:
        raise TaskDefinitionError(f"pattern of a handler: {error}") from None


def origin(runner: Any) -> str:
    """Return where the function of a task or handler was written, as `module.qualname`."""
    function = runner.function
    return f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"


def place(runner: Any) -> str:
    """Return `file:line` of the function of a task or handler; "" if unknown."""
    function = runner.function
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def refuse_other(
    known: Any, new: Any, what: str, *, remedy: str = "another", is_redefined: Callable[[], bool] = lambda: False
) -> None:
    """Check that a task or handler replaces another only because its module was loaded again.

    Args:
        known: The task or handler that has the name, None without one.
        new: The new one.
        what: The name, for the error.
        remedy: The change that the new one needs, for the error.
        is_redefined: Called if both functions have the same module and name. Returns whether they differ nevertheless.

    Raises:
        TaskDefinitionError: The functions differ. The error names both, with file and line.
    """
    if known is None or (origin(known) == origin(new) and not is_redefined()):
        return
    places = " and ".join(filter(None, (place(known), place(new))))
    seen = f"; see {places}" if places else ""
    raise TaskDefinitionError(f"{what} is taken by {origin(known)}; {origin(new)} needs {remedy}{seen}")


class Definitions:
    """Distinguishes a second definition of a name, which is a mistake, from a second load of its module.

    Both bring a function with the same module and name. A module that is loaded again has another `__spec__`. In
    scripts, notebooks and functions `__spec__` is missing, and defining a name again is allowed.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, object] = {}

    def note(self, name: str, function: Any) -> None:
        """Remember a definition."""
        self._by_name[name] = _loading(function)

    def is_redefined(self, name: str, function: Any) -> bool:
        """Whether a name is defined again by the same load of its module."""
        loading = _loading(function)
        return loading is not None and self._by_name.get(name) is loading


def _loading(function: Any) -> object:
    named = inspect.unwrap(function)
    if "<" in getattr(named, "__qualname__", "<"):
        return None
    return getattr(named, "__globals__", {}).get("__spec__")


def _message_parameter(what: str, function: Callable[..., Any], takes_context: bool) -> str:
    rest = parameters(what, function)[takes_context:]
    if not rest or rest[0].kind is not rest[0].POSITIONAL_OR_KEYWORD:
        raise TaskDefinitionError(
            f"{what} takes the message as its parameter, a RawTask, behind the TaskContext if it takes one"
        )
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    more = [each.name for each in rest[1:] if each.default is each.empty and each.kind not in variadic]
    if more:
        raise TaskDefinitionError(f"{what} takes the message alone, got the further parameter {more[0]!r}")
    return rest[0].name
