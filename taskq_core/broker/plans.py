"""Request plans: sequences of requests to Redis as generators without I/O.

A `RequestPlan` yields an `Operation`, receives its answer, and returns the result at the end. Blocking code executes it
with `run_plan`, coroutines with `arun_plan`, so each rule is written once. A `BrokerError` is raised at the `yield`
whose request failed.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerError

S = TypeVar("S")
T = TypeVar("T")
RequestPlan = Generator[Operation[Any], Any, T]
Progress = Callable[[int, int], None]
"""Called after each chunk of long work with the number of tasks done and their total. An error that this function
raises ends the work."""


def ask(operation: Operation[T]) -> RequestPlan[T]:
    """Send one request and return its answer."""
    answer: T = yield operation
    return answer


def run_plan(plan: Generator[S, Any, T], send: Callable[[S], Any], first: S | None = None) -> T:
    """Execute a request plan from blocking code; `send` runs one operation.

    If the plan was started before, `first` is the operation that it has yielded.
    """
    try:
        operation = next(plan) if first is None else first
        while True:
            try:
                answer = send(operation)
            except BrokerError as error:
                operation = plan.throw(error)
            else:
                operation = plan.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the plan returns
    finally:
        plan.close()  # ends the request plan if `send` raised an unexpected error


async def arun_plan(plan: Generator[S, Any, T], send: Callable[[S], Awaitable[Any]], first: S | None = None) -> T:
    """Execute a request plan from a coroutine. Like `run_plan`."""
    try:
        operation = next(plan) if first is None else first
        while True:
            try:
                answer = await send(operation)
            except BrokerError as error:
                operation = plan.throw(error)
            else:
                operation = plan.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the plan returns
    finally:
        plan.close()  # ends the request plan if `send` raised an unexpected error
