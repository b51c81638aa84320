"""What the log says of a run that failed: where, and not what was said."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import Retry, SkipRetry, TaskQ
from taskq_core.worker.stack import without_words
from tests.clock import Clock
from tests.taskq_core.worker.conftest import Ends, Runner, until, until_released

SECRET = "a@b.example"
"""Stands for an argument that got into the words of an exception."""


class DeliveryError(Exception):
    """Raised by a library."""


def deliver() -> None:
    raise DeliveryError(f"nobody is called {SECRET}")


def fails() -> None:
    deliver()


def fails_because() -> None:
    try:
        deliver()
    except DeliveryError as error:
        raise SkipRetry(f"gave up on {SECRET}") from error


def fails_twice() -> None:
    try:
        deliver()
    except DeliveryError:
        raise LookupError(SECRET)  # noqa: B904 - the context alone


def asks_for_another_attempt() -> None:
    try:
        deliver()
    except DeliveryError as error:
        raise Retry(after=600) from error


async def fails_in_a_group() -> None:
    async def one() -> None:
        fails()

    async with asyncio.TaskGroup() as group:
        group.create_task(one())


def overruns() -> None:
    until_released()


async def aoverruns() -> None:
    await asyncio.Event().wait()


PRODUCED: list[tuple[Callable[[], Any], str, list[str], list[str]]] = [
    (fails, "DeliveryError", ["fails", "deliver"], []),
    (fails_because, "SkipRetry", ["fails_because", "deliver"], ["DeliveryError\n", "direct cause"]),
    (fails_twice, "LookupError", ["fails_twice", "deliver"], ["DeliveryError\n", "During handling"]),
    (asks_for_another_attempt, "Retry", ["asks_for_another_attempt", "deliver"], ["DeliveryError\n"]),
    (fails_in_a_group, "ExceptionGroup", ["fails_in_a_group", "one", "fails", "deliver"], ["DeliveryError\n"]),
    (overruns, "TimeoutError", ["overruns"], ["TaskInterrupted\n"]),
    (aoverruns, "TimeoutError", ["aoverruns"], ["CancelledError\n"]),
]


@pytest.mark.parametrize(
    ("function", "name", "frames", "further"), PRODUCED, ids=lambda each: getattr(each, "__name__", "")
)
async def test_the_log_has_the_stack_of_the_users_code_and_no_words(
    app: TaskQ,
    start: Runner,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    function: Any,
    name: str,
    frames: list[str],
    further: list[str],
) -> None:
    """From the task's function on, with causes and members of groups; whatever it was that failed has one name."""
    ends = Ends()
    task = app.task(name="work", max_retry=3, retry_delay=600, timeout=60)(function)
    worker = await start(listener=ends)
    await task.adelay()
    if "overruns" in function.__name__:
        await until(lambda: worker.running_count == 1)
        await clock.advance(61)
    await until(lambda: ends.ends)

    (record,) = [each for each in caplog.records if each.name == "taskq.worker" and each.levelno >= logging.WARNING]
    text = logging.Formatter("%(message)s").format(record)
    outcome = "is archived" if name == "SkipRetry" else "will be retried"
    assert record.getMessage().startswith("task work failed after ")
    assert record.getMessage().endswith(f" s and {outcome}: {name}")
    for frame in frames:
        assert f", in {frame}\n" in text
    for words in further:
        assert words in text
    assert "taskq_core/worker/executor.py" not in text
    assert SECRET not in text
    assert [type(error).__name__ for error in ends.errors] == [name]


async def test_what_never_came_to_the_users_code_has_no_stack(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    await start(listener=ends, unknown_task_timeout=0)
    await app.remote("unknown").adelay()
    await until(lambda: ends.ends)

    (record,) = [each for each in caplog.records if each.name == "taskq.worker" and each.levelno >= logging.WARNING]
    assert record.getMessage().endswith(" s and is archived: UnknownTaskError")
    assert record.exc_info is None


@pytest.mark.parametrize("length", [1, 100])
def test_a_chain_of_causes_is_followed_for_a_while(length: int) -> None:
    """A ring of causes, and one that is as long as retrying in a loop makes it."""
    errors = [ValueError(SECRET) for _ in range(length)]
    for number, error in enumerate(errors):
        error.__cause__ = errors[(number + 1) % length]
    try:
        raise errors[0]
    except ValueError as caught:
        stand_in = without_words(caught)

    assert stand_in is not None
    text = logging.Formatter().formatException((type(stand_in), stand_in, stand_in.__traceback__))
    assert text.count("ValueError") == min(length, 11)
    assert SECRET not in text


def test_an_exception_without_a_stack_has_none() -> None:
    assert without_words(None) is None
    assert without_words(ValueError(SECRET)) is None
