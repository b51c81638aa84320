"""Registered tasks as a page offers them, to be enqueued."""

import inspect
from typing import Any

from taskq_core.tasks.task import Task


def signature_of(task: Task[Any, Any]) -> str:
    """Return the parameters of a task as they are written."""
    try:
        signature = inspect.signature(task.function, eval_str=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        signature = inspect.signature(task.function)  # names that are known to a type checker alone
    known = [each for name, each in signature.parameters.items() if name in task.codec.known]
    return str(signature.replace(parameters=known, return_annotation=inspect.Signature.empty))


def summary_of(task: Task[Any, Any]) -> str:
    """Return the first line of what a task says of itself."""
    return (inspect.getdoc(task.function) or "").partition("\n")[0]
