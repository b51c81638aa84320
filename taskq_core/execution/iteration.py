"""Iterate inside a task so that another run continues where this one stopped: `context.iterate` and `checkpoint`.

::

    for order in context.iterate(orders):       if the worker stops, TaskPaused ends the run between two items;
        ...                                     the task returns to its queue,
                                                and its next run begins with the next item

Each loop of a task has a cursor: the position after the last item that its body has processed. The cursors of all
loops together are the position of the task, one field in the record of its steps. The position is stored in the
background, or after every `every` items, and before the end of a run without success. If a worker is killed, the next
run repeats the items since the last of these writes.

A loop inside another loop has a cursor too. The cursor is dropped when the outer loop takes its next item.
"""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, Self, TypedDict, TypeVar

from taskq_core.codec import decode_value, encode_value
from taskq_core.codec.oversized import OversizedResult
from taskq_core.errors import ConfigurationError, TaskPaused
from taskq_core.execution.sources import Source, abatches, batches
from taskq_core.execution.step_record import Steps
from taskq_core.settings import Duration, seconds

T = TypeVar("T")

POSITION_BYTES = 16_384
"""Maximum size in bytes of all cursors of a task together."""
_CHECKPOINT = "checkpoint"
"""Name of the cursor that `checkpoint` stores. Names of loops begin with a slash."""
_Cursors = dict[str, tuple[Any, int, bool]]
"""For each loop its cursor, its number of processed items, and whether it has ended."""


class ProgressBuffer(Protocol):
    """Buffers the progress, the result and the position of a running task. Reports when the run must end.

    Workers implement it. It never waits for Redis.
    """

    @property
    def is_stopping(self) -> bool:
        """True once the run should end at the next position from which another run can continue."""
        ...

    @property
    def max_result_bytes(self) -> int:
        """Maximum bytes of a result that the task may store."""
        ...

    @property
    def steps(self) -> Steps:
        """The steps of the run, whose record also has the position of its loops."""
        ...

    def check(self) -> None:
        """Raise `TaskInterrupted` if the run must end at once."""
        ...

    def write_result(self, data: bytes | OversizedResult) -> None:
        """Buffer bytes as the intermediate result; the worker stores them soon.

        Of an oversized result, store only the size.
        """
        ...

    def store_progress(self, progress: bytes) -> None:
        """Store the progress of the task, at most about once a second. The last value is always stored."""
        ...

    def report(self, done: int, total: int | None) -> None:
        """Store the progress of the outermost loop, unless the function reports progress itself."""
        ...

    def save_position(self, position: bytes) -> None:
        """Store the position of the loops, at most about once a second, and at the end of a run without success."""
        ...


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
        buffer: Stores the positions and the value. None: the function was called directly, and nothing is stored.
    """

    def __init__(self, buffer: ProgressBuffer | None) -> None:
        self.buffer = buffer
        self._stored: _Cursors | None = {} if buffer is None else None
        self._top = _Place("", None)
        self.handed = 0
        """Number of items and checkpoints that this run has processed so far."""

    def load(self) -> None:
        """Read the position that earlier runs stored in Redis, unless it was read before."""
        if self._stored is None:
            assert self.buffer is not None
            steps = self.buffer.steps
            self._stored = _decode(steps, steps.wait_for(steps.load_position()))

    async def aload(self) -> None:
        """Read the position of earlier runs. Like `load`, for coroutines."""
        if self._stored is None:
            assert self.buffer is not None
            steps = self.buffer.steps
            self._stored = _decode(steps, await steps.run(steps.load_position()))

    def save(self, position: bytes) -> None:
        """Buffer a position, which is stored soon."""
        if self.buffer is not None:
            self.buffer.save_position(position)

    def store(self, position: bytes) -> None:
        """Store a position, and wait until Redis has stored it."""
        if self.buffer is not None:
            steps = self.buffer.steps
            steps.position = position
            steps.wait_for(steps.store_position())

    async def astore(self, position: bytes) -> None:
        """Store a position. Like `store`, for coroutines."""
        if self.buffer is not None:
            steps = self.buffer.steps
            steps.position = position
            await steps.run(steps.store_position())

    def report(self, done: int, total: int | None) -> None:
        """Report the progress of the outermost loop."""
        if self.buffer is not None:
            self.buffer.report(done, total)

    @property
    def checkpoint(self) -> Any:
        """The last value given to `checkpoint`, None if there is none."""
        assert self._stored is not None
        return self._stored.get(_CHECKPOINT, (None,))[0]

    def set_checkpoint(self, cursor: object) -> None:
        """Store the cursor of `checkpoint`, and end the run here if the worker stops."""
        self.load()  # the position also contains the cursors of loops, which must not be lost
        position = self._with(_CHECKPOINT, (cursor, 0, False))
        assert self._stored is not None
        # `cursor()` returns the same value in this run as in the next one, also if `cursor` is changed later.
        self._stored[_CHECKPOINT] = decode_value("the checkpoint", position, _Cursors, way_out="")[_CHECKPOINT]
        self.save(position)
        self.handed += 1
        self.stop_if_due()

    def stop_if_due(self, until: float = math.inf) -> None:
        """Raise `TaskPaused` if the run must end between two items."""
        buffer = self.buffer
        if buffer is not None:
            buffer.check()
            if buffer.is_stopping:
                raise TaskPaused
        if _interruption is not None and _interruption.is_due(self.handed):
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

    def _with(self, key: str, value: tuple[Any, int, bool]) -> bytes:
        assert self._stored is not None
        changed = self._stored | {key: value}
        position = encode_value("the cursors of all loops of a task", changed, POSITION_BYTES)
        self._stored = changed
        return position


_inside: ContextVar[tuple[Loops, _Place] | None] = ContextVar("taskq_inside_loop", default=None)
"""The `iterate` loop in whose body this code runs."""


def _decode(steps: Steps, data: bytes) -> _Cursors:
    if not data:
        return {}
    way_out = f"to begin the loops again, run `{steps.forget_command('iterate')}`"
    found: _Cursors = decode_value("the stored position of the loops", data, _Cursors, way_out=way_out)
    return found


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
                    loops.store(data)
                else:
                    loops.save(data)
        finally:
            walk.leave()
        loops.save(loops.end(walk.place))

    def __aiter__(self) -> AsyncIterator[T]:
        walk = _Walk(self._loops)
        return _Open(self._aitems(walk), walk)

    async def _aitems(self, walk: "_Walk") -> AsyncGenerator[T, None]:
        loops = self._loops
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
                        await loops.astore(data)
                    else:
                        loops.save(data)
            finally:
                walk.leave()
        loops.save(loops.end(walk.place))

    def _begin(self, walk: "_Walk") -> None:
        walk.begin(self._name, self._most_s)
        if walk.is_outermost and not walk.place.has_ended:
            self._loops.report(walk.place.done, self._total)

    def _passed(self, walk: "_Walk", cursor: object, item: Any) -> tuple[bytes, bool]:
        """Record that the loop body has processed an item.

        Return the cursors of all loops, and whether to store them now.
        """
        count = 1 if self._batch_size is None else len(item)
        data = self._loops.advance(walk.place, cursor, count)
        if walk.is_outermost:
            self._loops.report(walk.place.done, self._total)
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
