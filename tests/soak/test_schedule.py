"""The plan of a soak: the same seed gives the same, every fault has a place, none is squeezed in."""

import pytest

from tests.soak.faults import FAULTS, NAMES
from tests.soak.profiles import CI_FAULTS, PROFILES
from tests.soak.schedule import PlanError, plan

CI = PROFILES["ci"]


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(CI, 5) == plan(CI, 5)
    assert plan(CI, 5) != plan(CI, 6)


def test_every_fault_comes_at_least_once_and_the_load_outlasts_all() -> None:
    for seed in range(500):
        made = plan(CI, seed)

        assert {fault.number for fault in made.faults} == set(CI_FAULTS)
        assert made.faults[0].start_s >= CI.warm_up_s
        assert all(fault.start_s + fault.lasts_s + CI.calm_s <= made.load_s for fault in made.faults)


def test_at_most_two_faults_overlap() -> None:
    for seed in range(50):
        faults = plan(CI, seed).faults
        for fault in faults:
            beside = [each for each in faults if each.start_s <= fault.start_s <= each.start_s + each.lasts_s]
            assert len(beside) <= 2


def test_leaving_a_fault_out_changes_no_other() -> None:
    whole, part = plan(CI, 5), plan(CI, 5, without=[3])

    assert part.faults == tuple(fault for fault in whole.faults if fault.number != 3)


def test_only_plans_what_is_asked_for() -> None:
    assert {fault.number for fault in plan(CI, 5, only=[1, 3], minutes=2).faults} == {1, 3}


def test_too_little_time_is_refused() -> None:
    with pytest.raises(PlanError, match=r"faults \[.*\] have no place; give more --minutes"):
        plan(CI, 5, minutes=1.2)


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(PlanError, match="profile 'ci' has no fault 99"):
        plan(CI, 5, only=[99])


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_fault_of_a_profile_can_be_injected(name: str) -> None:
    assert set(PROFILES[name].faults) <= FAULTS.keys()


def test_every_fault_has_a_name() -> None:
    assert NAMES.keys() == FAULTS.keys()
