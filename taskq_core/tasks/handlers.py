"""Functions that a worker calls for raw messages, for unknown task types, and after failed runs.

A handler runs all tasks whose type begins with its pattern. A worker looks for the function of a type in this order::

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
"""Type of a handler's function."""
E = TypeVar("E", bound="Callable[[BaseException, TaskContext], Any]")
"""Type of an error handler's function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTask:
    """The task message that a handler receives.

    Attributes:
        id: Id of the task.
        type: Type of the task, the name under which it was enqueued.
        queue: Queue of the task.
        payload: Payload bytes.
        headers: Headers of the task.
        retried: Number of retries so far.
        max_retry: Maximum retries.
    """

    id: str
    type: str
    queue: str
    payload: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    retried: int
    max_retry: int

    def decode(self, type_: builtins.type[T]) -> T:
        """Decode the JSON payload as a type: a dataclass, a `TypedDict`, a Struct, a Pydantic model or `dict`.

        Raises:
            PayloadError: The payload is not a valid value of the type. If the handler does not catch the error, the
                task is archived without retry.
        """
        return cast("T", decode_payload(self.payload, type_, task=self.type))


_OPTIONS = tuple(HandlerOptionsDict.__annotations__)


class Handler:
    """A registered function that runs raw messages.

    Attributes:
        name: Pattern of the handler, "" for the handler of unknown types.
        function: The user's function.
        body: The same function. Workers call `body` of tasks and handlers.
        is_coroutine: True for a coroutine function.
        takes_context: True if its first parameter receives the `TaskContext`.

    Raises:
        TaskDefinitionError: The function cannot be a handler.
        ConfigurationError: An option is unknown or its value is not valid.
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
        self._own_options = dict(options or {})
        self._owner = owner
        self._options: tuple[Mapping[str, Any], TaskOptions] | None = None
        for option in self._own_options:
            if option not in _OPTIONS:
                raise unknown("option of a handler", option, _OPTIONS)
        task_options(self._own_options)

    def __repr__(self) -> str:
        return f"<handler {self.name!r}>" if self.name else "<handler of unknown types>"

    @property
    def options(self) -> TaskOptions:
        """The handler's options, with the defaults of the queue application for those that it does not set."""
        defaults = self._owner.task_defaults
        if self._options is None or self._options[0] is not defaults:
            self._options = (defaults, task_options({**defaults, **self._own_options}))
        return self._options[1]

    def arguments(self, message: TaskMessage, payload: bytes, queue: str) -> dict[str, object]:
        """Return the keyword arguments with which a worker calls the function."""
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
        unknown_hint: Advice at the end of the message of `UnknownTaskError`.
    """

    def __init__(self, owner: Enqueuer, *, unknown_hint: str = "") -> None:
        self._by_pattern: dict[str, Handler] = {}
        self._lengths: tuple[int, ...] = ()
        self._unknown_hint = unknown_hint
        self.not_found = self._default = Handler("", self._raise_unknown, owner)

    def get(self, pattern: str) -> Handler | None:
        """Return the handler with exactly this pattern, None if there is none."""
        return self._by_pattern.get(pattern)

    def add(self, handler: Handler) -> None:
        """Add a handler.

        Raises:
            TaskDefinitionError: Another function is registered for the pattern.
        """
        refuse_other(self._by_pattern.get(handler.name), handler, f"the pattern {handler.name!r}")
        self._by_pattern[handler.name] = handler
        self._lengths = tuple(sorted({len(pattern) for pattern in self._by_pattern}, reverse=True))

    def set_not_found(self, handler: Handler) -> None:
        """Set the handler of unknown types.

        Raises:
            TaskDefinitionError: Another function is the handler of unknown types.
        """
        known = None if self.not_found is self._default else self.not_found
        refuse_other(known, handler, "the handler for unknown types")
        self.not_found = handler

    def __bool__(self) -> bool:
        """Whether the application has a handler."""
        return bool(self._by_pattern) or self.not_found is not self._default

    def find(self, name: str) -> Handler:
        """Return the handler that runs a type without a registered task."""
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
        what: Name of the function in error messages.
        function: The function.
        takes: Names of its arguments in error messages.
        count: Number of arguments that the worker passes.
        guard: Wraps the function, for example to check database connections. Adapters set it.

    Attributes:
        name: `module.qualname` of the function, for logs.
        function: The user's function. `taskq_core.testing` calls it directly.
        guarded: The function wrapped by `guard`. Workers call it.
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
    """Return a callback for failed runs. Its function takes `(error, context)`."""
    return Callback("an error handler", function, takes="the error and the task's context", count=2, guard=guard)


def check_pattern(pattern: object) -> str:
    """Check the pattern of a handler and return it.

    Raises:
        TaskDefinitionError: The pattern is not text, is blank, or no valid type can begin with it.
    """
    if not isinstance(pattern, str):
        raise TaskDefinitionError(
            f'a handler needs a pattern of task types, as in @taskq.handler("email:"), got {pattern!r}'
        )
    try:
        return validate_task_type(pattern)
    except ValueError as error:
        raise TaskDefinitionError(f"pattern of a handler: {error}") from None


def origin(runner: Any) -> str:
    """Return `module.qualname` of the function of a task or handler."""
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
    """Check that a new task or handler does not replace another one, unless its module was loaded again.

    Args:
        known: The task or handler that is registered under the name or pattern. None if there is none.
        new: The new task or handler.
        what: The name or pattern in the error message.
        remedy: In the error message, what the new function needs to be registered.
        is_redefined: Called if both functions have the same module and name. Returns whether they are nevertheless two
            different definitions.

    Raises:
        TaskDefinitionError: The functions differ. The error names both, with file and line.
    """
    if known is None or (origin(known) == origin(new) and not is_redefined()):
        return
    places = " and ".join(filter(None, (place(known), place(new))))
    hint = f"; see {places}" if places else ""
    raise TaskDefinitionError(f"{what} is already used by {origin(known)}; {origin(new)} needs {remedy}{hint}")


class Definitions:
    """Distinguishes a second definition of a function name, which is a mistake, from a second load of its module.

    In both cases the new function has the same module and name as the old one. A module that is loaded again has a new
    `__spec__`. In scripts, notebooks and functions `__spec__` is missing, and defining a name again is allowed.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, object] = {}

    def record(self, name: str, function: Any) -> None:
        """Record that a module defines a name."""
        self._by_name[name] = _loading(function)

    def is_redefined(self, name: str, function: Any) -> bool:
        """Return whether the same load of a module defines a name a second time."""
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
            f"{what} must have one parameter for the message (a RawTask), and may have one for a TaskContext before it"
        )
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    more = [each.name for each in rest[1:] if each.default is each.empty and each.kind not in variadic]
    if more:
        raise TaskDefinitionError(f"{what} must take only the message, but also requires the argument {more[0]!r}")
    return rest[0].name
