"""Test the history of queues as shown to an operator."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, TaskState
from taskq_core.views import LONGEST_SPAN
from taskq_core.wire import Keys
from taskq_core.wire.samples import LEVELS, Level, QueueSample
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis

HOUR = timedelta(hours=1)


class Past:
    """Writes samples of a queue as if they had been noted, at seconds before now."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        now: Any = server.client.time()
        self.now_s: int = now[0]

    def note(self, *samples: tuple[int, dict[str, int]], name: str = "default", level: Level = LEVELS[0]) -> None:
        key = Keys().queue(name).samples(level.step_s)
        for ago_s, numbers in samples:
            self.server.client.lpush(key, QueueSample(at_s=self.now_s - ago_s, **numbers).encode())


@pytest.fixture
def past(redis_server: RedisServer) -> Past:
    return Past(redis_server)


async def test_a_series_has_sizes_and_rates_of_a_queue(ask: Ask, past: Past) -> None:
    past.note(
        (40, {"processed": 100, "failed": 10, "pending": 7, "latency_ms": 1500, "memory_kib": 3}),
        (30, {"processed": 150, "failed": 15, "retry": 2, "busy": 5, "slots": 20}),
        (20, {"processed": 150, "failed": 15, "is_paused": 1}),
    )

    (series,) = await ask("samples", ["default"], span=HOUR)

    first, second, third = series.samples
    assert (series.name, series.step) == ("default", timedelta(seconds=10))
    assert series.end - series.begin == HOUR
    assert first.at == datetime.fromtimestamp(past.now_s - 40, UTC)
    assert (first.since, first.processed_per_s, first.failed_per_s, first.error_rate) == (None, None, None, None)
    assert (first.size, first.sizes[TaskState.PENDING], first.latency) == (7, 7, timedelta(seconds=1.5))
    assert (first.memory, first.utilisation, first.is_paused) == (3072, None, False)
    assert (second.processed, second.processed_per_s, second.failed_per_s, second.error_rate) == (50, 5.0, 0.5, 0.1)
    assert (second.latency, second.memory, second.utilisation) == (None, None, 0.25)
    assert (third.processed_per_s, third.error_rate, third.is_paused) == (0.0, None, True)


async def test_a_queue_without_samples_has_an_empty_series(ask: Ask, past: Past, redis_server: RedisServer) -> None:
    """So has one whose samples cannot be read, and both hide no other."""
    past.note((20, {"pending": 1}))
    redis_server.client.set("taskq:{odd}:samples:10", "x")

    found = await ask("samples", ["gone", "odd", "default"], span=HOUR)

    assert [(each.name, len(each.samples)) for each in found] == [("gone", 0), ("odd", 0), ("default", 1)]
    assert await ask("samples", [], span=HOUR) == ()


async def test_reset_counters_cause_no_negative_rate(ask: Ask, past: Past) -> None:
    """Redis was emptied, or the queue removed and made again."""
    past.note((30, {"processed": 10**9}), (20, {"processed": 40}), (10, {"processed": 60}))

    (series,) = await ask("samples", ["default"], span=HOUR)

    assert [each.processed for each in series.samples] == [0, 40, 20]


async def test_a_period_without_a_janitor_is_a_gap(ask: Ask, past: Past) -> None:
    """What happened in it is known, when it did is not."""
    past.note((300, {"processed": 0}), (290, {"processed": 10}), (90, {"processed": 210}), (80, {"processed": 220}))

    (series,) = await ask("samples", ["default"], span=HOUR)

    assert [each.is_after_gap for each in series.samples] == [False, False, True, False]
    sizes = [value for _, value in series.points(lambda sample: sample.size)]
    assert sizes == [
        *(sample.size for sample in series.samples[:2]),
        None,
        *(sample.size for sample in series.samples[2:]),
    ]
    assert [each.processed_per_s for each in series.samples] == [None, 1.0, 1.0, 1.0]


async def test_an_idle_queue_has_fewer_samples_and_no_gap(ask: Ask, past: Past) -> None:
    """One in ten minutes says as much, whatever memory and workers do. A gap is longer, or something has changed."""
    rest = {"processed": 5, "archived": 2}
    past.note(
        *((1600, rest), (981, {**rest, "memory_kib": 9, "slots": 3}), (912, rest)),
        *((840, {**rest, "archived": 3}), (3, {**rest, "archived": 3})),
    )

    (series,) = await ask("samples", ["default"], span=HOUR)

    assert [each.is_after_gap for each in series.samples] == [False, False, False, True, True]


