"""Retry policies: what each form of `retry_delay` answers."""

from datetime import timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskContext, exponential
from taskq_core.execution.retry import as_policy, asynq_default, delay_after
from tests.rows import rows

ERROR = ValueError("x")


@rows("retried", [0, 1, 5, 24])
def test_none_uses_the_default_delay_of_asynq(retried: int) -> None:
    """The delay is `n**4 + 15 + rand{0..29} * (n + 1)` seconds."""
    policy = as_policy(None)

    for _ in range(200):
        extra = policy(retried, ERROR) - (retried**4 + 15)  # type: ignore[operator]  # it answers in seconds
        assert 0 <= extra <= 29 * (retried + 1)
    assert policy is asynq_default


def test_a_duration_is_constant() -> None:
    assert [as_policy(timedelta(minutes=1))(n, ERROR) for n in range(3)] == [60.0, 60.0, 60.0]
    assert as_policy(0)(0, ERROR) == 0.0


def test_the_last_delay_of_a_list_repeats() -> None:
    assert [as_policy([1, timedelta(seconds=5)])(n, ERROR) for n in range(4)] == [1.0, 5.0, 5.0, 5.0]


def test_a_function_receives_failures_and_error() -> None:
    seen: list[Any] = []

    def policy(retried: int, error: BaseException) -> float:
        seen.append((retried, error))
        return 3

    assert as_policy(policy)(2, ERROR) == 3
    assert seen == [(2, ERROR)]


CONTEXT = TaskContext(id="x", name="t", queue="default", retried=2)


class Unhashable:
    """A callable object that can be no key of a cache."""

    __hash__ = None  # type: ignore[assignment]  # what is tested

    def __call__(self, retried: int, error: BaseException, context: TaskContext) -> float:
        return retried * 10 + context.retried


@rows(
    ("policy", "expected"),
    [
        (lambda retried, error, context: retried * 10 + context.retried, 12),
        (lambda retried, error, context=None: -1 if context is None else 12, 12),
        (lambda *given: len(given), 2),
        (lambda retried, error, factor=7: factor, 7),
        (lambda retried, error: 5, 5),
        (Unhashable(), 12),
        (5, 5),
        ([3, 4], 4),
    ],
    ids=["needs it", "names it", "any number", "another default", "needs none", "unhashable", "constant", "list"],
)
def test_a_function_can_receive_the_context(policy: Any, expected: float) -> None:
    """It is given where it must be, or where the third parameter has its name."""
    assert delay_after(as_policy(policy), 1, ERROR, CONTEXT) == expected


async def _coroutine(retried: int, error: BaseException) -> float:
    return 1


@rows(
    ("policy", "message"),
    [
        (lambda: 1, "takes (earlier failures, error) or (earlier failures, error, context), got <function"),
        (lambda retried: 1, "a retry_delay function takes (earlier failures, error)"),
        (lambda retried, error, context, more: 1, "with (retried, error, context, more)"),
        (_coroutine, "retry_delay must be a plain function, got the coroutine function"),
        ("soon", "retry_delay must be seconds, a timedelta, a list of them, exponential(...) or a function"),
    ],
)
def test_a_function_with_other_parameters_is_refused(policy: Any, message: str) -> None:
    """The error is raised when the option is given, not when the first task fails."""
    with pytest.raises(ConfigurationError) as caught:
        as_policy(policy)

    assert message in str(caught.value)


def test_exponential_multiplies_up_to_its_limit() -> None:
    policy = exponential(1, factor=3, limit=20, jitter=False)

    assert [policy(n, ERROR) for n in (0, 1, 2, 3, 10_000)] == [1, 3, 9, 20, 20]


def test_jitter_stays_between_half_and_whole() -> None:
    policy = exponential(10)

    delays = [policy(2, ERROR) for _ in range(200)]

    assert all(20 <= delay <= 40 for delay in delays)  # type: ignore[operator]  # it answers in seconds
    assert len(set(delays)) > 100


@rows(
    ("arguments", "message"),
    [
        ({"first": 0}, "first must be more than 0 seconds, got 0"),
        ({"limit": -1}, "limit must be more than 0 seconds, got -1"),
        ({"factor": 0.5}, "factor must be between 1 and 1000, got 0.5"),
        ({"factor": float("nan")}, "factor must be between 1 and 1000, got nan"),
        ({"factor": "2"}, "factor must be between 1 and 1000, got '2'"),
    ],
)
def test_exponential_refuses_invalid_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        exponential(**arguments)

    assert str(caught.value) == message
