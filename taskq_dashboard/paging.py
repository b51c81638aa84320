"""Pages of a list, and the links between them."""

from collections.abc import Sequence
from dataclasses import dataclass

from taskq_dashboard.form import Form
from taskq_dashboard.preferences import ROWS

PAGE_MAX = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Describes one page of a list: its number, its rows, and the length of the list.

    Attributes:
        number: Number of the page, from 1.
        rows: Maximum number of rows on a page.
        total: Number of rows of the list.
    """

    number: int
    rows: int
    total: int

    @property
    def last(self) -> int:
        """Number of the last page; 1 for an empty list."""
        return max(1, -(-self.total // self.rows))

    @property
    def skip(self) -> int:
        """Number of rows before this page."""
        return (self.number - 1) * self.rows

    @property
    def first_row(self) -> int:
        """Number of the first row on this page, from 1; 0 if the page is empty."""
        return self.skip + 1 if self.skip < self.total else 0

    @property
    def last_row(self) -> int:
        """Number of the last row on this page; 0 if the page is empty."""
        return min(self.total, self.skip + self.rows) if self.first_row else 0

    @property
    def choices(self) -> Sequence[int]:
        """Numbers of rows that a user can choose."""
        return ROWS

    @property
    def is_beyond(self) -> bool:
        """Whether the list ends before this page."""
        return self.number > self.last


def paging(query: Form, total: int, *, rows: int, choices: Sequence[int] = ROWS) -> Paging:
    """Return the page of a list that a query selects with `page` and `rows`.

    Raises:
        BadRequestError: A number is out of bounds.
    """
    chosen_rows = query.number("rows", rows, low=1, high=max(choices))
    return Paging(number=query.number("page", 1, low=1, high=PAGE_MAX), rows=chosen_rows, total=total)