async def test_samples_after_a_clock_change_do_not_run_backward(ask: Ask, past: Past) -> None:
    past.note((30, {"pending": 1}), (30, {"pending": 2}), (35, {"pending": 3}), (20, {"pending": 4}))

    (series,) = await ask("samples", ["default"], span=HOUR)

    assert [each.sizes[TaskState.PENDING] for each in series.samples] == [1, 4]


@rows(("span", "level"), list(zip((1, 6, 8 * 24, 30 * 24), LEVELS, strict=True)), ids=["1h", "6h", "8d", "30d"])
async def test_the_finest_resolution_that_covers_the_range_is_read(
    ask: Ask, past: Past, span: int, level: Level
) -> None:
    for number, each in enumerate(LEVELS):
        past.note((each.step_s, {"pending": number}), level=each)

    (series,) = await ask("samples", ["default"], span=timedelta(hours=span), points=2000)

    assert series.step == timedelta(seconds=level.step_s)
    assert [each.sizes[TaskState.PENDING] for each in series.samples] == [LEVELS.index(level)]


async def test_a_range_in_the_past_is_read_from_a_resolution_that_covers_it(ask: Ask, past: Past) -> None:
    """An hour of yesterday comes from minutes, as its ten seconds are gone."""
    for ago_s in (90_000, 85_000, 84_000, 80_000, 10):
        past.note((ago_s, {"pending": ago_s}), level=LEVELS[1])
    until = datetime.fromtimestamp(past.now_s - 83_000, UTC)

    (series,) = await ask("samples", ["default"], span=HOUR, until=until)

    assert series.end == until
    assert [each.sizes[TaskState.PENDING] for each in series.samples] == [85_000, 84_000]


async def test_neighboring_points_are_merged_if_there_are_many(ask: Ask, past: Past) -> None:
    """Merged samples keep the last sizes, the sum of the runs, and the longest wait."""
    start_s = past.now_s % 40 + 40
    past.note(
        (start_s, {"processed": 0, "busy": 4, "slots": 10}),
        (start_s - 10, {"processed": 5, "latency_ms": 9000, "pending": 9, "busy": 0, "slots": 10}),
        (start_s - 20, {"processed": 6, "latency_ms": 10, "pending": 2, "busy": 2, "slots": 10}),
        (start_s - 30, {"processed": 6, "pending": 1, "busy": 2, "slots": 10}),
    )

    (series,) = await ask("samples", ["default"], span=HOUR, points=90)

    assert series.step == timedelta(seconds=40)
    (only,) = series.samples
    assert (only.processed, only.since, only.sizes[TaskState.PENDING]) == (6, timedelta(seconds=30), 1)
    assert (only.latency, only.utilisation) == (timedelta(seconds=9), 0.2)


async def test_a_series_has_at_most_the_requested_number_of_points(
    ask: Ask, past: Past, redis_server: RedisServer
) -> None:
    level = LEVELS[1]
    pipeline = redis_server.client.pipeline(transaction=False)
    for number in range(level.most):
        sample = QueueSample(at_s=past.now_s - level.step_s * (level.most - number), processed=number)
        pipeline.lpush(Keys().queue("default").samples(level.step_s), sample.encode())
    pipeline.execute()

    (series,) = await ask("samples", ["default"], span=timedelta(days=1))

    assert 350 <= len(series.samples) <= 361
    assert sum(each.processed for each in series.samples) >= 1430


@rows(
    "wrong",
    [
        {"span": timedelta(seconds=59)},
        {"span": LONGEST_SPAN + timedelta(seconds=1)},
        {"span": HOUR, "points": 9},
        {"span": HOUR, "points": 2001},
        {"span": HOUR, "points": 1.5},
        {"span": HOUR, "until": datetime(2030, 1, 1)},  # noqa: DTZ001 - a naive one is what is refused
        {"span": HOUR, "until": datetime(1, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
async def test_ranges_out_of_bounds_are_refused(ask: Ask, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must"):
        await ask("samples", ["default"], **wrong)


async def test_a_range_in_the_future_is_empty(ask: Ask, past: Past) -> None:
    past.note((10, {"pending": 1}))

    (series,) = await ask("samples", ["default"], span=HOUR, until=datetime(9999, 12, 31, tzinfo=UTC))

    assert list(series.samples) == []


async def test_reading_samples_costs_one_command_per_queue(
    app: TaskQ, ask: Ask, commands_of: Callable[..., Any]
) -> None:
    await ask("samples", ["a"], span=HOUR)  # connects

    assert await commands_of("samples", ["a", "b"], span=timedelta(days=30)) == 3, "the time, and two lists"
