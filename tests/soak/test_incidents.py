"""What was done, read from the ledger: who could not reach Redis for how long."""

from tests.soak.incidents import Window, merged, read_incidents
from tests.soak.made_up import PROFILE, WORKER_A, WORKER_B, began, event, ran

LEASES = PROFILE.leases


def test_windows_that_nearly_touch_are_one() -> None:
    found = merged([Window(10.0, 12.0, "b"), Window(1.0, 4.0, "a"), Window(5.0, 6.0, "c")], 1.5)

    assert found == [Window(1.0, 6.0, "a, c"), Window(10.0, 12.0, "b")]


def test_two_short_outages_in_a_row_take_a_lease() -> None:
    """Alone neither does."""
    told = [
        event(5.0, "outage", key=1, what="redis frozen", place=None),
        event(8.0, "outage over", key=1, what="redis frozen", place=None),
        event(8.5, "outage", key=2, what="cut off", place="worker-0"),
        event(11.5, "outage over", key=2, what="cut off", place="worker-0"),
    ]

    found = read_incidents(sorted([*began(), *told], key=lambda each: each["t"]), LEASES)

    assert found.takes_task(WORKER_A, 4.0, 20.0, LEASES) == "redis frozen, cut off"
    assert found.takes_task(WORKER_B, 4.0, 20.0, LEASES) == ""


def test_a_process_that_is_killed_while_frozen_stays_gone() -> None:
    told = [
        event(5.0, "frozen", place="worker-0", process=WORKER_A),
        event(7.0, "killed", place="worker-0", process=WORKER_A),
    ]

    found = read_incidents(sorted([*began(), *told], key=lambda each: each["t"]), LEASES)

    process = found.processes[WORKER_A]
    assert (process.died, process.ended, process.frozen) == (True, 7.0, [Window(5.0, 7.0, "it was frozen")])


def test_a_process_that_ends_by_itself_with_a_status_has_died() -> None:
    found = read_incidents([*began(), event(9.0, "exited", place="worker-0", process=WORKER_A, status=-6)], LEASES)

    assert found.processes[WORKER_A].died
    assert found.allowance(LEASES, 8) == 8


def test_what_is_not_healed_lasts_until_the_end() -> None:
    told = [event(5.0, "outage", key=1, what="cut off", place="worker-0"), event(59.0, "fault over")]

    found = read_incidents(sorted([*began(), *told], key=lambda each: each["t"]), LEASES)

    assert found.processes[WORKER_A].blocked == [Window(5.0, 59.0, "cut off")]


def test_a_task_damaged_twice_survives_only_if_it_survives_both() -> None:
    told = [
        event(5.0, "damaged", id="a", how="listed twice", survives=True),
        event(6.0, "damaged", id="a", how="hash deleted", survives=False),
    ]

    assert read_incidents([*began(), *told], LEASES).damaged == {"a": False}


def test_a_failover_forgets_what_happened_just_before_it_and_until_it_is_over() -> None:
    told = [
        event(20.0, "failover", key=1, what="the primary was killed"),
        event(23.0, "failover over", key=1, what="the primary was killed"),
    ]

    found = read_incidents([*began(), *told], LEASES)

    assert found.forgets(19.0, 19.2) == "the primary was killed"
    assert found.forgets(21.0, 22.0) == "the primary was killed"
    assert (found.forgets(17.0, 18.5), found.forgets(23.5, 24.0)) == ("", "")


def test_when_nobody_wrote_a_line_the_machine_stood_still() -> None:
    told = [each for each in began() if not 20.5 < each["t"] < 36.5]

    found = read_incidents(told, LEASES)

    assert [(stall.start, stall.end) for stall in found.stalls] == [(20, 37)]
    assert found.takes_task(WORKER_A, 19.0, 38.0, LEASES) == "the machine stood still"


def test_a_blocked_event_loop_is_an_outage_of_its_worker() -> None:
    found = read_incidents(
        sorted([*began(), *ran(20.0, "a", name="blocking", lasts=8.0)], key=lambda each: each["t"]), LEASES
    )

    assert found.takes_task(WORKER_A, 19.0, 29.0, LEASES) == "its event loop was blocked"
    assert found.takes_task(WORKER_B, 19.0, 29.0, LEASES) == ""
