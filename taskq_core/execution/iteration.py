"""Iterate inside a task so that another run continues where this one stopped: `context.iterate` and `checkpoint`.

::

    for order in context.iterate(orders):       if the worker stops, TaskPaused ends the run between two items;
        ...                                     the task returns to its queue,
                                                and its next run begins with the next item

Each loop of a task has a cursor: the position after the last item that its body has processed. All cursors of a task
are one JSON object in a field of the task, which only the worker that owns the task can write. The script that ends the
run stores them. During the run they are also stored in the background, or after every `every` items. If a worker is
killed, the next run repeats the items since the last of these writes.

A loop inside another loop has a cursor too. The cursor is dropped when the outer loop takes its next item.
"""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, Self, TypedDict, TypeVar

import msgspec

from taskq_core.codec import encode_result
from taskq_core.errors import ConfigurationError, IterationError, ResultValueError, TaskPaused
from taskq_core.execution.sources import Source, abatches, batches
from taskq_core.settings import Duration, seconds

T = TypeVar("T")

MOST_BYTES = 16_384
"""Maximum size in bytes of all cursors of a task together."""
_NO_CURSOR = "a cursor is a value with a JSON form: "
_CHECKPOINT = "checkpoint"
"""Name of the cursor that `checkpoint` stores. Names of loops begin with a slash."""


class CursorStore(Protocol):
    """Stores the cursors and the progress of one run, and reports when the run must end. Workers implement it.

    The methods of this base class do nothing. They are used for functions that are called directly.
    """

    @property
    def is_stopping(self) -> bool:
        """True once the run should end at the next position from which another run can continue."""
        return False

    @property
    def is_on_event_loop(self) -> bool:
        """True if the task's code runs on an event loop, so that this object must not block."""
        return False

    def check(self) -> None:
        """Raise `TaskInterrupted` if the run must end at once."""
        return

    def read_cursor(self) -> bytes:
        """Return the cursors that earlier runs stored in Redis, b"" if there are none."""
        return b""

    async def aread_cursor(self) -> bytes:
        """Read the cursors from Redis. Like `read_cursor`, for coroutines."""
        return b""

    def buffer(self, cursor: bytes) -> None:
        """Buffer cursors. The worker stores them soon, and at the end of the run. Never waits."""
        return

    def store(self, cursor: bytes) -> None:
        """Store cursors in Redis, and wait for the reply.

        Raise `TaskInterrupted` if another worker has taken the task.
        """
        return

    async def astore(self, cursor: bytes) -> None:
        """Store cursors in Redis. Like `store`, for coroutines."""
        return

    def report(self, done: int, total: int | None) -> None:
        """Store the progress of the outermost loop, unless the function reports progress itself. Never waits."""
        return


class _NoCursorStore(CursorStore):
    """The cursor store of functions that are called directly, without a worker. It stores nothing."""


NO_CURSOR_STORE = _NoCursorStore()
"""The shared cursor store of all functions that are called directly."""


class Interruption:
    """Interrupts runs after a number of items, in tests; see `taskq_core.testing.interrupt_after`."""

    def __init__(self, items: int, times: float) -> None:
        self.items = items
        self.left = times
        self.count = 0

    def is_due(self, handed: int) -> bool:
        """Return whether to interrupt a run that has received `handed` items. If so, count the interruption."""
        if handed < self.items or self.left <= 0:
            return False
        self.left -= 1
        self.count += 1
        return True


_interruption: Interruption | None = None


@contextmanager
def interrupting(interruption: Interruption) -> Iterator[Interruption]:
    """Apply an interruption to all task runs of this process while the `with` block runs."""
    global _interruption
    before, _interruption = _interruption, interruption
    try:
        yield interruption
    finally:
        _interruption = before


class _Place:
    """The position of one `iterate` loop: its cursor, its number of processed items, and whether it has ended."""

    __slots__ = ("children", "cursor", "done", "has_ended", "key")

    def __init__(self, key: str, stored: Any) -> None:
        self.key = key
        self.cursor: Any = None
        self.done = 0
        self.has_ended = False
        if stored is not None:
            self.cursor, self.done, self.has_ended = stored
        self.children = 0


