"""What a task can iterate over and go on with in another run: each item with the cursor that stands behind it.

A cursor is a JSON value, stored with the task. A source gives the items that come after one; None is the start.
Adapters add sources of their own, such as rows of a database.
"""

import csv
import io
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from inspect import isawaitable
from typing import Any, Protocol

from taskq_core.errors import IterationError

Pairs = Iterator[tuple[Any, Any]]
AsyncPairs = AsyncGenerator[tuple[Any, Any], None]


class Source(Protocol):
    """Items that can be gone through from any cursor."""

    def pairs(self, cursor: Any) -> Pairs:
        """Yield each item after a cursor, with the cursor behind it."""
        ...

    def apairs(self, cursor: Any) -> AsyncPairs:
        """As `pairs`, for coroutines."""
        ...

    @property
    def total(self) -> int | None:
        """How many items there are in all, None if that is not known without counting."""
        ...


adapters: "list[Callable[[object, int | None], Source | None]]" = []
"""Asked for the source of what the core does not know; given the object and how many items a batch has."""


def source_of(items: object, cursor: Callable[[Any], object] | None = None, *, batch_size: int | None = None) -> Source:
    """Return the source of what a task is told to iterate over.

    Args:
        items: A sequence, an open file, `csv_rows`, what an adapter knows, or with `cursor` a function.
        cursor: Returns the cursor behind an item that the function `items` has given.
        batch_size: Items a batch has, None without batches.

    Raises:
        IterationError: It cannot be gone on with.
    """
    if cursor is not None:
        if not callable(items):
            raise IterationError(
                "iterate(..., cursor=) takes a function that is given a cursor, None at first, and returns the items "
                f"after it; got {type(items).__qualname__}"
            )
        return _MadeSource(items, cursor)
    for adapter in adapters:
        found = adapter(items, batch_size)
        if found is not None:
            return found
    if isinstance(items, CsvRows):
        return items
    if isinstance(items, io.IOBase):
        return _FileSource(items)
    if isinstance(items, Sequence) and not isinstance(items, str | bytes | bytearray | memoryview):
        return _SequenceSource(items)
    raise IterationError(f"iterate() cannot go on with {_named(items)} in another run; {_advice(items)}")


def _named(items: object) -> str:
    name = type(items).__qualname__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _advice(items: object) -> str:
    if isinstance(items, Set):
        return "it has no order: give sorted(...) of it"
    if isinstance(items, Mapping):
        return "give sorted(....items()), or a list whose order is the same each time"
    if isinstance(items, str | bytes | bytearray | memoryview):
        return "give a list of its parts"
    if callable(items):
        return "give cursor= as well, a function that returns the cursor of an item"
    if isinstance(items, Iterable | AsyncIterable):
        return "give a function that makes it from a cursor, and cursor=, which returns the cursor of an item"
    return "give a sequence, an open file, csv_rows(...), or a function with cursor="


def _position(cursor: Any, what: str) -> int:
    """Return a cursor that is a number of items or bytes."""
    if cursor is None:
        return 0
    if type(cursor) is not int or cursor < 0:
        raise IterationError(
            f"the stored cursor of this iteration is {_named(cursor)}, and {what} go on at a number; "
            "a task that has several loops gives them names, so that none takes the cursor of another"
        )
    return cursor


class _Blocking:
    """What needs no waiting, so that coroutines take the same."""

    total: int | None = None

    def pairs(self, cursor: Any) -> Pairs:
        raise NotImplementedError

    async def apairs(self, cursor: Any) -> AsyncPairs:
        """As `pairs`, for coroutines."""
        for pair in self.pairs(cursor):
            yield pair


