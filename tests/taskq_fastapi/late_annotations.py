"""Tasks and dependencies with string annotations, some with names that only type checkers know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends

from taskq_core import TaskContext, TaskQ

if TYPE_CHECKING:
    from somewhere import Unknown


class Engine:
    """A dependency that is a class."""

    def __init__(self, context: TaskContext) -> None:
        self.name = f"engine of {context.name}"


EngineDep = Annotated[Engine, Depends()]


def session(engine: EngineDep) -> str:
    """A dependency with a dependency."""
    return f"session on {engine.name}"


def make(taskq: TaskQ, found: list[str]) -> Any:
    """Define a task whose annotations use local names of this function."""
    Local = Annotated[str, Depends(session)]  # noqa: N806 - an alias of a type

    @taskq.task(name="late")
    def late(context: TaskContext, n: int, given: Local, other: Unknown = Depends(session)) -> None:  # noqa: B008
        found.append(f"{n} {given}, {other}")

    return late
