"""Which firings are enqueued: on time, late, missed, by each policy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq_core.scheduler.due import ON_TIME_S, due_firings, next_firing
from taskq_core.tasks.periodic import CatchUp
from taskq_core.wire.cron import Bounded, Schedule, parse_schedule

HOURLY = parse_schedule("@hourly")
EVERY_SECOND = parse_schedule("* * * * * *")
HOUR = 3600
NOON = 2_000_001_600
"""A full hour."""


def due(
    schedule: Schedule,
    mark_s: int,
    now_s: int,
    catch_up: str = "one",
    *,
    window_s: float = HOUR,
    limit: int = 100_000,
) -> list[int]:
    return due_firings(schedule, mark_s, now_s, catch_up=CatchUp(catch_up), window_s=window_s, limit=limit)


@pytest.mark.parametrize("policy", list(CatchUp))
class TestOnTime:
    """The policy does not matter while schedulers run."""

    def test_nothing_is_due_before_its_second(self, policy: str) -> None:
        assert due(HOURLY, NOON - HOUR, NOON - 1, policy) == []

    def test_a_firing_is_due_in_its_second(self, policy: str) -> None:
        assert due(HOURLY, NOON - HOUR, NOON, policy) == [NOON]

    def test_a_change_of_leader_loses_nothing(self, policy: str) -> None:
        found = due(EVERY_SECOND, NOON, NOON + ON_TIME_S, policy, window_s=0)

        assert found == list(range(NOON + 1, NOON + ON_TIME_S + 1))

    def test_a_handled_firing_does_not_return(self, policy: str) -> None:
        assert due(HOURLY, NOON, NOON, policy) == []
        assert due(HOURLY, NOON, NOON - 500, policy) == [], "a clock that was set back"

    def test_an_ended_entry_has_no_firing(self, policy: str) -> None:
        over = Bounded(parse_schedule("@hourly"), end_s=NOON)

        assert due(over, NOON, NOON + HOUR, policy) == []


class TestMissed:
    """Nothing ran since the firing at noon."""

    NOW = NOON + 3 * HOUR + 1200  # 15:20

    def test_skip_omits_missed_firings(self) -> None:
        assert due(HOURLY, NOON, self.NOW, "skip") == []

    def test_one_enqueues_the_last_missed_firing(self) -> None:
        assert due(HOURLY, NOON, self.NOW, "one") == [NOON + 3 * HOUR]

    def test_all_enqueues_each_missed_firing_within_the_window(self) -> None:
        assert due(HOURLY, NOON, self.NOW, "all", window_s=2 * HOUR) == [NOON + 2 * HOUR, NOON + 3 * HOUR]
        assert due(HOURLY, NOON, self.NOW, "all", window_s=9 * HOUR) == [NOON + hour * HOUR for hour in (1, 2, 3)]

    def test_firings_before_the_window_are_omitted(self, subtests: pytest.Subtests) -> None:
        for policy in ["one", "all"]:
            with subtests.test(policy=policy):
                assert due(HOURLY, NOON, self.NOW, policy, window_s=1200) == [NOON + 3 * HOUR]
                assert due(HOURLY, NOON, self.NOW, policy, window_s=1199) == []

    def test_a_firing_on_time_replaces_the_missed_ones(self, subtests: pytest.Subtests) -> None:
        for policy in ["skip", "one"]:
            with subtests.test(policy=policy):
                assert due(HOURLY, NOON, NOON + 3 * HOUR + 5, policy) == [NOON + 3 * HOUR]

    def test_the_last_missed_firing_is_found_far_back(self) -> None:
        weekly = parse_schedule("0 0 * * 0")
        start_s = NOON - 40 * 86_400

        assert due(weekly, start_s, NOON, "one", window_s=30 * 86_400) == [1_999_987_200 - 3 * 86_400]
        assert due(weekly, start_s, NOON, "one", window_s=2 * 86_400) == []

    def test_an_interval_keeps_its_rhythm(self) -> None:
        every = parse_schedule("@every 7m")
        beats = {NOON + 420 * number for number in range(1000)}

        for policy in CatchUp:
            assert set(due(every, NOON, self.NOW, policy)) <= beats
        assert due(every, NOON, self.NOW, "one") == [max(beat for beat in beats if beat <= self.NOW)]
        assert next_firing(every, NOON, self.NOW) == min(beat for beat in beats if beat > self.NOW)

    def test_a_call_returns_at_most_its_limit_and_the_next_continues(self) -> None:
        first = due(EVERY_SECOND, NOON, NOON + 500, "all", limit=100)
        second = due(EVERY_SECOND, first[-1], NOON + 500, "all", limit=100)

        assert first + second == list(range(NOON + 1, NOON + 201))

    def test_a_year_of_missed_seconds_is_computed_fast(self) -> None:
        """Only what is returned is counted through."""
        calls = 0

        class Counting:
            text = ""

            def next_after(self, moment_s: int) -> int | None:
                nonlocal calls
                calls += 1
                return EVERY_SECOND.next_after(moment_s)

            def anchor(self, start_s: int, limit_s: int) -> int:
                return EVERY_SECOND.anchor(start_s, limit_s)

        for policy in CatchUp:
            due(Counting(), NOON - 365 * 86_400, NOON, policy, window_s=400 * 86_400, limit=100)

        assert calls < 500


@settings(deadline=None)  # it goes through thousands of firings
@given(
    spec=st.sampled_from(
        ["* * * * * *", "*/7 * * * * *", "*/3 * * * *", "0 * * * *", "30 */2 * * * *", "@every 7s", "@every 61s"]
    ),
    mark_s=st.integers(2_000_000_000, 2_000_005_000),
    late_s=st.one_of(st.sampled_from([0, 1, 59, 60, 61, 62, 3600]), st.integers(0, 8000)),
    window_s=st.sampled_from([0, 1, 60, 61, 100, 3600, 100_000]),
    limit=st.sampled_from([1, 3, 100, 100_000]),
)
def test_each_policy_matches_a_brute_force_count(
    spec: str, mark_s: int, late_s: int, window_s: int, limit: int
) -> None:
    schedule, now_s = parse_schedule(spec), mark_s + late_s
    firings, moment_s = [], schedule.next_after(mark_s)
    while moment_s is not None and moment_s <= now_s:
        firings.append(moment_s)
        moment_s = schedule.next_after(moment_s)
    on_time = [each for each in firings if each >= now_s - ON_TIME_S]
    caught_up = [each for each in firings if now_s - window_s <= each < now_s - ON_TIME_S]
    expected = {
        CatchUp.SKIP: on_time,
        CatchUp.ONE: on_time or caught_up[-1:],
        CatchUp.ALL: caught_up + on_time,
    }

    for policy, all_of_them in expected.items():
        found = due_firings(schedule, mark_s, now_s, catch_up=policy, window_s=window_s, limit=limit)
        assert found == all_of_them[:limit]
