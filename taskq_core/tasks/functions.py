"""What a function says of itself: its name, its parameters, what it returns, and whether it can be a task at all."""

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from taskq_core.errors import TaskDefinitionError
from taskq_core.execution.context import TaskContext
from taskq_core.service.user_code import is_coroutine_function


def check_function(function: Any) -> None:
    """Refuse what no worker can run as a task.

    Raises:
        TaskDefinitionError: It is no function, or a generator or a method.
    """
    if not callable(function) or inspect.isclass(function):
        raise TaskDefinitionError(f"a task must be a function, got {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{function!r} is a generator, which would never run; return a list instead")
    owner, _, _ = str(getattr(function, "__qualname__", "")).rpartition(".")
    if owner and not owner.endswith("<locals>") and not inspect.ismethod(function):
        first = next(iter(parameters("", function)), None)
        if first is not None and first.name in ("self", "cls"):
            raise TaskDefinitionError(
                f"{function.__qualname__!r} is a method, and a payload cannot carry its {first.name!r}; "
                "make a task of a function, or of a @staticmethod"
            )


def check_process_function(what: str, function: Any, *, is_injected: bool) -> None:
    """Refuse what no process of its own can run: it finds a task by importing the module of its function.

    Raises:
        TaskDefinitionError: It is a coroutine function, is made inside another one, or wants dependencies.
    """
    if is_coroutine_function(function):
        raise TaskDefinitionError(
            f"{what}: a coroutine function runs on the worker's event loop; executor='process' takes plain functions"
        )
    if "<locals>" in str(getattr(function, "__qualname__", "")) or not isinstance(
        getattr(function, "__module__", None), str
    ):
        raise TaskDefinitionError(
            f"{what}: executor='process' needs a function at the top of a module, which its process can import; "
            f"got {function!r}"
        )
    if is_injected:
        raise TaskDefinitionError(
            f"{what}: dependencies are opened in the worker's own process; executor='process' gets none"
        )


def check_injected(what: str, function: Any, injected: Collection[str]) -> None:
    """Refuse an injected parameter before `*args`, whose place a positional argument would take.

    Raises:
        TaskDefinitionError: There is one.
    """
    given = parameters(what, function)
    if not any(each.kind is each.VAR_POSITIONAL for each in given):
        return
    for each in given:
        if each.name in injected and each.kind is each.POSITIONAL_OR_KEYWORD:
            raise TaskDefinitionError(f"{what}, parameter {each.name!r}: what Depends gives must come after *args")


def function_name(function: Any) -> str:
    """Return `module.qualname` of what was written: behind a partial its function, of an object its class. For logs."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def qualified_name(function: Callable[..., Any]) -> str:
    """Return `module.qualname`, with the module's real name where it runs as a script.

    Raises:
        TaskDefinitionError: The function has no name of its own.
    """
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(qualname, str) or qualname.endswith("<lambda>"):
        raise TaskDefinitionError(f"{function!r} has no name of its own; give the task one with name=")
    module = function.__module__
    if module in ("__main__", "__mp_main__"):  # the latter in a child that multiprocessing spawned
        main = getattr(inspect.unwrap(function), "__globals__", {})
        spec = main.get("__spec__")
        if spec is not None:
            module = spec.name.removesuffix(".__main__")
        elif main.get("__file__"):
            module = Path(main["__file__"]).stem
    return f"{module}.{qualname}"


def parameters(what: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function; `what` names it in the error.

    Raises:
        TaskDefinitionError: They cannot be read.
    """
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError) as error:
        raise TaskDefinitionError(f"{what}: the signature cannot be read: {error}") from None


def context_parameter(what: str, function: Callable[..., Any]) -> str | None:
    """Return the name of the parameter that receives the `TaskContext`, if there is one.

    Raises:
        TaskDefinitionError: It is not the first.
    """
    found = [
        (index, parameter)
        for index, parameter in enumerate(parameters(what, function))
        if parameter.annotation is TaskContext
        or (isinstance(parameter.annotation, str) and parameter.annotation.rpartition(".")[2] == "TaskContext")
    ]
    if not found:
        return None
    index, parameter = found[-1]
    if index != 0 or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
        raise TaskDefinitionError(
            f"{what}: the parameter annotated TaskContext must be the first and only one, "
            f"and positional, got {parameter.name!r}"
        )
    return parameter.name


def result_type(function: Callable[..., Any]) -> Any:
    """Return what a function says it returns, `Any` where it does not say or the names cannot be found."""
    try:
        annotation = inspect.signature(function, eval_str=True).return_annotation
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
    return Any if annotation is inspect.Signature.empty else annotation
