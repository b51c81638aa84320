"""Sources of items for `context.iterate`.

A source yields the items after a cursor, each with the cursor of the position after the item. A cursor is a JSON value
that is stored with the task. The cursor None is the start of the items. Adapters add further sources, such as rows of a
database.
"""

import io
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from inspect import isawaitable
from typing import Any, Protocol

from taskq_core.errors import IterationError

Pairs = Iterator[tuple[Any, Any]]
AsyncPairs = AsyncGenerator[tuple[Any, Any], None]


class Source(Protocol):
    """A source of items for `context.iterate`, which can start after any stored cursor."""

    def pairs(self, cursor: Any) -> Pairs:
        """Yield each item after a cursor, with the cursor after that item."""
        ...

    def apairs(self, cursor: Any) -> AsyncPairs:
        """Like `pairs`, for coroutines."""
        ...

    @property
    def total(self) -> int | None:
        """Number of items, None if it is unknown without counting."""
        ...


adapters: "list[Callable[[object, int | None], Source | None]]" = []
"""Functions of adapters. Each takes an object and a batch size, and returns a source, or None for an unknown object."""


def source_of(items: object, cursor: Callable[[Any], object] | None = None, *, batch_size: int | None = None) -> Source:
    """Return the source of the items of a loop.

    Args:
        items: A sequence, an open file, `csv_rows(...)`, an object that an adapter knows, or, together with `cursor`, a
            function that returns the items after a cursor.
        cursor: Function that returns the cursor after an item.
        batch_size: Number of items of a batch, None to return single items.

    Raises:
        IterationError: Another run could not continue the iteration over these items.
    """
    if cursor is not None:
        if not callable(items):
            raise IterationError(
                "iterate(..., cursor=) needs a function that takes a cursor (None at the start) and returns the items "
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
    raise IterationError(f"iterate() cannot continue over {_named(items)} in another run; {_advice(items)}")


def _named(items: object) -> str:
    name = type(items).__qualname__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _advice(items: object) -> str:
    if isinstance(items, Set):
        return "it has no order; pass sorted(...) instead"
    if isinstance(items, Mapping):
        return "pass sorted(....items()), or a list with the same order in each run"
    if isinstance(items, str | bytes | bytearray | memoryview):
        return "pass a list of its parts"
    if callable(items):
        return "also pass cursor=, a function that returns the cursor of an item"
    if isinstance(items, Iterable | AsyncIterable):
        return "pass a function that creates it from a cursor, and cursor=, which returns the cursor of an item"
    return "pass a sequence, an open file, csv_rows(...), or a function with cursor="


def _position(cursor: Any, what: str) -> int:
    """Check that a stored cursor is a non-negative number, and return it. Return 0 for None, the start."""
    if cursor is None:
        return 0
    if type(cursor) is not int or cursor < 0:
        raise IterationError(
            f"the stored cursor of this iteration is {_named(cursor)}, but {what} need a number; if the task has "
            "several loops, give each a name= to keep their cursors apart"
        )
    return cursor


class _Blocking:
    """Base class of sources that never wait, so coroutines can use the code for plain functions."""

    total: int | None = None

    def pairs(self, cursor: Any) -> Pairs:
        raise NotImplementedError

    async def apairs(self, cursor: Any) -> AsyncPairs:
        """Like `pairs`, for coroutines."""
        for pair in self.pairs(cursor):
            yield pair


class _SequenceSource(_Blocking):
    """The items of a sequence. The cursor is the number of items that were processed."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self.total = len(items)

    def pairs(self, cursor: Any) -> Pairs:
        items = self._items
        for index in range(_position(cursor, "sequences"), len(items)):
            yield items[index], index + 1


class _FileSource(_Blocking):
    """The lines of an open file. The cursor is the file position after a line."""

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

    def __iter__(self) -> Iterator[Any]:
        return (row for row, _ in self.pairs(None))

    def pairs(self, cursor: Any) -> Pairs:
        """Yield each row after a cursor, with the file position after it."""
        file = self._file
        start = _position(cursor, "CSV files")
        names: list[str] | None = None
        if self._header:
            file.seek(0)
            names = next(self._rows(), [])
        if start or not self._header:
            file.seek(start)
        for row in self._rows():
            if row:  # skip blank lines
                yield (row if names is None else dict(itertools.zip_longest(names, row))), file.tell()

    def _rows(self) -> Iterator[list[str]]:
        # `file.tell()` works after `readline`, but fails while the file is read with `next`.
        import csv  # imported late, because few workers read CSV files

        return csv.reader(iter(self._file.readline, ""), **self._options)


def csv_rows(file: Any, *, header: bool = True, **options: Any) -> CsvRows:
    """Return the rows of a CSV file for `context.iterate`, which continues at the row where it stopped.

    Args:
        file: An open text file that can seek, opened with `newline=""`.
        header: Whether the first row names the columns. Each row is then a dict, otherwise a list.
        options: Options of `csv.reader`, such as `delimiter`.

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
        raise IterationError(
            f"iterate() needs a file that can seek, to continue at a position; this {type(file).__qualname__} cannot"
        )
    return file


class _MadeSource:
    """The items that a function of the user returns for a cursor.

    Another function of the user returns the cursor of each item.
    """

    total = None

    def __init__(self, make: Callable[[Any], Any], cursor: Callable[[Any], object]) -> None:
        self._make = make
        self._cursor = cursor

    def pairs(self, cursor: Any) -> Pairs:
        made = self._make(cursor)
        if not isinstance(made, Iterable):
            problem = "iterate over it with `async for`" if _is_asynchronous(made) else "it must return an iterable"
            if isawaitable(made) and hasattr(made, "close"):
                made.close()  # Python would warn about a coroutine that was never awaited
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
    """Yield lists of `size` items, each with the cursor after its last item. The last list may be shorter."""
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
    """Like `batches`, for coroutines."""
    batch: list[Any] = []
    cursor: Any = None
    async for item, cursor in pairs:
        batch.append(item)
        if len(batch) == size:
            yield batch, cursor
            batch = []
    if batch:
        yield batch, cursor
