"""What a bulk enqueue keeps of the tasks it stored: their ids and the tasks they are runs of, in order.

A client may stream more tasks than fit into its memory. So what was drawn from `IdBlocks` is not kept but drawn again
when somebody asks: of any number of tasks in a row that are runs of one task, in full batches, only where the row
begins and how long it is.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, overload

from taskq_core.wire.ids import IdBlocks


@dataclass(slots=True)
class _Drawn:
    """Runs of one task with ids out of blocks that follow each other, all of one size but the last."""

    source: Any
    blocks: IdBlocks
    first: int
    size: int
    count: int


@dataclass(slots=True)
class _Listed:
    sources: list[Any]
    ids: list[str]


class KeptTasks(Sequence[str]):
    """A sequence of ids; `source` says whose each is."""

    __slots__ = ("_ends", "_last", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[_Drawn | _Listed] = []
        self._ends: list[int] = []  # positions behind the pieces
        self._last: tuple[IdBlocks, int, list[str]] | None = None  # the block that was drawn last

    def add(self, sources: Sequence[Any], ids: Sequence[str]) -> None:
        """Keep tasks one by one."""
        if not ids:
            return
        piece = self._pieces[-1] if self._pieces else None
        if isinstance(piece, _Listed):
            piece.sources += sources
            piece.ids += ids
            self._ends[-1] += len(ids)
        else:
            self._append(_Listed(list(sources), list(ids)), len(ids))

    def add_block(self, source: Any, blocks: IdBlocks, number: int, count: int) -> None:
        """Keep that so many runs of one task have the first ids of a block."""
        piece = self._pieces[-1] if self._pieces else None
        if (
            isinstance(piece, _Drawn)
            and piece.source is source
            and piece.blocks is blocks
            and piece.count % piece.size == 0
            and number == piece.first + piece.count // piece.size
            and count <= piece.size
        ):
            piece.count += count
            self._ends[-1] += count
        else:
            self._append(_Drawn(source, blocks, number, count, count), count)

    def _append(self, piece: "_Drawn | _Listed", count: int) -> None:
        self._pieces.append(piece)
        self._ends.append(len(self) + count)

    def source(self, position: int) -> Any:
        """Return what the task at a position, not a negative one, is a run of."""
        piece, offset = self._find(position)
        return piece.sources[offset] if isinstance(piece, _Listed) else piece.source

    def _find(self, position: int) -> "tuple[_Drawn | _Listed, int]":
        number = bisect_right(self._ends, position)
        return self._pieces[number], position - (self._ends[number - 1] if number else 0)

    def _id(self, position: int) -> str:
        piece, offset = self._find(position)
        if isinstance(piece, _Listed):
            return piece.ids[offset]
        block, offset = divmod(offset, piece.size)
        return self._draw(piece.blocks, piece.first + block, piece.size)[offset]

    def _draw(self, blocks: IdBlocks, number: int, size: int) -> list[str]:
        last = self._last
        if last is None or last[0] is not blocks or last[1] != number or len(last[2]) < size:
            last = self._last = (blocks, number, blocks.draw(number, size))
        return last[2]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        positions = range(len(self))[index]
        return self._id(positions) if isinstance(positions, int) else [self._id(each) for each in positions]

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if isinstance(piece, _Listed):
                yield from piece.ids
                continue
            for start in range(0, piece.count, piece.size):
                block = piece.blocks.draw(piece.first + start // piece.size, piece.size)
                yield from islice(block, piece.count - start)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows, as a list does

    def __repr__(self) -> str:
        return f"<{len(self)} ids>"
