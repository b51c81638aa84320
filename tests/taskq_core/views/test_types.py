"""Which types of tasks there are and what became of their runs, as an operator sees it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError
from taskq_core.wire import Keys
from taskq_core.wire.tallies import BOUNDS_S, HOUR_S, TypeCounters
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


@pytest.fixture
def hour(now_s: int) -> int:
    return now_s // HOUR_S


def hand_in(server: RedisServer, hour: int, name: str, count: int, *, queue: str = "default", **more: int) -> None:
    tally = TypeCounters.empty()
    tally.processed, tally.total_ms = count, count * 200
    tally.buckets[BOUNDS_S.index(0.25)] = count
    tally.failed, tally.archived = more.get("failed", 0), more.get("archived", 0)
    server.client.hset(Keys().queue(queue).tally(hour), name, tally.encode())


async def test_runs_are_counted_by_type(ask: Ask, redis_server: RedisServer, hour: int) -> None:
    hand_in(redis_server, hour, "email:deliver", 6, failed=3, archived=1)
    hand_in(redis_server, hour - 1, "email:deliver", 2)
    hand_in(redis_server, hour, "report:build", 50, queue="low")
    hand_in(redis_server, hour - 2, "old", 1)
    redis_server.client.hset("taskq:{default}:tally:%d" % hour, "broken", "x")  # noqa: UP031 - the key has braces

    found = await ask("types", ["default", "low", "gone"], hours=1)

    report, email = found.types
    assert found.since == datetime.fromtimestamp((hour - 1) * HOUR_S, UTC)
    assert (report.name, report.processed, report.error_rate) == ("report:build", 50, 0.0)
    assert (email.name, email.processed, email.failed, email.archived) == ("email:deliver", 8, 3, 1)
    assert (email.error_rate, email.mean) == (0.375, timedelta(milliseconds=200))
    assert timedelta(milliseconds=100) < email.median < email.p95 < email.p99 <= timedelta(milliseconds=250)


async def test_without_runs_there_are_no_types(ask: Ask, redis_server: RedisServer, hour: int) -> None:
    redis_server.client.set(Keys().queue("default").tally(hour), "x")

    assert list((await ask("types", ["default"], hours=24)).types) == []


@rows("hours", [-1, 25, 1.5])
async def test_hours_out_of_bounds_are_refused(ask: Ask, hours: Any) -> None:
    with pytest.raises(ConfigurationError, match="hours must"):
        await ask("types", ["default"], hours=hours)


async def test_reading_a_day_costs_one_command_per_queue_and_hour(ask: Ask, commands_of: Callable[..., Any]) -> None:
    await ask("types", ["a"], hours=0)  # connects

    assert await commands_of("types", ["a", "b"], hours=24) == 51
