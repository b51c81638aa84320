"""Describe registered tasks for forms, and build calls from arguments that a user typed as JSON."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from taskq_core.errors import TaskArgumentsError
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.task import Task
from taskq_core.views.payloads import compact_json


def signature_of(task: Task[Any, Any]) -> str:
    """Return the parameters of a task as Python source."""
    try:
        signature = inspect.signature(task.function, eval_str=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        signature = inspect.signature(task.function)  # an annotation may use a name that only type checkers import
    known = [each for name, each in signature.parameters.items() if name in task.codec.known]
    return str(signature.replace(parameters=known, return_annotation=inspect.Signature.empty))


def summary_of(task: Task[Any, Any]) -> str:
    """Return the first line of the docstring of a task."""
    return (inspect.getdoc(task.function) or "").partition("\n")[0]


def blank_arguments(task: Task[Any, Any]) -> str:
    """Return a JSON object with the required arguments of a task, all null. It is the initial text of a form field."""
    return json.dumps({name: None for name, each in task.codec.known.items() if each.required}, indent=2)


def call_of(task: Task[Any, Any], arguments: str, options: Mapping[str, Any]) -> Signature[Any]:
    """Return the call of a task with arguments as JSON.

    Raises:
        PayloadError, TaskArgumentsError: The arguments are not JSON, or do not fit the task.
        ConfigurationError: An option is not valid.
    """
    payload = compact_json(arguments.encode("utf-8", "replace"), task.name)
    decoded = task.codec.decode(payload)
    for name in msgspec.json.decode(payload):
        if (
            name not in task.codec.known
        ):  # `decode` ignores unknown names, which another version of the task may have written
            raise TaskArgumentsError(task.name, "", f"got an unexpected argument {name[:80]!r}")
    args, kwargs = task.codec.split(decoded)
    return task.using(**options).s(*args, **kwargs)
