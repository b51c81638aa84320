"""Columns of lists and fields of pages that show one value of a row's record."""

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
    """Return a method for a `ModelAdmin` that shows a value of `row.record`. A missing attribute counts as None.

    Args:
        description: Heading of the column.
        name: Attribute of the record.
        show: Function that formats the value.
        ordering: Sort key of the column, as in `admin.display`.
        empty_value: Text for an empty value.
    """

    @admin.display(description=description, ordering=ordering, empty_value=empty_value)
    def shown(_admin: object, row: Any) -> Any:
        value = getattr(row.record, name, None)
        return value if show is None else show(value)

    return shown
