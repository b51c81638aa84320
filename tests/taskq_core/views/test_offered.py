"""Registered tasks as a page offers them."""

from typing import TYPE_CHECKING, Any

from taskq_core import TaskContext, TaskQ
from taskq_core.views import signature_of, summary_of

if TYPE_CHECKING:
    from decimal import Decimal

taskq = TaskQ("redis://127.0.0.1:1")


@taskq.task
def convert(context: TaskContext, source: str, *, width: int = 80) -> str:
    """Convert a picture.

    It takes a while.
    """
    raise NotImplementedError


@taskq.task
def pay(amount: float, note: Any = None) -> "Decimal":
    raise NotImplementedError


def test_parameters_are_shown_as_written_without_injected_ones() -> None:
    assert signature_of(convert) == "(source: str, *, width: int = 80)"


def test_names_known_only_to_type_checkers_cause_no_error() -> None:
    assert signature_of(pay) == "(amount: float, note: Any = None)"


def test_the_description_of_a_task_is_its_first_docstring_line() -> None:
    assert (summary_of(convert), summary_of(pay)) == ("Convert a picture.", "")
