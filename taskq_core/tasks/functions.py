"""Inspect functions that users register: check them, and read their names, parameters and result types."""

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from taskq_core.errors import TaskDefinitionError
from taskq_core.execution.context import TaskContext
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.injection import refuse_markers


def check_callable(what: str, function: object, *, takes: str = "", count: int = 0) -> None:
    """Check that a worker can call a user's function that is not a task, such as an error handler.

    Args:
        what: Name of the function in error messages.
        function: The function.
        takes: Names of its arguments in error messages. "" to skip the check of the arguments.
        count: Number of positional arguments that the worker passes.

    Raises:
        TaskDefinitionError: `function` is not a function, is a generator or a task, requests injected dependencies, or
            cannot be called with `count` arguments.
    """
    if isinstance(function, BaseTask):
        raise TaskDefinitionError(f"{what} must be a function other than a task, got {function!r}")
    if not callable(function) or inspect.isclass(function):
        raise TaskDefinitionError(f"{what} must be a function, got {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{what} must not be a generator, which would never run; got {function!r}")
    refuse_markers(what, function, "only a task is given dependencies")
    if takes:
        try:
            inspect.signature(function).bind(*(None,) * count)
        except (TypeError, ValueError) as error:
            raise TaskDefinitionError(f"{what} must accept {takes}, but {function!r} does not: {error}") from None


def check_function(function: Any) -> None:
    """Check that a worker can run a function as a task.

    Raises:
        TaskDefinitionError: The object is not a function, or it is a generator or a method.
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
                f"{function.__qualname__!r} is a method, and a payload cannot contain its {first.name!r}; "
                "make a task of a function, or of a @staticmethod"
            )


def check_process_function(what: str, function: Any, *, is_injected: bool) -> None:
    """Check that a separate process can import a function from its module and run it.

    Raises:
        TaskDefinitionError: The function is a coroutine function, is defined inside another function, or has injected
            dependencies.
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
            f"{what}: a task with executor='process' cannot have injected dependencies, because the worker creates "
            "them in its main process"
        )


def check_injected(what: str, function: Any, injected: Collection[str]) -> None:
    """Check that injected parameters come after `*args`. Otherwise, positional arguments would fill them.

    Raises:
        TaskDefinitionError: An injected parameter comes before `*args`.
    """
    given = parameters(what, function)
    if not any(each.kind is each.VAR_POSITIONAL for each in given):
        return
    for each in given:
        if each.name in injected and each.kind is each.POSITIONAL_OR_KEYWORD:
            raise TaskDefinitionError(f"{what}: parameter {each.name!r} is injected by Depends; move it after *args")


def function_name(function: Any) -> str:
    """Return `module.qualname` of a function for logs.

    A partial has the name of its function. A callable object has the name of its class.
    """
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def qualified_name(function: Callable[..., Any]) -> str:
    """Return `module.qualname` of a function, with the module's import name instead of `__main__`.

    Raises:
        TaskDefinitionError: The function has no name, for example a lambda.
    """
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(qualname, str) or qualname.endswith("<lambda>"):
        raise TaskDefinitionError(f"{function!r} has no name; give the task one with name=")
    module = function.__module__
    if module in ("__main__", "__mp_main__"):  # a child process of multiprocessing calls the main module "__mp_main__"
        main = getattr(inspect.unwrap(function), "__globals__", {})
        spec = main.get("__spec__")
        if spec is not None:
            module = spec.name.removesuffix(".__main__")
        elif main.get("__file__"):
            module = Path(main["__file__"]).stem
    return f"{module}.{qualname}"


def parameters(what: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function. `what` is the name of the function in the error message.

    Raises:
        TaskDefinitionError: The function has no readable signature.
    """
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError) as error:
        raise TaskDefinitionError(f"{what}: the signature cannot be read: {error}") from None


def context_parameter(what: str, function: Callable[..., Any]) -> str | None:
    """Return the name of the parameter that receives the `TaskContext`, None if there is none.

    Raises:
        TaskDefinitionError: The parameter for the `TaskContext` is not the first one.
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
            f"{what}: only the first parameter may have the annotation TaskContext, "
            f"and it must be positional; got {parameter.name!r}"
        )
    return parameter.name
