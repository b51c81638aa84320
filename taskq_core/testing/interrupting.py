"""`interrupt_after`: stop tasks that iterate, as a deploy does, and see that they go on where they were."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from taskq_core.errors import ConfigurationError
from taskq_core.execution.iteration import Interruption, interrupting


@contextmanager
def interrupt_after(items: int, *, times: int | None = None) -> Iterator[Interruption]:
    """Stop each run in a `with` block after so many items of `context.iterate`, or so many checkpoints.

    The task goes back to the head of its queue without using an attempt, and whatever runs tasks (`run` of a capture,
    `eager`, `drain`) runs it again, from the item where it stopped. Items of loops inside loops count, too.

    Args:
        items: Items after which a run stops. At least 1.
        times: How often this happens in all; None: each time.

    Yields:
        What counts the stops, as `count`.

    Raises:
        ConfigurationError: A number is not usable.

    Example:
        `with interrupt_after(2) as stops: tasks.run()`, then `assert stops.count == 3`.
    """
    for what, number in (("items", items), ("times", 1 if times is None else times)):
        if type(number) is not int or number < 1:
            raise ConfigurationError(f"{what} must be at least 1, got {number!r:.80}")
    with interrupting(Interruption(items, math.inf if times is None else times)) as interruption:
        yield interruption
