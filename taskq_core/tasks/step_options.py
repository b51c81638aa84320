"""Names, failure policies and other options of workflows and their steps, with their checks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict

from msgspec import Struct

from taskq_core.errors import TaskArgumentsError, WorkflowDefinitionError
from taskq_core.settings import member

KEPT_S = 86_400.0
"""Default time in seconds for which a workflow is stored after its end."""
NAME_MAX = 80
"""Longest name of a step or a workflow, in characters."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)


class OnFailure(StrEnum):
    """What happens to later steps when a step fails after its last retry."""

    STOP = "stop"
    """Later steps are skipped, and the workflow fails."""
    CONTINUE = "continue"
    """Later steps run, with None instead of the failed step's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """An edge of a `Workflow`, from a step to an earlier step that it waits for.

    Attributes:
        step: The name of the earlier step.
        into: Parameter that receives the earlier step's result. None: the next positional argument. "": the result is
            not passed.
        on_failure: What happens to the later step when the earlier step fails after its last retry; None: use the
            setting of the earlier step.
    """

    step: str
    into: str | None = None
    on_failure: OnFailure | None = None


class StepFailure(TypedDict):
    """The first argument of `on_error` calls: describes a step that failed after its last retry."""

    workflow: str
    """Id of the workflow."""
    step: str
    """Name of the failed step."""
    task: str
    """Name of the failed step's task."""
    task_id: str
    """Id of the failed step's task."""
    error: str
    """Text of the step's last error, as stored with the task."""


def policy(value: OnFailure | str) -> OnFailure:
    """Convert a value of the option `on_failure` to its enum member.

    Raises:
        ConfigurationError: The value is not a valid `on_failure`.
    """
    return OnFailure(member(OnFailure, "on_failure", value))


def check_name(what: str, name: object) -> str:
    """Check the name of a step or a workflow, and return it.

    Raises:
        WorkflowDefinitionError: The name has characters other than ASCII letters, digits, "_" and "-", or is longer
            than 80.
    """
    if not isinstance(name, str) or len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise WorkflowDefinitionError(
            "", f"{what} must be 1 to {NAME_MAX} ASCII letters, digits, '_' and '-', got {name!r:.200}"
        )
    return name


class Callbacks(Struct, frozen=True):
    """Parts of a workflow that run after another part: after its success, after its failure, and in both cases."""

    success: tuple[Any, ...] = ()
    error: tuple[Any, ...] = ()
    complete: tuple[Any, ...] = ()


class WorkflowDetails(Struct, frozen=True):
    """Name, home queue and lifetime of a workflow.

    Attributes:
        name: Name for display.
        queue: Home queue, which stores the state of the workflow. None: the queue of its first step.
        keep_s: Seconds for which the workflow is stored after its end.
    """

    name: str | None = None
    queue: str | None = None
    keep_s: float = KEPT_S


def check_call(label: str, call: Any, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Check that a call accepts further arguments: positional ones before its own, and keyword ones.

    Raises:
        WorkflowDefinitionError: The call does not accept them. The error contains the label of the step.
    """
    if call.task.is_remote:
        if positional and (call.kwargs or call.args or named or len(positional) > 1):
            raise WorkflowDefinitionError(
                label,
                f"remote task {call.task.name!r} has arguments, so it cannot take the previous result as its payload; "
                "name a parameter for the result with into=, or use si() to pass no result",
            )
        return
    problem = ""
    try:
        call.task.bind((*positional, *call.args), {**call.kwargs, **named})
    except TaskArgumentsError as error:
        problem = error.problem
    if not problem:
        problem = next((f"got multiple values for argument {each!r}" for each in named if each in call.kwargs), "")
    if problem:
        hint = "; use si() for a step that takes no result" if positional and not named else ""
        raise WorkflowDefinitionError(label, f"task {call.task.name!r} {problem}{hint}")
