"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from datetime import timedelta
from typing import Any, assert_type

from taskq_core import GroupedTask, Signature, TaskQ

taskq = TaskQ()


@taskq.task(aggregate="user:1")
def digest(names: list[str]) -> int:
    return len(names)


digest.using(aggregate=None)
digest.using(aggregate=5)  # error


@taskq.aggregator()
def anything(group: str, tasks: list[GroupedTask]) -> Signature[int]:
    for task in tasks:
        assert_type(task.kwargs, dict[str, Any])
        assert_type(task.payload, bytes)
    return digest.s([group])


assert_type(anything("g", []), Signature[int])


@taskq.aggregator("user:", queue="mail", grace=timedelta(seconds=5), max_delay=60, max_size=100, timeout=30)
async def users(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
    return digest.s([group])


@taskq.aggregator()  # error
def wrong_result(group: str, tasks: list[GroupedTask]) -> int:
    return 1


@taskq.aggregator()  # error
def too_few(group: str) -> Signature[Any]:
    return digest.s([group])


taskq.aggregator(max_size="5")  # error
taskq.aggregator(size=5)  # error
