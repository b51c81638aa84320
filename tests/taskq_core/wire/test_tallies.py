"""Test the format of a task type's counters in Redis, and the values read from them."""

import random

from taskq_core.wire.tallies import BOUNDS_S, TypeCounters
from tests.rows import rows


def tally_of(*durations_s: float) -> TypeCounters:
    tally = TypeCounters.empty()
    for duration_s in durations_s:
        tally.processed += 1
        tally.total_ms += duration_s * 1000
        tally.buckets[sum(duration_s > bound for bound in BOUNDS_S)] += 1
    return tally


def test_stored_counters_are_read_back() -> None:
    tally = tally_of(0.002, 0.2, 4000)
    tally.failed, tally.archived = 2, 1

    stored = tally.encode()

    assert stored == "3 2 1 4000202 0 1 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 1"
    assert TypeCounters.decode(stored.encode()) == TypeCounters(3, 2, 1, 4_000_202, tally.buckets)
    assert TypeCounters.decode(stored.encode() + b" 7") is not None, "a later release may add numbers"


@rows("data", [b"", b"1 2 3", b"x " * 22, b"-1 " * 22, b"\xff"])
def test_invalid_counters_are_ignored(data: bytes) -> None:
    assert TypeCounters.decode(data) is None


def test_percentiles_lie_within_their_bucket() -> None:
    chance = random.Random(7)
    durations = sorted(chance.lognormvariate(-2, 1.5) for _ in range(5000))
    tally = tally_of(*durations)

    for share in (0.5, 0.95, 0.99):
        exact = durations[int(share * len(durations)) - 1]
        told = tally.percentile_s(share)
        least = max((bound for bound in BOUNDS_S if bound < exact), default=0)
        most = min(bound for bound in BOUNDS_S if bound >= exact)
        assert told is not None
        assert least <= told <= most


def test_the_open_bucket_reports_the_last_bound() -> None:
    assert tally_of(4000).percentile_s(0.5) == 1800
    assert TypeCounters.empty().percentile_s(0.5) is None


@rows("duration_s", [0.0002, 0.0005, 3.0])
def test_the_estimate_for_a_single_run_is_at_most_its_duration(duration_s: float) -> None:
    stored = TypeCounters.decode(tally_of(duration_s).encode().encode())

    assert stored is not None
    for share in (0.5, 0.95, 0.99):
        assert (stored.percentile_s(share) or 0) <= duration_s


def test_counters_can_be_added() -> None:
    tally = tally_of(0.002)
    tally.add(tally_of(0.002, 90))

    assert tally == tally_of(0.002, 0.002, 90)
