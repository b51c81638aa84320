"""Retry policies: functions that return the delay before a task's next attempt.

A policy takes the number of earlier failures and the error, and optionally the task's context. The option
`retry_delay` is None (Asynq's default), a duration (constant), a list of durations (one per attempt; the last one
repeats), `exponential(...)`, or a function.
"""

import inspect
import logging
import math
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from taskq_core.errors import ConfigurationError
from taskq_core.service.user_code import readable
from taskq_core.settings import Duration, seconds
from taskq_core.wire import default_retry_delay

if TYPE_CHECKING:
    from taskq_core.execution.context import TaskContext

RetryPolicy: TypeAlias = Callable[[int, BaseException], Duration]
"""A function that takes the number of earlier failures and the error, and returns the time until the next attempt."""

ContextRetryPolicy: TypeAlias = Callable[[int, BaseException, "TaskContext"], Duration]
"""A retry policy that also takes the context of the failed run."""

RetryDelay: TypeAlias = Duration | Sequence[Duration] | RetryPolicy | ContextRetryPolicy | None

logger = logging.getLogger("taskq.worker")

LONGEST_DELAY_S = 3_000_000_000.0
"""Maximum delay in seconds: about a century. Longer delays are shortened to this."""
_rng = random.SystemRandom()


def asynq_default(retried: int, error: BaseException, context: object = None) -> float:
    """Return Asynq's default delay: `n**4 + 15 + rand{0..29} * (n + 1)` seconds, for n earlier failures."""
    return default_retry_delay(retried, _rng).total_seconds()


def exponential(
    first: Duration = 1.0, *, factor: float = 2.0, limit: Duration = 3600.0, jitter: bool = True
) -> RetryPolicy:
    """Return a policy that multiplies the delay at each failure.

    Args:
        first: Delay after the first failure.
        factor: Factor between two consecutive delays, from 1 to 1000.
        limit: Longest delay.
        jitter: Choose each delay randomly between half of the computed delay and the whole, so that tasks that failed
            at the same time are not retried at the same time.
    """
    first_s = seconds("first", first, allow_zero=False)
    limit_s = seconds("limit", limit, allow_zero=False)
    if not isinstance(factor, int | float) or not 1 <= factor <= 1000:
        raise ConfigurationError(f"factor must be between 1 and 1000, got {factor!r}")

    def policy(retried: int, error: BaseException) -> float:
        # 64 doublings exceed every limit. A larger exponent might exceed the range of a float.
        delay = min(first_s * factor ** min(retried, 64), limit_s)
        return delay * _rng.uniform(0.5, 1.0) if jitter else delay

    return policy


def as_policy(delay: RetryDelay) -> Callable[..., Duration]:
    """Convert a `retry_delay` option to a function of (earlier failures, error, context), which `delay_after` calls.

    Raises:
        ConfigurationError: The option is not a valid delay.
    """
    if delay is None:
        return asynq_default
    if callable(delay):
        function: Callable[..., Duration] = delay
        return function if _takes_third(function) else lambda retried, error, *_: function(retried, error)
    if isinstance(delay, int | float | timedelta):
        constant = seconds("retry_delay", delay)
        return lambda *_: constant
    if isinstance(delay, Sequence) and not isinstance(delay, str | bytes) and delay:
        steps = [seconds(f"retry_delay[{index}]", step) for index, step in enumerate(delay)]
        return lambda retried, *_: steps[min(retried, len(steps) - 1)]
    raise ConfigurationError(
        f"retry_delay must be seconds, a timedelta, a list of them, exponential(...) or a function, got {delay!r}"
    )


def delay_after(policy: Callable[..., Duration], retried: int, error: BaseException, context: "TaskContext") -> float:
    """Return the seconds between a failed attempt and the next one, as its policy decides.

    The policy is also called for a lost worker or a crashed process. If the policy raises an error or does not return a
    delay, this function logs the error and returns Asynq's default.
    """
    try:
        delay = policy(retried, error, context)
        if not is_delay(delay):
            raise TypeError(f"retry_delay must return seconds or a timedelta, got {type(delay).__name__}")
        return delay_s(delay)
    except BaseException as problem:
        logger.error(
            "the retry_delay of task %s failed; Asynq's default is used",
            context.name,
            exc_info=readable(problem),
            extra={"queue": context.queue, "task_id": context.id},
        )
        return asynq_default(retried, error)


def is_delay(value: object) -> bool:
    """Return whether a value is a number of seconds or a timedelta. A negative delay is valid and means now."""
    if isinstance(value, timedelta):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def delay_s(delay: Duration) -> float:
    """Return a delay in seconds, from 0 to `LONGEST_DELAY_S`."""
    value = delay.total_seconds() if isinstance(delay, timedelta) else delay
    return min(max(value, 0.0), LONGEST_DELAY_S)


def _takes_third(policy: Callable[..., Any]) -> bool:
    """Return whether to pass the task's context to a policy: its third parameter is required or is named `context`."""
    try:
        return _takes_context(policy)
    except TypeError:  # `lru_cache` cannot store a policy that is not hashable
        return _takes_context.__wrapped__(policy)


@lru_cache(maxsize=1024)  # cached: each call of `using` with options checks the policy of its task
def _takes_context(policy: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(policy):
        raise ConfigurationError(f"retry_delay must be a plain function, got the coroutine function {policy!r}")
    try:
        signature = inspect.signature(policy)
    except (ValueError, TypeError):  # some built-in functions have no signature
        return False
    two, three = (_fits(signature, count) for count in (2, 3))
    if not two and not three:
        raise ConfigurationError(
            "a retry_delay function takes (earlier failures, error) or (earlier failures, error, context), "
            f"got {policy!r} with {signature}"
        )
    return three and (not two or list(signature.parameters)[2:3] == ["context"])


def _fits(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*(None,) * count)
    except TypeError:
        return False
    return True
