"""Names, failure policies and other options of workflows and their steps, with their checks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict

from taskq_core.errors import TaskArgumentsError, WorkflowDefinitionError
from taskq_core.settings import member

KEPT_S = 86_400.0
"""Seconds that a workflow is kept after its end."""
NAME_MAX = 80
"""Longest name of a step or a workflow, in characters."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)


class OnFailure(StrEnum):
    """What happens to later steps when a step fails after its last retry."""

    STOP = "stop"
    """They are skipped, and the workflow has failed."""
    CONTINUE = "continue"
    """They run, with None in the place of its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """An edge of a `Workflow`: one step that another comes after.

    Attributes:
        step: The name of the earlier step.
        into: Parameter that receives its result; None: the next positional argument; "": the result is not passed.
        on_failure: What happens to the later step when the earlier step fails after its last retry; None: use the
            setting of the earlier step.
    """

    step: str
    into: str | None = None
    on_failure: OnFailure | None = None


class StepFailure(TypedDict):
    """The first argument of `on_error`: a step that failed after its last retry."""

    workflow: str
    """Id of the workflow."""
    step: str
    """Name of the step."""
    task: str
    """Name of its task."""
    task_id: str
    """Id of its task."""
    error: str
    """Text of the failure, as stored."""


def policy(value: OnFailure | str) -> OnFailure:
    """Return a value of `on_failure` as its enum member.

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


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of a part of a workflow."""

    success: tuple[Any, ...] = ()
    error: tuple[Any, ...] = ()
    complete: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """Name, home and lifetime of a workflow.

    Attributes:
        name: Its name, for people.
        queue: Its home queue; None: that of its first step.
        keep_s: Seconds it is kept after its end.
    """

    name: str | None = None
    queue: str | None = None
    keep_s: float = KEPT_S


def check_call(label: str, call: Any, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Check that a call accepts these arguments, by position before its own and by name.

    Raises:
        WorkflowDefinitionError: It does not. The error names the step.
    """
    if call.task.is_remote:
        if positional and (call.kwargs or call.args or named or len(positional) > 1):
            raise WorkflowDefinitionError(
                label,
                f"remote task {call.task.name!r} takes a result by position as its whole payload only; name the "
                "parameter with into=, or use si()",
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
