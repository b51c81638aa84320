"""Rows that can be put in the order of a column."""

from collections.abc import Mapping, Sequence
from typing import Any

from taskq_django.admin.rows import ListRows


class SortedRows(ListRows):
    """Rows with a record of the dashboard each; the `ordering` of a column names a figure of that.

    `sizes__pending` is the figure of a key; of a sequence, its length counts. What is not known comes first.
    """

    def order_by(self, *fields: str) -> "SortedRows":
        """Return the rows in the order of these figures, `-` for descending."""
        rows = list(self)
        for field in reversed(fields):
            name = field.removeprefix("-")
            if name != "pk":  # which the list page adds, to settle ties; the rows are in that order
                rows.sort(key=lambda row: _figure(row.record, name), reverse=field.startswith("-"))
        return SortedRows(self.model, rows)


def _figure(record: Any, path: str) -> tuple[bool, Any]:
    name, _, key = path.partition("__")
    value = getattr(record, name)
    if isinstance(value, Mapping):
        value = value[key]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = len(value)
    return (False, 0) if value is None else (True, value)
