"""What has a label of its own, and what is told together: places, and counters that only rise.

A counter that falls counts for Prometheus as one that began anew, so that all of it is taken for what was added since.
Of a queue or type with a label of its own that is true. Of many that are told together it is not: one that is deleted,
damaged or given a label of its own must leave behind what it has counted.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

N = TypeVar("N", bound=Hashable)
L = TypeVar("L", bound=Hashable)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Numbers = tuple[float, ...]
"""Counters of one name, always as many and in the same order."""

GONE_MOST = 10_000
"""Most names that are not there any more whose counters are remembered: those that went last."""


class Places(Generic[N]):
    """Which names have a label of their own: those that came first.

    A name keeps its place while it is there, so that no counter jumps from one label to another and back.

    Args:
        most: How many places there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[N, None] = {}

    def take(self, names: Iterable[N]) -> Collection[N]:
        """Return the names that have a place, of all that are there now, in the order in which they are to get one."""
        there = dict.fromkeys(names)
        self._kept = {name: None for name in self._kept if name in there}
        for name in there:
            if len(self._kept) >= self._most:
                break
            self._kept[name] = None
        return self._kept.keys()


class Together(Generic[N, L]):
    """Counters of names that are told together, by label. They only rise.

    A label begins with the sums of its names. From then on it rises by what each of them rose by since it was seen
    last, under whichever label that was. A name that begins anew, as a queue that was deleted, adds what comes after;
    so does one that could not be read before, as a queue that was damaged.
    """

    def __init__(self) -> None:
        self._seen: dict[N, Numbers] = {}
        self._sums: dict[L, Numbers] = {}

    def sums(
        self,
        now: Mapping[N, Numbers],
        label: Callable[[N], L | None],
        was_unread: Callable[[N], bool] = lambda name: False,
    ) -> Mapping[L, Numbers]:
        """Return what is told under each label.

        Args:
            now: The counters of all that is there.
            label: Under which label something is told; None for one that is its own alone.
            was_unread: Whether something was there the time before, but could not be read.
        """
        found: dict[L, Numbers] = {}
        for name, numbers in now.items():
            at = label(name)
            if at is not None:
                more = numbers
                if at in self._sums:
                    before = self._seen.get(name, numbers if was_unread(name) else None)
                    more = _rise(before, numbers)
                so_far = found.get(at) or self._sums.get(at)
                found[at] = more if so_far is None else tuple(map(sum, zip(so_far, more, strict=True)))
        _note(self._seen, now)
        _note(self._sums, found)
        return found


def _rise(before: Numbers | None, now: Numbers) -> Numbers:
    """Return by how much counters rose; not at all where one fell, as that of another store does, or of a copy."""
    if before is None:
        return now
    rise = tuple(new - old for old, new in zip(before, now, strict=True))
    return rise if min(rise) >= 0 else (0.0,) * len(now)


def _note(kept: dict[K, V], now: Mapping[K, V]) -> None:
    """Keep what is there now, and the latest of what is not."""
    for each in now:
        kept.pop(each, None)
    kept.update(now)
    while len(kept) > len(now) + GONE_MOST:
        del kept[next(iter(kept))]
