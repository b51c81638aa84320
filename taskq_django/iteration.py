"""Let `context.iterate` read querysets: in chunks, ordered by primary key, so that a later run can continue.

Each query asks for the rows after a key, so deleted or added rows move nothing, and no query or transaction is open
while the task works. `iterate` changes only the order of the queryset, not its filters, annotations, `select_related`
or database.
"""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import models
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable

from taskq_core.codec import RefusedError
from taskq_core.errors import IterationError
from taskq_core.execution.sources import Source, adapters
from taskq_django.references import ModelKind

CHUNK = 200
"""Number of rows that one query reads, unless the task sets `batch_size`."""


class QuerysetSource:
    """Reads the rows of a queryset. The cursor is the primary key of the last row read."""

    total = None

    def __init__(self, rows: "models.QuerySet[Any]", chunk: int) -> None:
        _check(rows)
        self._rows = rows
        self._chunk = chunk
        self._kind = ModelKind(rows.model)

    def pairs(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        """Yield each row after a cursor, with the cursor of that row."""
        key = self._key(cursor)
        while True:
            pairs, key = self._read(key)
            yield from pairs
            if key is None:
                return

    async def apairs(self, cursor: Any) -> AsyncGenerator[tuple[Any, Any], None]:
        """Yield what `pairs` yields. Queries run in the thread that has the coroutine's database connections."""
        key = self._key(cursor)
        while True:
            pairs, key = await sync_to_async(self._read, thread_sensitive=True)(key)
            for pair in pairs:
                yield pair
            if key is None:
                return

    def _key(self, cursor: Any) -> Any:
        if cursor is None:
            return None
        try:
            return self._kind.to_key(cursor)
        except RefusedError as error:
            raise IterationError(
                f"the stored cursor of this iteration is not a primary key of {self._kind.label}: {error}; "
                "if the task has several loops, give each a name, so that each has its own cursor"
            ) from None

    def _read(self, key: Any) -> tuple[list[tuple[Any, Any]], Any]:
        """Return a chunk of rows after a key with their cursors, and the key of the last row, or None at the end."""
        rows = self._rows.order_by("pk")
        if key is not None:
            rows = rows.filter(pk__gt=key)
        pairs = []
        found = list(rows[: self._chunk])
        last = key
        for row in found:
            if row.pk != last:  # skip duplicates: a join may return a row several times
                last = row.pk
                pairs.append((row, self._kind.to_json(row.pk)))
        return pairs, last if len(found) == self._chunk else None


def _check(rows: "models.QuerySet[Any]") -> None:
    """Refuse a queryset that cannot be read in the order of its primary keys."""
    query = rows.query
    name = f"a queryset of {rows.model._meta.label}"
    problem = ""
    if query.combinator:
        problem = f"{name} made by {query.combinator}() cannot be filtered further; iterate over each part instead"
    elif query.is_sliced:
        problem = f"{name} is sliced, and the slice would have other rows in the next run; filter it instead"
    elif not issubclass(rows._iterable_class, ModelIterable):
        problem = f"{name} returns values() instead of instances; remove values(), or use only()"
    elif query.distinct_fields:
        problem = f"{name} has distinct({', '.join(map(repr, query.distinct_fields))}), which needs another order"
    elif query.extra_order_by or not _is_by_key(rows):
        problem = f"{name} is ordered by {_order(query)}, but iterate() orders by primary key: remove order_by()"
    if problem:
        raise IterationError(f"iterate() cannot continue this queryset in a later run: {problem}")


def _is_by_key(rows: "models.QuerySet[Any]") -> bool:
    """Return whether the queryset sets no order other than by primary key. The model's default order is ignored."""
    key = rows.model._meta.pk
    by_key = {("pk",), (key.name,), (key.attname,)} if key is not None else {("pk",)}
    return not rows.query.order_by or tuple(rows.query.order_by) in by_key


def _order(query: Any) -> str:
    return ", ".join(repr(each) for each in (*query.extra_order_by, *query.order_by))


def source_of_queryset(items: object, batch_size: int | None) -> Source | None:
    """Return the source for a queryset or a manager, or None for other objects."""
    if isinstance(items, BaseManager):
        items = items.all()
    if not isinstance(items, models.QuerySet):
        return None
    return QuerysetSource(items, batch_size or CHUNK)


def let_tasks_iterate() -> None:
    """Register querysets with `context.iterate`."""
    if source_of_queryset not in adapters:
        adapters.append(source_of_queryset)
