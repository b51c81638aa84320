"""`interrupt_after`: stop iterating tasks as a deployment does, to test that they continue where they stopped."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from taskq_core.errors import ConfigurationError
from taskq_core.execution.iteration import Interruption, interrupting


@contextmanager
def interrupt_after(items: int, *, times: int | None = None) -> Iterator[Interruption]:
    """Stop each run in a `with` block after `items` items of `context.iterate`, or as many checkpoints.

    The task returns to the head of its queue without using an attempt. `run` of a capture, `eager` or `drain` then runs
    it again from the item where it stopped. Items of nested loops count too.

    Args:
        items: Number of items after which a run stops. At least 1.
        times: Maximum number of stops. None: no limit.

    Yields:
        An object whose attribute `count` is the number of stops.

    Raises:
        ConfigurationError: A number is not valid.

    Example:
        `with interrupt_after(2) as stops: tasks.run()`, then `assert stops.count == 3`.
    """
    for what, number in (("items", items), ("times", 1 if times is None else times)):
        if type(number) is not int or number < 1:
            raise ConfigurationError(f"{what} must be at least 1, got {number!r:.80}")
    with interrupting(Interruption(items, math.inf if times is None else times)) as interruption:
        yield interruption
