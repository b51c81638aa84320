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


def test_parameters_are_shown_as_they_are_written_without_what_the_worker_gives() -> None:
    assert signature_of(convert) == "(source: str, *, width: int = 80)"


def test_what_only_a_type_checker_knows_is_in_nobodys_way() -> None:
    assert signature_of(pay) == "(amount: float, note: Any = None)"


def test_the_first_line_says_what_a_task_does() -> None:
    assert (summary_of(convert), summary_of(pay)) == ("Convert a picture.", "")
