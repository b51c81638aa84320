"""Parameters of a task that no payload carries: what a framework gives a function when it runs, its dependencies.

An adapter puts an `Injector` on the queue application before the first task is made. The core only has to know which
parameters are given, so that they are no part of the payload.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from taskq_core.codec.signature import resolve_annotation
from taskq_core.errors import TaskDefinitionError

_FRAMEWORKS = frozenset({"fastapi"})
"""Packages whose markers in a signature mean that something is to be given."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What stands in for a function some of whose parameters are given.

    Attributes:
        function: Called with the other arguments; of the same kind and signature as the function itself.
        names: Parameters that are given.
    """

    function: Callable[..., Any]
    names: frozenset[str]


class Injector(Protocol):
    """Gives parameters of tasks their values when a task runs. For adapters."""

    def inject(self, what: str, function: Callable[..., Any]) -> Injection | None:
        """Return what stands in for a function, None if nothing is to be given.

        Args:
            what: Names the function in errors.
            function: The function of a task.

        Raises:
            TaskDefinitionError: Something cannot be given to a task.
        """
        ...


def refuse_markers(what: str, function: Callable[..., Any], remedy: str) -> None:
    """Refuse a function that wants something from a framework which nobody would give.

    Raises:
        TaskDefinitionError: A parameter is marked; the message ends with the remedy.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return  # whoever reads the signature in earnest says why it cannot be read
    for parameter in parameters:
        try:
            annotation = resolve_annotation(parameter, function, what)
        except TaskDefinitionError:
            annotation = None  # who reads the signature in earnest says so
        for marker in (parameter.default, *getattr(annotation, "__metadata__", ())):
            if type(marker).__module__.partition(".")[0] in _FRAMEWORKS:
                kind = type(marker).__name__
                raise TaskDefinitionError(f"{what}: parameter {parameter.name!r} is marked {kind}(...); {remedy}")