class _SequenceSource(_Blocking):
    """A sequence; the cursor is the number of items before it."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self.total = len(items)

    def pairs(self, cursor: Any) -> Pairs:
        items = self._items
        for index in range(_position(cursor, "sequences"), len(items)):
            yield items[index], index + 1


class _FileSource(_Blocking):
    """Lines of an open file; the cursor is the place behind the line, as `tell` gives it."""

    def __init__(self, file: Any) -> None:
        self._file = _seekable(file)

    def pairs(self, cursor: Any) -> Pairs:
        file = self._file
        if cursor is not None:
            file.seek(_position(cursor, "files"))
        while line := file.readline():
            yield line, file.tell()


class CsvRows(_Blocking):
    """Rows of a CSV file; see `csv_rows`."""

    def __init__(self, file: Any, *, header: bool, options: Mapping[str, Any]) -> None:
        self._file = _seekable(file)
        self._header = header
        self._options = options

    def pairs(self, cursor: Any) -> Pairs:
        """Yield each row after a cursor, with the place behind it."""
        file = self._file
        start = _position(cursor, "CSV files")
        names: list[str] | None = None
        if self._header:
            file.seek(0)
            names = next(self._rows(), [])
        if start or not self._header:
            file.seek(start)
        for row in self._rows():
            if row:  # a blank line is no row
                yield (row if names is None else dict(itertools.zip_longest(names, row))), file.tell()

    def _rows(self) -> Iterator[list[str]]:
        # `csv.reader` takes lines only as a row needs them, and `readline`, unlike `next`, leaves `tell` in order.
        return csv.reader(iter(self._file.readline, ""), **self._options)


def csv_rows(file: Any, *, header: bool = True, **options: Any) -> CsvRows:
    """Return the rows of a CSV file for `context.iterate`, which goes on at the row where it was.

    Args:
        file: An open text file that can seek, opened with `newline=""`.
        header: Whether the first row names the columns. Each row is then a dict, otherwise a list.
        options: Of `csv.reader`, such as `delimiter`.

    Raises:
        IterationError: The file cannot seek.
    """
    return CsvRows(file, header=header, options=options)


def _seekable(file: Any) -> Any:
    try:
        can_seek = bool(file.seekable())
    except (AttributeError, ValueError):
        can_seek = False
    if not can_seek:
        raise IterationError(f"iterate() goes on at a place in a file; this {type(file).__qualname__} cannot seek")
    return file


class _MadeSource:
    """What a function makes from a cursor; another function gives the cursor of an item."""

    total = None

    def __init__(self, make: Callable[[Any], Any], cursor: Callable[[Any], object]) -> None:
        self._make = make
        self._cursor = cursor

    def pairs(self, cursor: Any) -> Pairs:
        made = self._make(cursor)
        if not isinstance(made, Iterable):
            problem = "iterate over it with `async for`" if _is_asynchronous(made) else "it must return an iterable"
            if isawaitable(made) and hasattr(made, "close"):
                made.close()  # a coroutine that nobody awaits warns
            raise IterationError(f"the function given to iterate() returned {_named(made)}; {problem}")
        for item in made:
            yield item, self._cursor(item)

    async def apairs(self, cursor: Any) -> AsyncPairs:
        made = self._make(cursor)
        if isawaitable(made):
            made = await made
        if isinstance(made, AsyncIterable):
            async for item in made:
                yield item, self._cursor(item)
        elif isinstance(made, Iterable):
            for item in made:
                yield item, self._cursor(item)
        else:
            raise IterationError(f"the function given to iterate() returned {_named(made)}; it must return an iterable")


def _is_asynchronous(made: object) -> bool:
    return isinstance(made, AsyncIterable) or isawaitable(made)


def batches(pairs: Pairs, size: int) -> Pairs:
    """Yield lists of so many items, the last of what is left, each with the cursor behind its last item."""
    batch: list[Any] = []
    cursor: Any = None
    for item, cursor in pairs:
        batch.append(item)
        if len(batch) == size:
            yield batch, cursor
            batch = []
    if batch:
        yield batch, cursor


async def abatches(pairs: AsyncPairs, size: int) -> AsyncPairs:
    """As `batches`, for coroutines."""
    batch: list[Any] = []
    cursor: Any = None
    async for item, cursor in pairs:
        batch.append(item)
        if len(batch) == size:
            yield batch, cursor
            batch = []
    if batch:
        yield batch, cursor
