"""What limited tasks of the soak are limited to, by name: what they are defined with and what is judged. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """So many runs at once; with `keyed` for each key."""

    number: int
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens a second, and how many are kept."""

    tokens: int
    burst: int


@dataclass(frozen=True, slots=True)
class Window:
    """So many starts in each period, counted from 1970, for each key."""

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
"""By the name of the task. Each holds within a queue."""
SEQUENCES = ("ordered", "skipping")
"""Tasks of which one at a time runs for each key, in the order in which they were enqueued."""
WALKS = ("walk", "awalk")
"""Tasks that iterate."""
LETTERED = ("hopeless", "poison", "skipping")
"""Tasks with a dead letter."""