class Loops:
    """The positions of all `iterate` loops of one run of a task, and the value of `checkpoint`.

    Args:
        cursor_store: Stores the positions and the value.
    """

    def __init__(self, cursor_store: CursorStore) -> None:
        self.cursor_store = cursor_store
        self._stored: dict[str, Any] | None = None
        self._top = _Place("", None)
        self.handed = 0
        """Number of items and checkpoints that this run has processed so far."""

    def load(self) -> None:
        """Read the cursors of earlier runs from Redis, unless they were read before."""
        if self._stored is None:
            self._stored = _decode(self.cursor_store.read_cursor())

    async def aload(self) -> None:
        """Read the cursors of earlier runs. Like `load`, for coroutines."""
        if self._stored is None:
            self._stored = _decode(await self.cursor_store.aread_cursor())

    @property
    def checkpoint(self) -> Any:
        """The last value given to `checkpoint`, None if there is none."""
        assert self._stored is not None
        return self._stored.get(_CHECKPOINT)

    def set_checkpoint(self, cursor: object) -> None:
        """Store the cursor of `checkpoint`, and end the run here if the worker stops."""
        # Load the stored JSON object first, because it also contains the cursors of loops, which must not be lost.
        if self._stored is None:
            if self.cursor_store.is_on_event_loop:
                raise IterationError("the first checkpoint of a coroutine must follow `await context.acursor()`")
            self.load()
        try:
            # Encode and decode the cursor, so that `cursor()` returns the same value in this run as in the next one.
            plain = msgspec.json.decode(encode_result(cursor))
        except ResultValueError as error:
            raise IterationError(_NO_CURSOR + str(error).removeprefix("result: ")) from None
        self.cursor_store.buffer(self._with(_CHECKPOINT, plain))
        self.handed += 1
        self.stop_if_due()

    def stop_if_due(self, until: float = math.inf) -> None:
        """Raise `TaskPaused` if the run must end between two items."""
        cursor_store = self.cursor_store
        cursor_store.check()
        if cursor_store.is_stopping or (_interruption is not None and _interruption.is_due(self.handed)):
            raise TaskPaused
        if self.handed and time.monotonic() >= until:
            raise TaskPaused(is_stopping=False)

    def enter(self, name: str | None) -> _Place:
        """Return the stored position of a loop that begins now. A loop without a name is identified by its order."""
        inside = _inside.get()
        around = self._top if inside is None or inside[0] is not self else inside[1]
        if name is None:
            name = str(around.children)
            around.children += 1
        key = f"{around.key}/{name}"
        assert self._stored is not None
        return _Place(key, self._stored.get(key))

    def advance(self, place: _Place, cursor: object, count: int) -> bytes:
        """Record that the body of a loop has processed `count` items up to a cursor.

        Return the cursors of all loops, encoded.
        """
        self.handed += 1
        self._forget_inside(place)
        place.cursor, place.done = cursor, place.done + count
        return self._with(place.key, (cursor, place.done, False))

    def end(self, place: _Place) -> bytes:
        """Record that a loop has ended. Return the cursors of all loops, encoded."""
        self._forget_inside(place)
        place.has_ended = True
        return self._with(place.key, (None, place.done, True))

    def _forget_inside(self, place: _Place) -> None:
        if place.children:
            place.children = 0
        stored = self._stored
        assert stored is not None
        if len(stored) > 1:
            inside = f"{place.key}/"
            for key in [each for each in stored if each.startswith(inside)]:
                del stored[key]

    def _with(self, key: str, value: object) -> bytes:
        stored = self._stored
        assert stored is not None
        before = dict(stored)
        stored[key] = value
        problem = ""
        try:
            data = encode_result(stored)
        except ResultValueError as error:
            problem = _NO_CURSOR + str(error).removeprefix("result: ")
        else:
            if len(data) > MOST_BYTES:
                problem = f"the cursors of a task must be at most {MOST_BYTES} bytes of JSON in total, got {len(data)}"
        if problem:
            self._stored = before
            raise IterationError(problem)
        return data


_inside: ContextVar[tuple[Loops, _Place] | None] = ContextVar("taskq_inside_loop", default=None)
"""The `iterate` loop in whose body this code runs."""


