"""Outcomes of the runs of each task type, per hour and in total, stored as numbers in a text by type.

Workers add their numbers to the stored ones. New numbers may follow at the end. The numbers of the totals follow the
hour in which the type ran last (Unix hours) and a bar.
"""

from dataclasses import dataclass
from typing import Self

HOUR_S = 3600
HOURS_KEPT = 26
"""Hours that are kept: a day, with the hour that has begun."""
TOTALS_KEPT_S = 90 * 24 * HOUR_S
"""Seconds that totals are kept after the last run of a queue."""
TYPE_KEPT_HOURS = 30 * 24
"""Hours after its last run for which the totals of a type keep their place; then they make room for another's."""
TYPES_MOST = 200
"""Task types that are kept apart, in an hour and since ever; what comes beyond is counted under `OTHER_TYPES`."""
OTHER_TYPES = "_other"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Upper bounds of the durations that are counted together, in seconds. What took longer is counted in one more."""
_NUMBERS = 4 + len(BOUNDS_S) + 1


@dataclass(slots=True)
class TypeCounters:
    """Runs of one task type.

    Attributes:
        processed: Runs that used an attempt.
        failed: Of those, how many failed.
        archived: Of those, after how many the task was archived.
        total_ms: Milliseconds they took together.
        buckets: How many took up to each of `BOUNDS_S`, and longer.
    """

    processed: int
    failed: int
    archived: int
    total_ms: float
    buckets: list[int]

    @classmethod
    def empty(cls) -> Self:
        """Return a tally of no runs."""
        return cls(0, 0, 0, 0, [0] * (len(BOUNDS_S) + 1))

    def encode(self) -> str:
        """Return the text to store."""
        return " ".join(map(str, (self.processed, self.failed, self.archived, round(self.total_ms), *self.buckets)))

    @classmethod
    def decode(cls, text: bytes) -> Self | None:
        """Return the stored counters, None if the text is not valid."""
        words = text.split(b" ")
        if len(words) < _NUMBERS or not all(word.isdigit() for word in words):
            return None
        numbers = [int(word) for word in words[:_NUMBERS]]
        processed, failed, archived, total_ms, *buckets = numbers
        return cls(processed, failed, archived, total_ms, buckets)

    @classmethod
    def decode_total(cls, text: bytes) -> Self | None:
        """Return the stored totals of a type, None if the text is not valid."""
        return cls.decode(text.partition(b"|")[2])

    def add(self, other: Self) -> None:
        """Add the runs of another tally of the same type."""
        self.processed += other.processed
        self.failed += other.failed
        self.archived += other.archived
        self.total_ms += other.total_ms
        self.buckets = [mine + more for mine, more in zip(self.buckets, other.buckets, strict=True)]

    def percentile_s(self, share: float) -> float | None:
        """Return about how many seconds a share (0 to 1) of the runs took at most; None if nothing ran.

        Runs that are counted together count as spread evenly between the bounds. Of those beyond the last bound this
        bound is returned.
        """
        total = sum(self.buckets)
        if not total:
            return None
        wanted, below = share * total, 0.0
        for least, bound, count in zip((0.0, *BOUNDS_S), BOUNDS_S, self.buckets, strict=False):
            if count and below + count >= wanted:
                return least + (bound - least) * (wanted - below) / count
            below += count
        return float(BOUNDS_S[-1])
