"""The answer to a question that a task has asked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, get_args, get_origin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer with its sender and its time: the type of `context.receive("review", Answer[Review], ask={...})`.

    Attributes:
        value: The answer.
        by: Who answered, as the surface that sent the answer knows it: a user name, or "" if it is unknown.
        at: When the answer arrived.
    """

    value: T
    by: str
    at: datetime


def answer_type(type_: Any) -> tuple[Any, bool]:
    """Return the type of the value of an answer, and whether the code also wants its sender and its time."""
    if type_ is Answer:
        return Any, True
    return (get_args(type_)[0], True) if get_origin(type_) is Answer else (type_, False)