def _decode(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    try:
        stored = msgspec.json.decode(data)
        if not isinstance(stored, dict) or not all(
            key == _CHECKPOINT
            or (isinstance(value, list) and len(value) == 3 and type(value[1]) is int and type(value[2]) is bool)
            for key, value in stored.items()
        ):
            raise ValueError
    except ValueError:
        raise IterationError("the stored cursors of this task cannot be read") from None
    return stored


class LoopOptions(TypedDict, total=False):
    """Keyword options of `context.iterate`."""

    name: str | None
    every: int | None
    for_at_most: Duration | None
    total: int | None


class Iteration(Generic[T]):
    """A loop that another run can continue; made by `context.iterate`.

    A plain function uses `for`, a coroutine `async for`.
    """

    def __init__(
        self,
        loops: Loops,
        source: Source,
        *,
        name: str | None = None,
        batch_size: int | None = None,
        every: int | None = None,
        for_at_most: Duration | None = None,
        total: int | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ConfigurationError(f"name of an iteration must be text without '/', got {name!r:.80}")
        for what, number in (("batch_size", batch_size), ("every", every)):
            if number is not None and (type(number) is not int or number < 1):
                raise ConfigurationError(f"{what} of an iteration must be at least 1, got {number!r:.80}")
        if total is not None and (type(total) is not int or total < 0):
            raise ConfigurationError(f"total of an iteration must be a whole number, got {total!r:.80}")
        self._loops = loops
        self._source = source
        self._name = name
        self._batch_size = batch_size
        self._every = every
        self._most_s = None if for_at_most is None else seconds("for_at_most", for_at_most, allow_zero=False)
        self._total = source.total if total is None else total

    def __iter__(self) -> Iterator[T]:
        loops = self._loops
        cursor_store = loops.cursor_store
        if cursor_store.is_on_event_loop:
            raise IterationError("in a coroutine, use `async for item in context.iterate(...)`")
        loops.load()
        walk = _Walk(loops)
        self._begin(walk)
        if walk.place.has_ended:
            return
        pairs = self._source.pairs(walk.place.cursor)
        if self._batch_size is not None:
            pairs = batches(pairs, self._batch_size)
        try:
            while True:
                loops.stop_if_due(walk.until)
                try:
                    item, cursor = next(pairs)
                except StopIteration:
                    break
                walk.enter()
                yield item
                walk.leave()
                data, has_to_be_stored = self._passed(walk, cursor, item)
                if has_to_be_stored:
                    cursor_store.store(data)
                else:
                    cursor_store.buffer(data)
        finally:
            walk.leave()
        cursor_store.buffer(loops.end(walk.place))

    def __aiter__(self) -> AsyncIterator[T]:
        walk = _Walk(self._loops)
        return _Open(self._aitems(walk), walk)

    async def _aitems(self, walk: "_Walk") -> AsyncGenerator[T, None]:
        loops = self._loops
        cursor_store = loops.cursor_store
        await loops.aload()
        self._begin(walk)
        if walk.place.has_ended:
            return
        pairs = self._source.apairs(walk.place.cursor)
        if self._batch_size is not None:
            pairs = abatches(pairs, self._batch_size)
        async with aclosing(pairs):
            try:
                while True:
                    loops.stop_if_due(walk.until)
                    try:
                        item, cursor = await anext(pairs)
                    except StopAsyncIteration:
                        break
                    walk.enter()
                    yield item
                    walk.leave()
                    data, has_to_be_stored = self._passed(walk, cursor, item)
                    if has_to_be_stored:
                        await cursor_store.astore(data)
                    else:
                        cursor_store.buffer(data)
            finally:
                walk.leave()
        cursor_store.buffer(loops.end(walk.place))

    def _begin(self, walk: "_Walk") -> None:
        walk.begin(self._name, self._most_s)
        if walk.is_outermost and not walk.place.has_ended:
            self._loops.cursor_store.report(walk.place.done, self._total)

    def _passed(self, walk: "_Walk", cursor: object, item: Any) -> tuple[bytes, bool]:
        """Record that the loop body has processed an item.

        Return the cursors of all loops, and whether to store them now.
        """
        count = 1 if self._batch_size is None else len(item)
        data = self._loops.advance(walk.place, cursor, count)
        if walk.is_outermost:
            self._loops.cursor_store.report(walk.place.done, self._total)
        walk.unstored += count
        if self._every is None or walk.unstored < self._every:
            return data, False
        walk.unstored = 0
        return data, True


class _Walk:
    """One execution of an `iterate` loop in a run. It refers to the loop that encloses it."""

    __slots__ = ("_around", "_entry", "_loops", "is_outermost", "place", "unstored", "until")

    place: _Place
    until: float

    def __init__(self, loops: Loops) -> None:
        self._loops = loops
        self._around = _inside.get()
        self._entry: tuple[Loops, _Place] | None = None
        self.is_outermost = self._around is None or self._around[0] is not loops
        self.unstored = 0

    def begin(self, name: str | None, most_s: float | None) -> None:
        """Find the start position of the loop in the loaded cursors of earlier runs.

        This also starts the time limit of the loop.
        """
        self.until = math.inf if most_s is None else time.monotonic() + most_s
        self.place = self._loops.enter(name)
        self._entry = (self._loops, self.place)

    def enter(self) -> None:
        """Make this loop the current one while its body runs. Loops that begin in the body are nested in it."""
        _inside.set(self._entry)

    def leave(self) -> None:
        """Make the enclosing loop the current one again, because the body has ended."""
        if self._entry is not None and _inside.get() is self._entry:
            _inside.set(self._around)


class _Open(Generic[T]):
    """The asynchronous iterator of an `async for` loop.

    If the coroutine leaves the loop early, the loop ends when this object is deleted, because its generator is closed
    later and in another asyncio task.
    """

    def __init__(self, items: AsyncGenerator[T, None], walk: _Walk) -> None:
        self._items = items
        self._walk = walk

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._items.__anext__()

    def __del__(self) -> None:
        self._walk.leave()
