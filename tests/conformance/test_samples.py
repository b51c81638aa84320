"""Test how samples and counters are stored on every store."""

from typing import Any

import pytest

from taskq_core.broker.operations import samples
from taskq_core.wire.samples import LEVELS, Level, QueueSample
from taskq_core.wire.tallies import (
    HOUR_S,
    HOURS_KEPT,
    OTHER_TYPES,
    TOTALS_KEPT_S,
    TYPE_KEPT_HOURS,
    TYPES_MOST,
    TypeCounters,
)
from tests.conformance.stores import NOW_S, Broker

FINEST, MINUTE = LEVELS[0], LEVELS[1]
START_S = NOW_S - NOW_S % HOUR_S
"""Begins a stretch of seconds at every resolution."""


def sample(broker: Broker, at_s: int, *levels: Level, **numbers: int) -> list[int]:
    return broker.run(samples.sample(broker.queue, {level: QueueSample(at_s=at_s, **numbers) for level in levels}))


def seconds(broker: Broker, level: Level = FINEST) -> list[int]:
    return [each.at_s for each in broker.run(samples.read_samples(broker.queue, level, count=level.most))]


def test_one_sample_is_stored_per_interval(broker: Broker) -> None:
    """A second worker that wrongly considers itself the leader stores no sample."""
    codes = [sample(broker, START_S + each, FINEST, MINUTE) for each in (3, 4, 9, 10, 19, 59, 61)]

    assert codes == [[1, 1], [0, 0], [0, 0], [1, 0], [0, 0], [1, 0], [1, 1]]
    assert seconds(broker) == [START_S + each for each in (3, 10, 59, 61)]
    assert seconds(broker, MINUTE) == [START_S + 3, START_S + 61]


def test_stored_samples_are_read(broker: Broker) -> None:
    sample(broker, START_S, FINEST, pending=3, processed=10**12)

    (read,) = broker.run(samples.read_samples(broker.queue, FINEST, count=9))

    assert read == QueueSample(at_s=START_S, pending=3, processed=10**12)


def test_the_oldest_samples_are_dropped(broker: Broker) -> None:
    level = Level(step_s=10, most=3)

    for number in range(5):
        sample(broker, START_S + 10 * number, level)

    assert seconds(broker) == [START_S + 10 * number for number in (2, 3, 4)]


def test_a_list_of_samples_expires_with_its_last_sample(broker: Broker) -> None:
    sample(broker, START_S, *LEVELS)

    for level in LEVELS:
        left_s = broker.raw.ttl(broker.queue.samples(level.step_s))
        assert level.span_s - 60 < left_s <= level.span_s


def test_samples_in_the_future_are_deleted(broker: Broker) -> None:
    """Otherwise no sample would be stored until the correct clock reaches that time."""
    sample(broker, START_S, FINEST)
    for ahead_s in (3600, 3610, 3620):
        sample(broker, START_S + ahead_s, FINEST)

    assert sample(broker, START_S + 10, FINEST) == [1]

    assert seconds(broker) == [START_S, START_S + 10]


def test_entries_that_are_not_samples_are_skipped(broker: Broker) -> None:
    broker.raw.lpush(broker.queue.samples(FINEST.step_s), b"x", b"")

    assert sample(broker, START_S, FINEST) == [1]
    assert seconds(broker) == [START_S]


def test_a_key_of_another_type_is_reported_and_not_changed(broker: Broker) -> None:
    broker.raw.set(broker.queue.samples(FINEST.step_s), "x")

    assert sample(broker, START_S, FINEST, MINUTE) == [-1, 1]
    assert broker.raw.get(broker.queue.samples(FINEST.step_s)) == b"x"


def test_a_full_redis_stores_samples_and_counters(one_server: Broker) -> None:
    """They show why Redis became full, and their size is bounded."""
    assert one_server.store.server is not None
    one_server.store.server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        noted = sample(one_server, START_S, FINEST)
        added = tally(one_server, 1, one=runs(1))
    finally:
        one_server.store.server.command("CONFIG", "SET", "maxmemory", "0")

    assert (noted, added) == ([1], 1)


# --- tallies ----------------------------------------------------------------------------------------------------------


def runs(count: int, *, failed: int = 0) -> TypeCounters:
    tally = TypeCounters.empty()
    tally.processed, tally.failed, tally.total_ms = count, failed, count * 1000
    tally.buckets[3] = count
    return tally


def tally(broker: Broker, call: int, *, owner: str = "w1", **types: TypeCounters) -> int:
    return broker.run(samples.count_runs(broker.queue, 500_000, types, owner=owner, call=call))


def test_counters_of_several_workers_are_added(broker: Broker) -> None:
    assert tally(broker, 1, one=runs(2), two=runs(1, failed=1)) == 1
    assert tally(broker, 1, owner="w2", one=runs(3, failed=2)) == 1
    assert tally(broker, 2, one=runs(10**12)) == 1

    found = broker.run(samples.read_tally(broker.queue, 500_000))

    assert found == {"one": runs(5 + 10**12, failed=2), "two": runs(1, failed=1)}
    assert broker.run(samples.read_tally(broker.queue, 500_001)) == {}
    assert 0 < broker.raw.ttl(broker.queue.tally(500_000)) <= HOURS_KEPT * HOUR_S


