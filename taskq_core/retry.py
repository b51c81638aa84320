"""How long to wait before a task's next attempt.

A policy answers: seconds to wait, given how often the task has failed before and the error. What a task's `retry_delay`
option may be: None (Asynq's default), a duration (constant), a list of durations (one per attempt, the last repeats),
`exponential(...)`, or a function of both.
"""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

from taskq_core.errors import ConfigurationError
from taskq_core.settings import Duration, seconds
from taskq_core.wire import default_retry_delay

RetryPolicy: TypeAlias = Callable[[int, BaseException], Duration]
"""Function of (failures before this one, the error) that returns the time until the next attempt."""

RetryDelay: TypeAlias = Duration | Sequence[Duration] | RetryPolicy | None

_rng = random.SystemRandom()


def asynq_default(retried: int, error: BaseException) -> float:
    """Return Asynq's own delay: `n**4 + 15 + rand{0..29} * (n + 1)` seconds for n failures before this one."""
    return default_retry_delay(retried, _rng).total_seconds()


def exponential(
    first: Duration = 1.0, *, factor: float = 2.0, limit: Duration = 3600.0, jitter: bool = True
) -> RetryPolicy:
    """Return a policy that multiplies the delay at each failure.

    Args:
        first: Delay after the first failure.
        factor: What each further delay is multiplied by. At least 1.
        limit: Longest delay.
        jitter: Draw each delay between half of it and the whole, so that tasks that failed together come back apart.
    """
    first_s = seconds("first", first, allow_zero=False)
    limit_s = seconds("limit", limit, allow_zero=False)
    if not isinstance(factor, int | float) or not 1 <= factor <= 1000:
        raise ConfigurationError(f"factor must be between 1 and 1000, got {factor!r}")

    def policy(retried: int, error: BaseException) -> float:
        # 64 doublings exceed every limit; the cap keeps the power finite.
        delay = min(first_s * factor ** min(retried, 64), limit_s)
        return delay * _rng.uniform(0.5, 1.0) if jitter else delay

    return policy


def as_policy(delay: RetryDelay) -> RetryPolicy:
    """Return the policy that a `retry_delay` option stands for.

    Raises:
        ConfigurationError: It is none of the accepted forms.
    """
    if delay is None:
        return asynq_default
    if callable(delay):
        return delay
    if isinstance(delay, int | float | timedelta):
        constant = seconds("retry_delay", delay)
        return lambda retried, error: constant
    if isinstance(delay, Sequence) and not isinstance(delay, str | bytes) and delay:
        steps = [seconds(f"retry_delay[{index}]", step) for index, step in enumerate(delay)]
        return lambda retried, error: steps[min(retried, len(steps) - 1)]
    raise ConfigurationError(
        f"retry_delay must be seconds, a timedelta, a list of them, exponential(...) or a function, got {delay!r}"
    )
