"""Test which queues are found by their keys, and how many commands that takes."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerUnavailableError
from taskq_core.wire import Keys
from taskq_core.worker.key_check import FEW, PARTS, find_queues
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import context_of

QUEUES = [Keys().queue(f"q{number}") for number in range(1000)]


class Redis:
    """Answers EXISTS for some keys, and counts commands and round trips."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.commands = self.round_trips = 0

    async def __call__(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        self.round_trips += 1
        self.commands += len(operations)
        return [sum(key in self.keys for key in each.args[1:]) for each in operations]


@pytest.mark.parametrize("numbers", [[0], [999], [17, 500, 501]])
async def test_queues_with_a_key_are_found_in_few_round_trips(numbers: list[int]) -> None:
    redis = Redis(*[QUEUES[number].lease for number in numbers])

    assert await find_queues(QUEUES, ("lease", "letters"), redis) == [QUEUES[number] for number in numbers]
    assert redis.round_trips <= 4
    assert redis.commands <= 1 + 3 * PARTS * len(numbers)


async def test_queues_without_the_key_cost_one_command() -> None:
    redis = Redis()
    assert await find_queues(QUEUES, ("lease",), redis) == []
    assert redis.commands == 1


async def test_all_queues_are_returned_if_many_have_the_key() -> None:
    redis = Redis(*[queue.lease for queue in QUEUES[: FEW + 1]])
    assert await find_queues(QUEUES, ("lease",), redis) == QUEUES
    assert redis.commands == 1


async def test_an_error_of_redis_is_raised() -> None:
    async def send(operations: Sequence[Operation[Any]]) -> list[Any]:
        return [BrokerUnavailableError.unchanged("down")]

    with pytest.raises(BrokerUnavailableError):
        await find_queues(QUEUES, ("lease",), send)


async def test_services_of_all_queues_share_an_answer_for_a_second(app: TaskQ, redis_server: RedisServer) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, time=lambda: now)
    context = context_of(app, AsyncRunner(app.runtime.endpoint), clock=clock, queues={"a": 1, "b": 1, "c": 1})
    client: Any = redis_server.client
    client.config_resetstat()

    assert [await context.may_have(queue, "lease") for queue in context.queues] == [False] * 3
    assert client.info("commandstats")["cmdstat_exists"]["calls"] == 1

    client.zadd(context.queues[1].lease, {"x": 1})
    now += 1
    assert [await context.may_have(queue, "lease") for queue in context.queues] == [False, True, False]
    await context.runner.aclose()
