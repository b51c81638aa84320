"""Read the dependencies of a function from its signature, before anything runs.

Only public parts of FastAPI are used: `fastapi.Depends` and the attributes `dependency` and `use_cache` of its result.
A dependency on a request is refused here, where the mistake is, and not in a worker.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any, Union

from fastapi import Body, Cookie, Depends, File, Form, Header, Path, Query, Response, Security
from fastapi.background import BackgroundTasks
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes

from taskq_core import TaskContext, TaskDefinitionError
from taskq_core.codec.signature import resolve_annotation

_DEPENDS = type(Depends())
_SECURITY = type(Security())
_FROM_REQUEST = tuple(type(marker) for marker in (Body(), Cookie(), File(), Form(), Header(), Path(), Query()))
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_OF_REQUEST = (HTTPConnection, Response, BackgroundTasks, SecurityScopes)


@dataclass(frozen=True, slots=True)
class Need:
    """A parameter whose value comes from a dependency.

    Attributes:
        name: Name of the parameter.
        call: The dependency.
        use_cache: Whether all parameters of a run with this dependency share one value.
    """

    name: str
    call: Callable[..., Any]
    use_cache: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How to call a task or a dependency: which parameters get values, and of which kind the function is.

    Attributes:
        needs: Parameters whose values come from dependencies, in the order of the signature.
        context: Parameter that receives the `TaskContext`, if any.
        is_async: Whether it is a coroutine function or an asynchronous generator.
        is_generator: Whether it is a generator, plain or asynchronous, which cleans up after its `yield`.
    """

    needs: tuple[Need, ...]
    context: str | None = None
    is_async: bool = False
    is_generator: bool = False


def is_placeholder(value: object) -> bool:
    """Return whether a value is a result of `Depends(...)`."""
    return isinstance(value, _DEPENDS)


def plan_of(what: str, function: Callable[..., Any], *, is_task: bool) -> Plan:
    """Return how to call a task or a dependency.

    Args:
        what: Description of the function for error messages.
        function: The function.
        is_task: Whether parameters without a dependency come from the payload. In a dependency they need a default.

    Raises:
        TaskDefinitionError: A dependency does not work in a task. The message names the parameter and a solution.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise TaskDefinitionError(f"{what}: the signature cannot be read: {error}") from None
    needs: list[Need] = []
    context: str | None = None
    for parameter in signature.parameters.values():
        where = f"{what}: parameter {parameter.name!r}"
        if _is_context(parameter.annotation):
            context = parameter.name
            continue
        need = _need(parameter, function, what, where)
        if need is not None:
            needs.append(need)
        elif not is_task and parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
            raise TaskDefinitionError(
                f"{where} has no default, and a task has no request that could supply it; use Depends(...)"
            )
    return Plan(tuple(needs), context, *_kind(function))


def name_of(function: Any) -> str:
    """Return the name of a dependency for error messages."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


@lru_cache(maxsize=1024)
def is_given_to_plain(dependency: object, function: Callable[..., Any]) -> bool:
    """Return whether a plain function, such as a `def` route, has the dependency as a parameter."""
    if _kind(function)[0]:
        return False
    try:
        markers = [
            marker
            for each in inspect.signature(function).parameters.values()
            for marker in (each.default, _depends_of(_resolved(each, function, "")))
        ]
    except (ValueError, TypeError, TaskDefinitionError):
        return False
    return any(isinstance(each, _DEPENDS) and each.dependency == dependency for each in markers)


def _need(parameter: inspect.Parameter, function: Callable[..., Any], what: str, where: str) -> Need | None:
    given = parameter.default if isinstance(parameter.default, _DEPENDS) else None
    _refuse_marker(parameter.default, where)
    if given is not None and given.dependency is not None:
        # Do not resolve the annotation, because its names may exist only for type checkers.
        annotation = parameter.annotation
    else:
        annotation = _resolved(parameter, function, what)
        _refuse_request(annotation, where)
    marker = _depends_of(annotation)
    if marker is not None and given is not None:
        raise TaskDefinitionError(f"{where} has Depends both in Annotated and as its default")
    if marker is None:
        marker = given
    if marker is None:
        for each in getattr(annotation, "__metadata__", ()):
            _refuse_marker(each, where)
        return None
    if isinstance(marker, _SECURITY):
        raise TaskDefinitionError(
            f"{where} uses Security(...), which needs a request, and a task has none; "
            "pass the id of the user as an argument of the task"
        )
    call = marker.dependency
    if call is None:
        call = typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
        if not inspect.isclass(call):
            raise TaskDefinitionError(f"{where}: Depends() alone needs a class as its annotation, got {call!r}")
    if not callable(call):
        raise TaskDefinitionError(f"{where}: Depends takes a function or a class, got {call!r}")
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise TaskDefinitionError(f"{where} is passed by name, so it cannot be positional-only or variadic")
    try:
        hash(call)
    except TypeError:
        raise TaskDefinitionError(f"{where}: the dependency {call!r} is not hashable") from None
    return Need(parameter.name, call, marker.use_cache)


def _resolved(parameter: inspect.Parameter, function: Any, what: str) -> Any:
    annotation = resolve_annotation(parameter, _written(function), what)
    # Unpack an alias that a `type` statement defines.
    while hasattr(annotation, "__value__") and not isinstance(annotation, type):
        annotation = annotation.__value__
    return annotation


def _written(function: Any) -> Any:
    """Return the function in whose module the names in a dependency's annotations are defined."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)  # as `inspect.signature` does with decorated functions
    if inspect.isclass(function):
        return function.__init__ if "__init__" in vars(function) else function.__new__
    return function if hasattr(function, "__code__") or hasattr(function, "__func__") else type(function).__call__


def _is_context(annotation: Any) -> bool:
    return annotation is TaskContext or (
        isinstance(annotation, str) and annotation.rpartition(".")[2].strip("\"'") == "TaskContext"
    )


def _depends_of(annotation: Any) -> Any:
    found = [each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, _DEPENDS)]
    return found[-1] if found else None


def _refuse_marker(marker: Any, where: str) -> None:
    if isinstance(marker, _FROM_REQUEST):
        raise TaskDefinitionError(
            f"{where} is taken from a request by {type(marker).__name__}(...), and a task has none; "
            "pass the value as an argument of the task"
        )


def _refuse_request(annotation: Any, where: str) -> None:
    for each in _parts(annotation):
        if inspect.isclass(each) and issubclass(each, _OF_REQUEST):
            raise TaskDefinitionError(
                f"{where} is the {each.__name__} of a request, and a task has none; use a TaskContext, "
                "or replace this dependency with dependency_overrides"
            )


def _parts(annotation: Any) -> Iterator[Any]:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        yield from _parts(arguments[0])
    elif typing.get_origin(annotation) in (Union, types.UnionType):
        for each in arguments:
            yield from _parts(each)
    else:
        yield annotation


def _kind(function: Any) -> tuple[bool, bool]:
    """Return whether a dependency is asynchronous, and whether it is a generator.

    A decorated function is of the kind of the inner function, as in a route.
    """
    while isinstance(function, partial):
        function = function.func
    own = _own_kind(function)
    return own if any(own) else _own_kind(inspect.unwrap(function))


def _own_kind(function: Any) -> tuple[bool, bool]:
    if inspect.isclass(function):
        return False, False
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function):
        return True, True
    return inspect.iscoroutinefunction(function), inspect.isgeneratorfunction(function)
