"""What queues did day by day, as an operator sees it."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.inspector import DailyStats
from taskq_core.views import DAYS_CHOICES, error_rate
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.views.conftest import Ask

redis = pytest.mark.redis


@pytest.fixture
def today(now_s: int) -> date:
    return datetime.fromtimestamp(now_s, UTC).date()


def count(redis_server: RedisServer, queue: str, day: date, *, processed: object, failed: object) -> None:
    redis_server.client.set(f"asynq:{{{queue}}}:processed:{day}", str(processed))
    redis_server.client.set(f"asynq:{{{queue}}}:failed:{day}", str(failed))


@redis
async def test_days_are_sorted_oldest_first_and_include_idle_days(
    ask: Ask, redis_server: RedisServer, today: date
) -> None:
    count(redis_server, "default", today - timedelta(days=2), processed=7, failed=3)
    count(redis_server, "default", today, processed=1, failed=0)

    days = await ask("history", ["default"], days=7)

    assert [each.day for each in days] == [today - timedelta(days=back) for back in range(6, -1, -1)]
    assert [(each.processed, each.failed) for each in days] == [(0, 0)] * 4 + [(7, 3), (0, 0), (1, 0)]
    assert (days[4].succeeded, days[4].error_rate) == (4, 3 / 7)
    assert days[3].error_rate is None


@redis
async def test_several_queues_are_combined(ask: Ask, redis_server: RedisServer, today: date) -> None:
    """A deleted queue and a counter that is not a number add nothing."""
    count(redis_server, "default", today, processed=7, failed=3)
    count(redis_server, "low", today, processed=5, failed=1)
    count(redis_server, "odd", today, processed="x", failed=1)

    days = await ask("history", ["default", "gone", "low", "odd"], days=1)

    assert [(each.processed, each.failed) for each in days] == [(12, 5)]
    assert [(each.processed, each.failed) for each in await ask("history", [], days=1)] == [(0, 0)]


@redis
async def test_the_longest_time_range_is_the_retention(app: TaskQ, ask: Ask) -> None:
    assert len(await ask("history", ["default"], days=max(DAYS_CHOICES))) == 90
    for days in (0, 91, True):
        with pytest.raises(ConfigurationError, match="days must be"):
            await ask("history", ["default"], days=days)


@redis
async def test_reading_several_days_costs_one_command_per_queue(ask: Ask, commands_of: Callable[..., Any]) -> None:
    await ask("history", ["a"], days=1)  # connects

    assert await commands_of("history", ["a", "b"], days=90) == 3, "the time, and the counters of two queues"


@rows(("failed", "processed", "rate"), [(0, 0, None), (0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0), (5, 4, 1.0)])
def test_the_error_rate_is_relative_to_all_runs(failed: int, processed: int, rate: float | None) -> None:
    """The rate is at most 1, because the two counters are not read at the same time."""
    assert error_rate(failed, processed) == rate
    assert DailyStats(day=date(2030, 1, 1), processed=processed, failed=failed).error_rate == rate
    assert DailyStats(day=date(2030, 1, 1), processed=processed, failed=failed).succeeded == max(0, processed - failed)
