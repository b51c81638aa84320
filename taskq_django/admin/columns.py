"""Columns of lists and lines of pages that show one value of a row's record."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin


def column(
    description: Any,
    name: str,
    show: Callable[[Any], Any] | None = None,
    *,
    ordering: str | None = None,
    empty_value: str = "-",
) -> Any:
    """Return a method of a `ModelAdmin` that shows a value of `row.record`, None if the record has none.

    Args:
        description: Head of the column.
        name: Attribute of the record.
        show: Function that formats the value.
        ordering: Name by which the list is sorted, as of `admin.display`.
        empty_value: Text for an empty value.
    """

    @admin.display(description=description, ordering=ordering, empty_value=empty_value)
    def shown(_admin: object, row: Any) -> Any:
        value = getattr(row.record, name, None)
        return value if show is None else show(value)

    return shown
