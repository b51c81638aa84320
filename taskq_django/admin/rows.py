"""Rows from Redis, with the part of a query set's interface that Django's admin uses.

The admin's list, paginator, filters and actions need a count, slices, and the rows with some keys. `Rows` provides
that, and its subclasses read the rows. Other lookups raise `FieldError`, which the admin reports as an invalid address.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext as _

from taskq_core import ConfigurationError
from taskq_django.admin.change_list import CURSOR_VAR
from taskq_django.admin.formats import number

T = TypeVar("T")


def once(request: HttpRequest, name: str, read: Callable[[], T]) -> T:
    """Return a value that `read` returns. Read it at most once per request, and cache it under `name`."""
    stored: dict[str, Any] = vars(request).setdefault("taskq_rows", {})
    if name not in stored:
        stored[name] = read()
    found: T = stored[name]
    return found


def row_of(model: type[models.Model], key: str, record: Any, **attributes: Any) -> Any:
    """Return a row: an instance of the model with a record of the core and further attributes."""
    row: Any = model(pk=key)
    vars(row).update(attributes, record=record)
    return row


class RowsQuery:
    """Stands in for the `query` of a query set: it has the attributes that the admin reads."""

    select_related = True
    order_by: tuple[str, ...] = ()


class Rows(ABC):
    """Rows of a model without a table. They are read when they are first needed.

    Args:
        model: Model of the rows.
    """

    query = RowsQuery()
    ordered = True
    totally_ordered = True
    note = ""
    """Text above the list, such as the progress of a search."""
    next_cursor: str | None = None
    """Cursor at which an incomplete search continues."""
    progress: tuple[int, int] | None = None
    """Number of rows searched so far, and their total. None without a search."""

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self._size: int | None = None
        self._rows: list[Any] | None = None

    @abstractmethod
    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Return the rows from index `start` to `stop`, as instances of the model."""

    @abstractmethod
    def size(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the rows with these keys that still exist, in the order of the keys."""

    # --- as a query set -----------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of rows. It is read once."""
        if self._size is None:
            self._size = self.size()
        return self._size

    def __iter__(self) -> Iterator[Any]:
        if self._rows is None:
            self._rows = list(self.read(0, self.count()))
        return iter(self._rows)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: slice) -> list[Any]:
        start, stop, _step = key.indices(self.count())
        return list(self.read(start, stop) if self._rows is None else self._rows[start:stop])

    def _clone(self) -> "Rows":
        return self

    def matching(self, text: str) -> "Rows":
        """Return the rows that a search for a text finds."""
        raise NotImplementedError

    def order_by(self, *fields: str) -> "Rows":
        """Return the rows sorted by columns. In this class they keep their order."""
        return self

    def filter(self, *conditions: Q, **lookups: Any) -> "Rows":
        """Return the rows with these keys (`pk__in`), or all rows without a condition.

        Raises:
            FieldError: A condition other than `pk__in` is given.
        """
        given = [each for each in conditions if each]
        if not given and not lookups:
            return self
        if given or set(lookups) != {"pk__in"}:
            raise FieldError(f"rows of {self.model._meta.label} cannot be filtered by {given or ', '.join(lookups)}")
        return PickedRows(self, lookups["pk__in"])

    def get(self, **lookups: Any) -> Any:
        """Return the row with a key. Raise the model's `DoesNotExist` if it does not exist."""
        ((_name, key),) = lookups.items()
        found = self.pick([str(key)])
        if not found:
            raise self.model.DoesNotExist  # type: ignore[attr-defined]  # every model has it
        return found[0]


class ListRows(Rows):
    """A short list of rows that one call reads completely: queues and workers.

    Each may have a `record`. The `ordering` of a column is the name of its attribute, or `sizes__pending` for the value
    of a key in a mapping. Sequences are sorted by their length. None comes first.

    Args:
        model: Model of the rows.
        rows: The rows.
        is_match: Returns whether a search for a text, in lower case, finds a record.
    """

    def __init__(
        self, model: type[models.Model], rows: Iterable[Any], is_match: Callable[[Any, str], bool] | None = None
    ) -> None:
        super().__init__(model)
        self._rows: list[Any] = list(rows)
        self._is_match = is_match

    def matching(self, text: str) -> "ListRows":
        """Return the rows whose record matches a text."""
        assert self._is_match is not None
        is_match = self._is_match
        return self.only_if(lambda row: is_match(row.record, text.lower()))

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Return the rows from index `start` to `stop`."""
        return self._rows[start:stop]

    def size(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the rows with these keys."""
        by_key = {row.pk: row for row in self._rows}
        return [by_key[key] for key in keys if key in by_key]

    def only_if(self, matches: Any) -> "ListRows":
        """Return the rows for which a function returns True, for filters and searches."""
        return ListRows(self.model, (row for row in self._rows if matches(row)), self._is_match)

    def order_by(self, *fields: str) -> "ListRows":
        """Return the rows sorted by values of their records, `-` for descending."""
        rows = list(self._rows)
        for field in reversed(fields):
            name = field.removeprefix("-")
            if name != "pk":  # Django appends "pk" to break ties, but the rows are already sorted by it
                rows.sort(key=lambda row: _sort_key(row.record, name), reverse=field.startswith("-"))
        return ListRows(self.model, rows, self._is_match)


