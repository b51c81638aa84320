"""Asynq's two rules with a random part: the delay before a retry, and the order in which a worker tries its queues.

The caller passes the random number generator, so that tests can pass one with known numbers.
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

    After n earlier failures it is n**4 + 15 + (random 0 to 29) * (n + 1) seconds. The first retry comes after 15 to
    44 s, the tenth after about two hours, the 25th after four days.

    Args:
        retried: Number of earlier counted failures; a negative number counts as 0.
        rng: Random number generator.

    Returns:
        Whole seconds, at most about 292 years, Go's longest duration.
    """
    n = max(retried, 0)
    seconds: int = n**4 + 15 + int(rng.random() * 30) * (n + 1)
    return timedelta(seconds=min(seconds, _LONGEST_S))


class QueueOrder:
    """Decides in which order a worker tries its queues, by their weights.

    With `strict`, the queue with the highest weight always comes first. Otherwise each call of `next` returns a random
    order: the probability to come first is proportional to a queue's weight, and so on for the remaining queues. Every
    queue is tried on every pass, so none starves. Queues with a blank name or a weight below 1 are dropped. If none is
    left, the worker serves `default`.

    Args:
        weights: Weight by queue name. Only the proportions matter.
        strict: Whether a queue is served only while all queues with a higher weight are empty. Equal weights keep the
            given order.
        rng: Random number generator.

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
        # Draw an exponential variate with rate `weight` for each queue. A queue comes first with probability weight /
        # sum.
        drawn = {name: -math.log(1.0 - self._random()) / weight for name, weight in self.weights.items()}
        return tuple(sorted(drawn, key=drawn.__getitem__))
