"""The base class of the errors, and the errors of a program that starts."""

import re
from typing import Any, ClassVar


class TaskQError(Exception):
    """Base class of every error that taskq raises."""

    code: ClassVar[str] = "taskq"
    """Stable name of the kind of error, such as `queue-not-found` for `QueueNotFoundError`. A class that is renamed
    sets this attribute to its old code."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in vars(cls):
            cls.code = code_of(cls.__name__)


def code_of(name: str) -> str:
    """Return the error code for the name of a class: `queue-full` for `QueueFullError`."""
    words = re.sub(r"(Error|Warning)$", "", name.lstrip("_"))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", words).lower()


class ConfigurationError(TaskQError, ValueError):
    """A setting, an option or a URL is not valid. The message names it, its value and the expected values."""


class TaskDefinitionError(ConfigurationError, TypeError):
    """A function cannot become a task, for example because it takes `*args`."""


class WorkflowDefinitionError(ConfigurationError):
    """A workflow has a mistake; nothing was written.

    Attributes:
        step: Name of the step with the mistake, "" for the workflow itself.
        problem: The mistake.
    """

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(step, problem)
        self.step, self.problem = step, problem

    def __str__(self) -> str:
        return f"step {self.step!r}: {self.problem}" if self.step else f"workflow: {self.problem}"