def _sort_key(record: Any, path: str) -> tuple[bool, Any]:
    name, _, key = path.partition("__")
    value = getattr(record, name)
    if isinstance(value, Mapping):
        value = value[key]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = len(value)
    return (False, 0) if value is None else (True, value)


class PickedRows(Rows):
    """Rows that were selected by their keys. `keys` also has the keys of rows that do not exist any more."""

    def __init__(self, rows: Rows, keys: Iterable[object]) -> None:
        super().__init__(rows.model)
        self.keys = tuple(dict.fromkeys(str(key) for key in keys))
        self._source = rows

    def __iter__(self) -> Iterator[Any]:
        if self._rows is None:
            self._rows = list(self._source.pick(self.keys))
        return iter(self._rows)

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Return the rows from index `start` to `stop`."""
        return list(self)[start:stop]

    def size(self) -> int:
        """Return the number of rows that still exist."""
        return len(self)

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the rows with these keys."""
        return [row for row in self if row.pk in keys]


class FilteredRows(Rows):
    """Rows that match a filter. Some filters need a search, which reads rows one by one and continues at a cursor.

    Args:
        model: Model of the rows.
        wanted: Filter of the core's dashboard, a `TaskFilter` or a `WorkflowFilter`.
        request: Request of the user. Its address has the cursor at which a search continues, from `next_cursor`.
    """

    def __init__(self, model: type[models.Model], wanted: Any, request: HttpRequest) -> None:
        super().__init__(model)
        self.wanted = wanted
        self._searches: dict[object, Any] = once(request, "searches", dict)
        before, colon, place = request.GET.get(CURSOR_VAR, "").partition(":")
        is_ours = bool(colon) and before.isascii() and before.isdecimal() and len(before) <= 12
        self._before = int(before) if is_ours else 0
        self._place = place if is_ours else None

    def narrow(self, **wanted: Any) -> Self:
        """Return the rows that also match these fields of the filter."""
        return self._changed(wanted=replace(self.wanted, **wanted))

    def matching(self, text: str) -> Self:
        """Return the rows that contain a text."""
        return self.narrow(text=text)

    def _changed(self, **attributes: Any) -> Self:
        changed = copy.copy(self)
        vars(changed).update(attributes, _size=None, _rows=None)
        return changed

    @abstractmethod
    def run_search(self, cursor: str | None) -> Any:
        """Search from a cursor: return `FoundTasks` or a `WorkflowSearch`."""

    @property
    def search(self) -> Any:
        """The search for these rows. It may read thousands of rows, so it runs once per request."""
        if self.wanted not in self._searches:
            try:
                self._searches[self.wanted] = self.run_search(self._place)
            except ConfigurationError:  # the cursor in the address is not valid, so search from the start
                self._searches[self.wanted] = self.run_search(None)
        return self._searches[self.wanted]

    @property
    def next_cursor(self) -> str | None:  # type: ignore[override]  # computed here
        """Value of `CURSOR_VAR` for the next page: number of rows searched so far, and cursor. None at the end."""
        cursor = self.search.cursor if self.wanted.needs_reading else None
        return None if cursor is None else f"{self.progress[0]}:{cursor}"

    @property
    def progress(self) -> tuple[int, int]:  # type: ignore[override]  # computed here
        """Number of rows searched so far, and their total."""
        return min(self._before + self.search.scanned, self.search.total), self.search.total

    def search_note(self) -> str:
        """Return a text about the progress of the search."""
        scanned, total = self.progress
        facts = {"scanned": number(scanned), "total": number(total), "rows": self.model._meta.verbose_name_plural}
        if self.next_cursor is not None:
            return _("%(scanned)s of %(total)s %(rows)s were searched.") % facts
        if self._before:
            return _("All %(total)s %(rows)s were searched.") % facts
        return "" if self.count() else _("None of %(total)s %(rows)s matches.") % facts
