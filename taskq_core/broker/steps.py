"""What is asked of Redis step by step, without input and output.

A `Steps` generator yields what to ask, is sent the answer, and returns the result. Blocking code and coroutines only
follow it, so every rule is written once. A refusal or a failure of the store is raised at the step that asked.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerError

S = TypeVar("S")
T = TypeVar("T")
Steps = Generator[Operation[Any], Any, T]
Progress = Callable[[int, int], None]
"""Told after each chunk of a long piece of work how many tasks were gone through, and how many there are. An error that
it raises ends the work there."""


def ask(operation: Operation[T]) -> Steps[T]:
    """Ask one thing and return its answer."""
    answer: T = yield operation
    return answer


def follow(steps: Generator[S, Any, T], send: Callable[[S], Any]) -> T:
    """Take the steps; `send` runs one operation."""
    try:
        operation = next(steps)
        while True:
            try:
                answer = send(operation)
            except BrokerError as error:
                operation = steps.throw(error)
            else:
                operation = steps.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the steps return


async def afollow(steps: Generator[S, Any, T], send: Callable[[S], Awaitable[Any]]) -> T:
    """Take the steps from a coroutine. As `follow`."""
    try:
        operation = next(steps)
        while True:
            try:
                answer = await send(operation)
            except BrokerError as error:
                operation = steps.throw(error)
            else:
                operation = steps.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the steps return
