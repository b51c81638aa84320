"""Rows from Redis, with the part of a query set's interface that Django's admin uses.

The admin's list, paginator, filters and actions need a count, slices, and the rows with some keys. `Rows` provides
that, and its subclasses read the rows. Other lookups raise `FieldError`, which the admin reports as an invalid address.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar

from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Q
from django.forms import BooleanField
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from taskq_core import ConfigurationError
from taskq_core.views import labels
from taskq_django.admin.change_list import CURSOR_VAR
from taskq_django.admin.formats import in_active_language

T = TypeVar("T")
MORE = gettext_lazy("One request cannot handle all rows. Repeat the action to continue.")


def once(request: HttpRequest, name: str, read: Callable[[], T]) -> T:
    """Return a value that `read` returns. Read it at most once per request, and cache it under `name`."""
    stored: dict[str, Any] = vars(request).setdefault("taskq_rows", {})
    if name not in stored:
        stored[name] = read()
    found: T = stored[name]
    return found


def is_across(request: HttpRequest) -> bool:
    """Return whether all matching rows are selected. The value is parsed as in Django's own action form."""
    return bool(BooleanField(required=False).to_python(request.POST.get("select_across")))


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
    is_part: bool = False
    """Whether only some of the rows are known, because a search has not read everything."""
    next_cursor: str | None = None
    """Cursor at which such a search continues. None if everything was read."""
    progress: tuple[int, int] | None = None
    """Number of rows searched so far, and their total. None without a search."""
    sortable: Container[str] | None = None
    """The `ordering` of the columns by which the rows can be sorted. None: all columns."""

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

    A search that one request can complete is a list like any other. Of a larger one, each request shows one page and
    continues at the cursor in its address. The number of matching rows is not known then.

    Args:
        model: Model of the rows.
        wanted: Filter of the core's dashboard, a `TaskFilter` or a `WorkflowFilter`.
        request: Request of the user. Its address has the cursor at which a search continues.
        page_size: Number of rows on a page.
    """

    search_max: ClassVar[int]
    """Maximum number of rows that one search reads and returns."""
    search_order: object = None
    """Order in which a search reads the rows."""

    def __init__(self, model: type[models.Model], wanted: Any, request: HttpRequest, page_size: int) -> None:
        super().__init__(model)
        self.wanted = wanted
        self.page_size = page_size
        self.is_for_all = is_across(request)
        """Whether an action on all matching rows was chosen."""
        self._searches: dict[object, Any] = once(request, "searches", dict)
        self._cursor = request.GET.get(CURSOR_VAR)

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
    def total(self) -> int:
        """Return the number of rows that a search reads."""

    @abstractmethod
    def run_search(self, cursor: str | None, limit: int) -> Any:
        """Search from a cursor: return `FoundTasks` or a `WorkflowSearch`."""

    @property
    def search(self) -> Any:
        """The search for these rows. It may read thousands of rows, so it runs once per request."""
        return self._search[0]

    @property
    def _search(self) -> tuple[Any, bool]:
        """The search, and whether it found only some of the matching rows."""
        key = (self.wanted, self.search_order)
        if key not in self._searches:
            self._searches[key] = self._run_search()
        found: tuple[Any, bool] = self._searches[key]
        return found

    def _run_search(self) -> tuple[Any, bool]:
        if self._cursor is not None:
            try:
                return self.run_search(self._cursor, self.page_size), True
            except ConfigurationError:  # the cursor in the address is not valid, so search from the start
                pass
        if self.total() <= self.search_max:
            found = self.run_search(None, self.search_max)
            if found.cursor is None:
                return found, False
        limit = self.search_max if self.is_for_all else self.page_size
        return (found := self.run_search(None, limit)), found.cursor is not None

    @property
    def is_part(self) -> bool:  # type: ignore[override]  # computed here
        """Whether the list shows only some of the rows that a search finds."""
        return self.wanted.needs_reading and not self.is_for_all and self._search[1]

    @property
    def next_cursor(self) -> str | None:  # type: ignore[override]  # computed here
        """Value of `CURSOR_VAR` for the next page of a search. None at the end."""
        return self.search.cursor if self.is_part else None

    @property
    def progress(self) -> tuple[int, int]:  # type: ignore[override]  # computed here
        """Number of rows searched so far, and their total."""
        return min(self.search.read, self.search.total), self.search.total

    @property
    def finds_all(self) -> bool:
        """Whether an action on all matching rows knows all of them."""
        return not self.wanted.needs_reading or self.search.cursor is None

    def search_note(self) -> str:
        """Return a text about the progress or the result of the search."""
        if self.is_for_all:
            return "" if self.finds_all else str(MORE)
        with in_active_language():
            return labels.search_text(self.search, str(self.model._meta.verbose_name_plural))
