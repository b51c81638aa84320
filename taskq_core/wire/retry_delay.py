"""Asynq's two rules with a random part: the delay before a retry, and the order in which a worker tries its queues.

The caller passes the random source, so that a test can fix it.
"""

import math
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta

from taskq_core.wire.durations import MAX_DURATION_NS, timedelta_of_ns
from taskq_core.wire.keys import DEFAULT_QUEUE

_LONGEST = timedelta_of_ns(MAX_DURATION_NS)
_LONGEST_S = int(_LONGEST.total_seconds())


def default_retry_delay(retried: int, rng: random.Random) -> timedelta:
    """Return Asynq's default delay before the next attempt.

    With n failures before this one: n to the fourth + 15 + (0 to 29, at random) x (n + 1) seconds. The first retry
    comes after 15 to 44 s, the tenth after about two hours, the 25th after four days.

    Args:
        retried: Failures counted before this one; below 0 counts as 0.
        rng: Source of chance.

    Returns:
        Whole seconds, at most about 292 years, the longest duration Go knows.
    """
    n = max(retried, 0)
    seconds: int = n**4 + 15 + int(rng.random() * 30) * (n + 1)
    return timedelta(seconds=min(seconds, _LONGEST_S))


class QueueOrder:
    """In which order a worker tries its queues.

    Strictly: always the highest weight first. Otherwise each call of `next` draws an order in which every queue comes
    first in proportion to its weight, then the remaining ones likewise, so each queue is tried on every pass and none
    starves. Queues with a blank name or a weight below 1 are dropped; with none left the queue is `default`.

    Args:
        weights: Weight by queue name. Only the proportions matter.
        strict: Whether a queue is served only while all above it are empty. Equal weights keep the order given.
        rng: Source of chance.

    Attributes:
        weights: Weights in use, divided by their greatest common divisor.
    """

    __slots__ = ("_constant", "_random", "weights")

    def __init__(self, weights: Mapping[str, int], strict: bool, rng: random.Random) -> None:
        kept = {name: weight for name, weight in weights.items() if weight > 0 and name.strip()} or {DEFAULT_QUEUE: 1}
        divisor = math.gcd(*kept.values())
        self.weights: Mapping[str, int] = {name: weight // divisor for name, weight in kept.items()}
        self._random = rng.random
        is_constant = strict or len(kept) == 1
        self._constant = tuple(sorted(kept, key=lambda name: -kept[name])) if is_constant else None

    def next(self) -> Sequence[str]:
        """Return all queue names in the order in which one dequeue tries them."""
        if self._constant is not None:
            return self._constant
        # Weighted order without replacement: draw an exponential variate with rate `weight` for each queue, and sort.
        # The smallest one belongs to a queue with the probability weight / sum of the weights.
        drawn = {name: -math.log(1.0 - self._random()) / weight for name, weight in self.weights.items()}
        return tuple(sorted(drawn, key=drawn.__getitem__))