def test_a_repeated_request_adds_nothing(broker: Broker) -> None:
    """The reply to the first request may have been lost."""
    codes = [tally(broker, call, one=runs(2)) for call in (1, 1, 2, 2)]

    assert codes == [1, 0, 1, 0]
    assert broker.run(samples.read_tally(broker.queue, 500_000)) == {"one": runs(4)}


def test_task_types_over_the_maximum_are_counted_together(broker: Broker) -> None:
    tally(broker, 1, **{f"t{number}": runs(1) for number in range(TYPES_MOST - 1)})
    tally(broker, 2, t0=runs(1), last=runs(1), more=runs(1), most=runs(2, failed=1))
    tally(broker, 3, again=runs(1), last=runs(1))

    found = broker.run(samples.read_tally(broker.queue, 500_000))

    assert len(found) == TYPES_MOST + 1
    assert (found["t0"], found["last"], found[OTHER_TYPES]) == (runs(2), runs(2), runs(4, failed=1))


def test_counters_of_a_later_release_are_kept(broker: Broker) -> None:
    later: Any = f"{runs(1).encode()} 77"
    broker.raw.hset(broker.queue.tally(500_000), "one", later)

    tally(broker, 1, one=runs(1))

    assert broker.raw.hget(broker.queue.tally(500_000), "one") == f"{runs(2).encode()} 77".encode()


@pytest.mark.parametrize("stands", ["x", "1 2"])
def test_invalid_counters_are_skipped(broker: Broker, stands: str) -> None:
    broker.raw.hset(broker.queue.tally(500_000), "one", stands)

    assert broker.run(samples.read_tally(broker.queue, 500_000)) == {}


def test_a_counter_key_of_another_type_is_not_changed(broker: Broker) -> None:
    broker.raw.set(broker.queue.tally(500_000), "x")

    assert tally(broker, 1, one=runs(1)) == -1
    assert broker.raw.get(broker.queue.tally(500_000)) == b"x"


# --- totals -----------------------------------------------------------------------------------------------------------


def totals(broker: Broker) -> dict[str, TypeCounters]:
    return broker.run(samples.read_totals(broker.queue))


def at_hour(broker: Broker, hour: int, call: int, **types: TypeCounters) -> None:
    assert broker.run(samples.count_runs(broker.queue, hour, types, owner="w1", call=call)) == 1


def test_totals_continue_from_hour_to_hour(broker: Broker) -> None:
    """Metrics export them as counters, which must not restart."""
    at_hour(broker, 500_000, 1, one=runs(2))
    at_hour(broker, 500_001, 2, one=runs(3, failed=1), two=runs(10**12))
    at_hour(broker, 500_001, 3, two=runs(1))
    broker.run(samples.count_runs(broker.queue, 500_001, {"two": runs(1)}, owner="w1", call=3))  # a repeat

    assert totals(broker) == {"one": runs(5, failed=1), "two": runs(10**12 + 1)}
    assert TOTALS_KEPT_S - 60 < broker.raw.ttl(broker.queue.totals) <= TOTALS_KEPT_S


def test_idle_task_types_are_dropped_from_full_totals(broker: Broker) -> None:
    old, later = 500_000, 500_000 + TYPE_KEPT_HOURS
    at_hour(broker, old, 1, **{f"t{number}": runs(1) for number in range(TYPES_MOST)})
    at_hour(broker, old + 1, 2, t0=runs(1), beyond=runs(1))

    at_hour(broker, later, 3, beyond=runs(1))  # the others are not old enough yet
    full = totals(broker)
    at_hour(broker, later + 1, 4, new=runs(1), t0=runs(1))
    swept = totals(broker)

    assert (len(full), full[OTHER_TYPES], full["t1"]) == (TYPES_MOST + 1, runs(2), runs(1))
    assert swept == {"t0": runs(3), "new": runs(1), OTHER_TYPES: runs(2)}


def test_totals_of_a_later_release_are_kept_and_damaged_totals_skipped(broker: Broker) -> None:
    later: Any = {"one": f"499999|{runs(1).encode()} 77", "bad": "x"}
    broker.raw.hset(broker.queue.totals, mapping=later)

    at_hour(broker, 500_000, 1, one=runs(1))

    assert broker.raw.hget(broker.queue.totals, "one") == f"500000|{runs(2).encode()} 77".encode()
    assert totals(broker) == {"one": runs(2)}


def test_totals_in_a_key_of_another_type_are_reported(broker: Broker) -> None:
    broker.raw.set(broker.queue.totals, "x")

    assert tally(broker, 1, one=runs(1)) == -1
    assert broker.run(samples.read_tally(broker.queue, 500_000)) == {}
