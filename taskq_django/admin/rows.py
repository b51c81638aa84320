"""Rows from Redis, in the form in which Django's admin takes a query set.

The admin's list, its paginator, its filters and its actions ask a query set for little: a count, a slice, the rows with
these keys. `Rows` answers that, and a subclass says where rows come from. Whatever else a query set can do is refused
with `FieldError`, which the admin takes for a wrong address.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Q


class RowsQuery:
    """What is asked of the `query` of a query set: there is nothing to join, and the order is that of the rows."""

    select_related = True
    order_by: tuple[str, ...] = ()


class Rows(ABC):
    """Rows of a model without a table. It is lazy, keeps what it has read, and is never changed.

    Args:
        model: The model that stands for the rows.
    """

    query = RowsQuery()
    ordered = True
    totally_ordered = True

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self._size: int | None = None
        self._rows: list[Any] | None = None

    @property
    def note(self) -> str:
        """What has to be said of these rows, as how far a search got."""
        return ""

    @property
    def next_cursor(self) -> str | None:
        """Where a search that has not read everything goes on: a link on the list."""
        return None

    @property
    def searched(self) -> tuple[int, int] | None:
        """Number of rows searched so far, and their total. None if they are not counted."""
        return None

    # --- where they come from -----------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Return the rows at these places, as instances of the model."""

    @abstractmethod
    def size(self) -> int:
        """Return how many there are."""

    @abstractmethod
    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the rows with these keys that are still there, in the order of the keys."""

    # --- as a query set -----------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many there are; asked for once."""
        if self._size is None:
            self._size = self.size()
        return self._size

    def __iter__(self) -> Iterator[Any]:
        if self._rows is None:
            self._rows = list(self.read(0, self.count()))
        return iter(self._rows)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return self.exists()

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> list[Any]: ...
    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(self.count())
            rows = self._rows[start:stop] if self._rows is not None else list(self.read(start, stop))
            return rows[::step]
        if key < 0:
            raise ValueError("negative indexing is not supported")
        found = self[key : key + 1]
        if not found:
            raise IndexError(key)
        return found[0]

    def exists(self) -> bool:
        """Return whether there is any."""
        return self.count() > 0

    def first(self) -> Any:
        """Return the first row, None if there is none."""
        return next(iter(self[:1]), None)

    def iterator(self, chunk_size: int | None = None) -> Iterator[Any]:
        """Iterate over all rows."""
        return iter(self)

    def _clone(self) -> "Rows":
        return self

    def all(self) -> "Rows":
        """Return the same rows."""
        return self

    def order_by(self, *fields: str) -> "Rows":
        """Return the same rows: they have one order."""
        return self

    def select_related(self, *fields: str) -> "Rows":
        """Return the same rows: there is nothing to join."""
        return self

    def distinct(self) -> "Rows":
        """Return the same rows: none is there twice."""
        return self

    def using(self, alias: str | None) -> "Rows":
        """Return the same rows: they are in no database."""
        return self

    def none(self) -> "Rows":
        """Return no rows."""
        return ListRows(self.model, ())

    def filter(self, *conditions: Q, **lookups: Any) -> "Rows":
        """Return the rows with these keys (`pk__in` or `pk`), or all if nothing is asked.

        Raises:
            FieldError: Anything else is asked.
        """
        for condition in conditions:
            if condition:
                raise FieldError(f"rows of {self.model._meta.label} cannot be filtered by {condition}")
        if not lookups:
            return self
        ((lookup, value), *others) = lookups.items()
        names = ("pk", self._key_name)
        if others or lookup not in (*names, *(f"{name}__in" for name in names)):
            raise FieldError(f"rows of {self.model._meta.label} cannot be filtered by {', '.join(lookups)}")
        return PickedRows(self, value if lookup.endswith("__in") else (value,))

    def get(self, **lookups: Any) -> Any:
        """Return the row with a key. Raises the model's `DoesNotExist` if it is not there (any more)."""
        found = list(self.filter(**lookups))
        if not lookups or not found:
            raise self.model.DoesNotExist(f"{self.model._meta.object_name} matching query does not exist.")  # type: ignore[attr-defined]  # every model has it
        return found[0]

    @property
    def _key_name(self) -> str:
        key = self.model._meta.pk
        assert key is not None
        return key.name


class ListRows(Rows):
    """Rows that were all read at once: queues, workers."""

    def __init__(self, model: type[models.Model], rows: Iterable[Any]) -> None:
        super().__init__(model)
        self._rows: list[Any] = list(rows)

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Return the rows at these places."""
        return self._rows[start:stop]

    def size(self) -> int:
        """Return how many there are."""
        return len(self._rows)

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the rows with these keys."""
        by_key = {row.pk: row for row in self._rows}
        return [by_key[key] for key in keys if key in by_key]

    def only_if(self, fits: Any) -> "ListRows":
        """Return those of the rows for which a function is true, for filters and searches."""
        return type(self)(self.model, (row for row in self._rows if fits(row)))


class PickedRows(Rows):
    """Rows that were selected by their keys. Their `keys` are all that were asked for, also of rows that are gone."""

    def __init__(self, rows: Rows, keys: Iterable[object]) -> None:
        super().__init__(rows.model)
        self.keys = tuple(dict.fromkeys(str(key) for key in keys))
        self._source = rows

    def __iter__(self) -> Iterator[Any]:
        if self._rows is None:
            self._rows = list(self._source.pick(self.keys))
        return iter(self._rows)

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Return the rows at these places."""
        return list(self)[start:stop]

    def size(self) -> int:
        """Return how many there still are."""
        return len(self)

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return those with these keys."""
        return [row for row in self if row.pk in keys]
