"""The limits of the soak's tasks. `rules` defines the tasks with them, and the invariants check them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """A concurrency limit: `number` runs at once; with `keyed`, for each key separately."""

    number: int
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """A rate limit as token bucket: tokens per second, and the maximum number of stored tokens."""

    tokens: int
    burst: int


@dataclass(frozen=True, slots=True)
class Window:
    """A rate limit with a fixed window: starts per period and key. The first period began with 1970."""

    number: int
    period_s: int


LIMITS: dict[str, tuple[Places | Bucket | Window, ...]] = {
    "placed": (Places(3),),
    "placed_by": (Places(1, keyed=True),),
    "rated": (Bucket(8, burst=2),),
    "rated_by": (Window(3, period_s=2),),
    "strict": (Places(2), Places(1, keyed=True), Bucket(20, burst=2)),
    "limited_step": (Places(2),),
}
"""Limits by task name. They apply to each queue separately."""
SEQUENCES = ("ordered", "skipping")
"""Tasks with `sequence`: one at a time runs for each key, in the order in which they were enqueued."""
ITERATING = ("walk", "awalk")
"""Tasks that iterate."""
WITH_DEAD_LETTER = ("hopeless", "poison", "skipping")
"""Tasks with `dead_letter`."""
