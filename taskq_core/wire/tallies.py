"""Counters of runs by task type, per hour and in total. Redis stores the numbers of a type as one text.

Workers add their numbers to the stored numbers. Later releases may append numbers. In the totals, the numbers are
preceded by the Unix hour in which the type ran last and a bar (`|`).
"""

from typing import Self

from msgspec import Struct

HOUR_S = 3600
HOURS_KEPT = 26
"""Number of hours for which hourly counters are stored, including the current hour."""
TOTALS_KEPT_S = 90 * 24 * HOUR_S
"""Seconds for which the total counters of a queue are stored after its last run."""
TYPE_KEPT_HOURS = 30 * 24
"""Hours after its last run for which a task type keeps its totals. Then another type may replace it (`TYPES_MOST`)."""
TYPES_MOST = 200
"""Maximum number of task types with counters, per hour and in total. Further types are counted as `OTHER_TYPES`."""
OTHER_TYPES = "_other"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Upper bounds, in seconds, of the buckets that count runs by duration. One more bucket counts all longer runs."""
_NUMBERS = 4 + len(BOUNDS_S) + 1


class TypeCounters(Struct):
    """Number of runs of one task type, by outcome and by duration.

    Attributes:
        processed: Runs that used an attempt.
        failed: Runs that failed.
        archived: Runs after which the task was archived.
        total_ms: Total duration of the runs in milliseconds.
        buckets: Number of runs per bucket of durations, see `BOUNDS_S`.
    """

    processed: int
    failed: int
    archived: int
    total_ms: float
    buckets: list[int]

    @classmethod
    def empty(cls) -> Self:
        """Return counters that are all 0."""
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
        """Add the counters of other runs of the same type."""
        self.processed += other.processed
        self.failed += other.failed
        self.archived += other.archived
        self.total_ms += other.total_ms
        self.buckets = [mine + more for mine, more in zip(self.buckets, other.buckets, strict=True)]

    def percentile_s(self, share: float) -> float | None:
        """Return the approximate seconds within which a share (0 to 1) of the runs ended, None if there were no runs.

        The durations in a bucket are assumed to be evenly distributed. For runs beyond the last bound, the last bound
        is returned. The result is never more than the total duration, so it is exact for a single run.
        """
        total = sum(self.buckets)
        if not total:
            return None
        wanted, below = share * total, 0.0
        for least, bound, count in zip((0.0, *BOUNDS_S), BOUNDS_S, self.buckets, strict=False):
            if count and below + count >= wanted:
                estimate = least + (bound - least) * (wanted - below) / count
                return min(estimate, max(least, self.total_ms / 1000))  # `least`: the stored total is rounded
            below += count
        return float(BOUNDS_S[-1])
