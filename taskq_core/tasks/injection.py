"""Dependency injection: parameters of a task that a framework fills when it runs, such as FastAPI's `Depends`.

An adapter sets an `Injector` on the queue application before the first task is defined. The core only needs to know the
injected parameters, because they are not part of the payload.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from taskq_core.codec.signature import resolve_annotation
from taskq_core.errors import TaskDefinitionError

_FRAMEWORKS = frozenset({"fastapi"})
"""Names of packages whose parameter markers, such as `Depends(...)`, request injection."""


class Injection(Struct, frozen=True):
    """A wrapper that injects parameters into a function.

    Attributes:
        function: The wrapper, called without the injected arguments. It is a coroutine function if the wrapped function
            is one, and has the same signature.
        names: Names of the injected parameters.
    """

    function: Callable[..., Any]
    names: frozenset[str]


class Injector(Protocol):
    """Fills parameters of tasks when they run. Adapters of frameworks implement it."""

    def inject(self, what: str, function: Callable[..., Any]) -> Injection | None:
        """Return the wrapper of a function, None if nothing is injected.

        Args:
            what: Name of the function in error messages.
            function: The function of a task.

        Raises:
            TaskDefinitionError: A parameter cannot be injected into a task.
        """
        ...


def refuse_markers(what: str, function: Callable[..., Any], remedy: str) -> None:
    """Check that no parameter is marked for injection, for a function whose parameters no framework fills.

    Raises:
        TaskDefinitionError: A parameter is marked. The message ends with the remedy.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return  # the later check of the signature raises the error
    for parameter in parameters:
        try:
            annotation = resolve_annotation(parameter, function, what)
        except TaskDefinitionError:
            annotation = None  # the later check of the signature raises the error
        for marker in (parameter.default, *getattr(annotation, "__metadata__", ())):
            if type(marker).__module__.partition(".")[0] in _FRAMEWORKS:
                kind = type(marker).__name__
                raise TaskDefinitionError(f"{what}: parameter {parameter.name!r} is marked {kind}(...); {remedy}")
