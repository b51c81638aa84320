"""Each invariant holds for sound evidence and turns red for every way to break it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.soak import (
    invariants_bounds,
    invariants_durable,
    invariants_flows,
    invariants_limits,
    invariants_rules,
    invariants_runs,
    invariants_state,
)
from tests.soak.dump import Stored
from tests.soak.evidence import Evidence, Verdict
from tests.soak.incidents import Window
from tests.soak.invariants import INVARIANTS, judge
from tests.soak.made_up import WORKER_A, WORKER_B, enqueued, event, evidence, flowed, ran, told

pytestmark = pytest.mark.nightly

SOUND = [*enqueued(1.0, "a", slot=7), *ran(1.2, "a"), *enqueued(2.0, "b", slot=8), *ran(2.2, "b", pid=WORKER_B)]


def test_all_hold_for_what_is_sound() -> None:
    """Fifteen of the catalogue, what faults expect, and twelve of workflows, rules and steps of tasks."""
    verdicts = judge(evidence(*SOUND, *RULED, stored=LETTERED))

    assert [verdict.failures for verdict in verdicts] == [[]] * 28
    assert sorted(verdict.number for verdict in verdicts) == list(range(28))


def test_every_invariant_is_asked_for_by_its_number() -> None:
    assert len(INVARIANTS) == len({invariant.__name__ for invariant in INVARIANTS}) == 28


def killed(t: float, pid: int = WORKER_A) -> list[dict[str, Any]]:
    return [event(t, "killed", place=f"worker-{pid - WORKER_A}", process=pid)]


def frozen(start: float, end: float, pid: int = WORKER_A) -> list[dict[str, Any]]:
    place = f"worker-{pid - WORKER_A}"
    return [event(start, "frozen", place=place, process=pid), event(end, "thawed", place=place, process=pid)]


def outage(start: float, end: float, place: str | None = None, what: str = "cut off") -> list[dict[str, Any]]:
    told = {"key": int(start * 1000), "what": what, "place": place}
    return [event(start, "outage", **told, unix=start), event(end, "outage over", **told, unix=end)]


def archived(task_id: str, retried: int = 0, places: tuple[str, ...] = ("archived",)) -> Stored:
    return Stored(id=task_id, state="archived", places=places, retried=retried)


def chained(second_at: float = 5.2, got: Any = 11, **facts: Any) -> list[dict[str, Any]]:
    """A workflow of two steps that ran."""
    return [
        *flowed(5.0, [11, [], None, "done"], [12, [11], 11, "done"], **facts),
        *ran(5.05, "w.begin", run=21, name="begin"),
        told(5.06, "step", "w.begin", run=21, slot=11, got=None),
        *ran(second_at, "w.then", run=22, pid=WORKER_B, name="then"),
        told(second_at + 0.01, "step", "w.then", run=22, pid=WORKER_B, slot=12, got=got),
    ]


def limited(name: str, *starts: float, lasts: float = 0.1, pid: int = WORKER_A, **facts: Any) -> list[dict[str, Any]]:
    """Tasks with limits or in a sequence, which were enqueued one after the other, and when they ran."""
    found = []
    for number, start in enumerate(starts):
        task_id = f"{name}-{number}"
        found += enqueued(6.0 + number / 10, task_id, name=name, **facts)
        found += ran(start, task_id, name=name, run=30 + number, lasts=lasts, pid=pid)
        found.append(told(start + 0.01, "taken", task_id, run=30 + number, pid=pid, at=1000.0 + start))
    return found


def durable(*facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a durable task in two runs. The first run ends with a wait.

    Each fact is an event, with the number of its run, 1 or 2, as `in_run`.
    """
    found = enqueued(7.0, "durable", name="durable")
    found += ran(8.0, "durable", name="durable", run=70, lasts=1.0, how="interrupted", outcome="waiting")
    found += ran(12.0, "durable", name="durable", run=71, lasts=1.0)
    for at, fact in enumerate(facts):
        run = fact.pop("in_run")
        started = 8.0 if run == 1 else 12.0
        found.append(told(started + 0.05 * (1 + at), "durable", "durable", run=69 + run, **fact))
    return found


RIGHT: tuple[dict[str, Any], ...] = (
    {"in_run": 1, "step": "ask", "ran": "a"},
    {"in_run": 1, "step": "ask", "has": "a"},
    {"in_run": 1, "sending": "s"},
    {"in_run": 1, "sent": "s"},
    {"in_run": 2, "step": "ask", "has": "a"},
    {"in_run": 2, "step": "first signal", "has": "s"},
    {"in_run": 2, "step": "second signal", "has": None},
)


def durable_with(*more: dict[str, Any], without: str = "") -> list[dict[str, Any]]:
    return durable(*(dict(each) for each in RIGHT if each.get("step") != without), *map(dict, more))


def walked(*runs: tuple[int, ...], of: int = 4) -> list[dict[str, Any]]:
    """A task that iterates in several runs, each given back by a worker that was told to end."""
    found = enqueued(7.0, "walk", name="walk", items=of)
    for number, items in enumerate(runs):
        start, is_last = 8.0 + 5 * number, number == len(runs) - 1
        how = {} if is_last else {"how": "interrupted", "outcome": "requeued"}
        pid = WORKER_B if number else WORKER_A
        found += ran(start, "walk", name="walk", run=50 + number, lasts=1.0, pid=pid, **how)
        found += [
            told(start + 0.1 * (1 + at), "item", "walk", run=50 + number, pid=pid, item=item)
            for at, item in enumerate(items)
        ]
    return found


def lettered(*letters: str) -> list[dict[str, Any]]:
    """A task that failed for good, and letters of it."""
    found = enqueued(7.0, "bad", name="poison", slot=None)
    for number, letter in enumerate(letters):
        found += ran(9.0 + number, letter, name="letter", run=60 + number)
        found.append(told(9.05 + number, "letter", letter, run=60 + number, of="bad"))
    return found


LETTERED = (archived("bad"),)
RULED = [
    *chained(),
    *limited("placed", 11.0, 11.01, 11.02, 11.2),
    *limited("rated", 12.0, 12.01, 12.2),
    *limited("ordered", 13.0, 14.0, limit_key="a"),
    *walked((0, 1), (1, 2, 3)),
    *durable_with(),
    event(8.5, "terminated", place="worker-0", process=WORKER_A, expects="short"),
    event(20.0, "exited", place="worker-0", process=WORKER_A, status=0),
    *lettered("dead:default:bad:1"),
]


Broken = Callable[[], Evidence]


def with_queue(*events: Any, **changes: Any) -> Evidence:
    found = evidence(*SOUND, *events)
    for name, value in changes.items():
        setattr(found.queues["default"], name, value)
    return found


def with_remains(**changes: Any) -> Evidence:
    found = evidence(*SOUND)
    for name, value in changes.items():
        setattr(found.remains["default"], name, value)
    return found


BROKEN: list[tuple[str, Callable[[Evidence], Verdict], Broken]] = [
    (
        "an effect of a fault is missing",
        invariants_bounds.as_expected,
        lambda: evidence(*SOUND, event(3.0, "unexpected", what="the worker settled nothing")),
    ),
    (
        "a worker that was asked to end fails",
        invariants_bounds.as_expected,
        lambda: evidence(
            *SOUND,
            event(3.0, "terminated", place="worker-0", process=WORKER_A, expects="short"),
            event(4.0, "exited", place="worker-0", process=WORKER_A, status=1),
        ),
    ),
    (
        "a hash in no structure",
        invariants_state.one_place,
        lambda: evidence(*SOUND, stored=(archived("x", places=()),)),
    ),
    (
        "a hash in two structures",
        invariants_state.one_place,
        lambda: evidence(*SOUND, stored=(archived("x", places=("archived", "retry")),)),
    ),
    (
        "an id without a hash",
        invariants_state.one_place,
        lambda: with_queue(without_task=[("gone", "retry")]),
    ),
    (
        "a lock of a task that is gone",
        invariants_state.one_place,
        lambda: with_queue(locks={"asynq:{default}:unique:x:": "gone"}),
    ),
    (
        "active without a lease, while it runs",
        invariants_state.active_is_leased,
        lambda: evidence(*SOUND, event(3.5, "leases", queue="default", active=1, pending=0, differ=["a"])),
    ),
    ("leased at rest", invariants_state.active_is_leased, lambda: with_queue(leased=["a"])),
    ("leases left at rest", invariants_state.at_rest, lambda: with_queue(leased=["a"])),
    (
        "a task still pending",
        invariants_state.at_rest,
        lambda: evidence(*SOUND, stored=(Stored(id="x", state="pending", places=("pending",)),)),
    ),
    ("an acknowledged task that never ran", invariants_state.nothing_lost, lambda: evidence(*enqueued(1.0, "x"))),
    (
        "an acknowledged task whose run never came back",
        invariants_state.nothing_lost,
        lambda: evidence(*SOUND, *enqueued(3.0, "x"), *ran(3.2, "x", run=9, lasts=None), *killed(3.5)),
    ),
    (
        "a firing is missing",
        invariants_state.nothing_lost,
        lambda: evidence(*SOUND, beats=frozenset({"tick"})),
    ),
    ("a task nobody enqueued", invariants_state.nothing_invented, lambda: evidence(*SOUND, *ran(3.0, "x", run=9))),
    (
        "a refused task that ran",
        invariants_state.nothing_invented,
        lambda: evidence(
            event(1.0, "attempt", id="x", name="quick", queue="default"),
            event(1.1, "refused", id="x"),
            *ran(2.0, "x"),
        ),
    ),
    (
        "a second run without a reason",
        invariants_runs.extra_runs,
        lambda: evidence(*enqueued(1.0, "a"), *ran(1.2, "a"), *ran(5.0, "a", pid=WORKER_B, attempt=2)),
    ),
    (
        "a second run after an outage too short to take a lease",
        invariants_runs.extra_runs,
        lambda: evidence(
            *enqueued(1.0, "a"), *ran(1.2, "a"), *outage(1.5, 3.0, "worker-0"), *ran(5.0, "a", pid=WORKER_B, attempt=2)
        ),
    ),
    (
        "a second run of a task whose own worker came to no harm",
        invariants_runs.extra_runs,
        lambda: evidence(
            *enqueued(1.0, "a"),
            *ran(1.2, "a", lasts=None),
            *frozen(1.5, 30.0, WORKER_B),
            *ran(15.0, "a", pid=WORKER_B, attempt=2),
        ),
    ),
    (
        "a short task given back by a worker that had time",
        invariants_runs.extra_runs,
        lambda: evidence(
            *enqueued(1.0, "a"),
            *ran(1.2, "a", lasts=0.5, how="interrupted", outcome="requeued"),
            event(1.3, "terminated", place="worker-0", process=WORKER_A, expects="short"),
            event(2.0, "exited", place="worker-0", process=WORKER_A, status=0),
            *ran(2.5, "a", pid=WORKER_B),
        ),
    ),
    (
        "more extra runs than faults allow",
        invariants_runs.extra_runs,
        lambda: evidence(
            *[each for n in range(9) for each in enqueued(1.0, f"t{n}")],
            *[each for n in range(9) for each in ran(1.2, f"t{n}", run=n, lasts=None)],
            *killed(1.5),
            *[each for n in range(9) for each in ran(12.0, f"t{n}", run=n, pid=WORKER_B, attempt=2)],
        ),
    ),
    (
        "an owner is told that it lost its task, and nobody has taken it",
        invariants_runs.owners_only,
        lambda: evidence(
            *enqueued(1.0, "a"),
            *ran(1.2, "a", lasts=12.0),
            *frozen(1.5, 13.0),
            *ran(11.0, "a", pid=WORKER_B, attempt=2, lasts=3.0, outcome="lost"),
        ),
    ),
    (
        "more runs than retries allow",
        invariants_runs.bounded_runs,
        lambda: evidence(
            *enqueued(1.0, "a", name="poison"),
            *[each for n in range(3) for each in ran(2.0 + n, "a", run=n, name="poison", attempt=n + 1)],
        ),
    ),
    (
        "a hopeless task that was not archived",
        invariants_runs.bounded_runs,
        lambda: evidence(*enqueued(1.0, "a", name="poison", hopeless=True), *ran(2.0, "a", name="poison")),
    ),
    (
        "more at a time than the concurrency",
        invariants_runs.bounded_concurrency,
        lambda: evidence(
            *[each for n in range(9) for each in enqueued(1.0, f"t{n}")],
            *[each for n in range(9) for each in ran(2.0, f"t{n}", run=n, lasts=1.0)],
        ),
    ),
    (
        "two of a unique key at a time",
        invariants_runs.bounded_concurrency,
        lambda: evidence(
            *enqueued(1.0, "a"),
            *enqueued(1.0, "b"),
            *ran(2.0, "a", lasts=1.0, key="k"),
            *ran(2.5, "b", pid=WORKER_B, key="k"),
        ),
    ),
    ("a success counted twice", invariants_state.counters_agree, lambda: evidence(*SOUND, processed=3)),
    ("a failure not counted", invariants_state.counters_agree, lambda: evidence(stored=(archived("x", 1),), failed=1)),
    (
        "a recovery that took too long",
        invariants_bounds.bounded_recovery,
        lambda: evidence(
            *enqueued(1.0, "a"),
            *ran(1.2, "a", lasts=None),
            *killed(2.0),
            event(14.0, "recovered", id="a", pid=WORKER_B, who="worker-1"),
            *ran(15.0, "a", pid=WORKER_B, attempt=2),
        ),
    ),
    (
        "a task that nobody lost is taken back",
        invariants_bounds.bounded_recovery,
        lambda: evidence(
            *enqueued(1.0, "a"),
            event(14.0, "recovered", id="a", pid=WORKER_B, who="worker-1"),
            *ran(15.0, "a", pid=WORKER_B, attempt=2),
        ),
    ),
    (
        "a call that kept Redis",
        invariants_bounds.flat_and_quick,
        lambda: evidence(*SOUND, event(5.0, "slow call", what="EVALSHA x", seconds=0.08, unix=100.0, server=0)),
    ),
    (
        "threads that pile up",
        invariants_bounds.flat_and_quick,
        lambda: evidence(
            *SOUND, event(50.0, "resources", process=WORKER_A, place="worker-0", threads=40, files=30, rss_kib=50_000)
        ),
    ),
    (
        "descriptors that pile up",
        invariants_bounds.flat_and_quick,
        lambda: evidence(
            *SOUND, event(50.0, "resources", process=WORKER_A, place="worker-0", threads=9, files=300, rss_kib=50_000)
        ),
    ),
    (
        "memory that grows",
        invariants_bounds.flat_and_quick,
        lambda: evidence(
            *SOUND, event(59.5, "resources", process=WORKER_A, place="worker-0", threads=9, files=30, rss_kib=150_000)
        ),
    ),
    (
        "a payload in a log",
        invariants_state.no_canary,
        lambda: evidence(*SOUND, canaries=["worker-0.log"]),
    ),
    ("an effect that is missing", invariants_state.effects_add_up, lambda: evidence(*SOUND, effects={7: 1})),
    (
        "an effect of a task that never ran",
        invariants_state.effects_add_up,
        lambda: evidence(*enqueued(1.0, "x", slot=9), effects={9: 5}),
    ),
    (
        "a result that is not kept",
        invariants_state.effects_add_up,
        lambda: evidence(*enqueued(1.0, "x", slot=9, kept=True), *ran(2.0, "x")),
    ),
    (
        "a result of another task",
        invariants_state.effects_add_up,
        lambda: evidence(
            *enqueued(1.0, "x", slot=9, kept=True),
            *ran(2.0, "x"),
            stored=(Stored(id="x", state="completed", places=("completed",), result=b"8"),),
        ),
    ),
    (
        "a workflow that does not end",
        invariants_flows.flows_end,
        lambda: evidence(*chained(), workflows={"w": "running"}),
    ),
    (
        "a workflow that ends otherwise",
        invariants_flows.flows_end,
        lambda: evidence(*chained(), workflows={"w": "failed"}),
    ),
    ("a workflow that is gone", invariants_flows.flows_end, lambda: evidence(*chained(), workflows={})),
    (
        "a step that is lost",
        invariants_flows.flows_end,
        lambda: evidence(*[each for each in chained() if each.get("id") != "w.then"]),
    ),
    (
        "a step that had to be skipped",
        invariants_flows.flows_end,
        lambda: evidence(*chained(), *flowed(5.0, [12, [], None, "skipped"], workflow="w")),
    ),
    (
        "a step of a workflow that was refused",
        invariants_state.nothing_invented,
        lambda: evidence(*chained(answer="refused")),
    ),
    ("a step before its predecessor", invariants_flows.steps_follow, lambda: evidence(*chained(second_at=5.1))),
    ("a step with another result", invariants_flows.steps_follow, lambda: evidence(*chained(got=7))),
    (
        "more at once than there are places",
        invariants_limits.places_held,
        lambda: evidence(*limited("placed", 11.0, 11.01, 11.02, 11.05)),
    ),
    (
        "two of a key at once",
        invariants_limits.places_held,
        lambda: evidence(*limited("placed_by", 11.0, 11.05, limit_key="a")),
    ),
    (
        "more in a span of time than a bucket holds",
        invariants_limits.rates_kept,
        lambda: evidence(*limited("rated", 12.0, 12.01, 12.1)),
    ),
    (
        "more in a period than a window takes",
        invariants_limits.rates_kept,
        lambda: evidence(*limited("rated_by", 12.1, 12.5, 13.1, 13.9, limit_key="a")),
    ),
    (
        "two of a sequence at once",
        invariants_limits.sequences_in_order,
        lambda: evidence(*limited("ordered", 13.0, 13.05, limit_key="a")),
    ),
    (
        "a sequence out of order",
        invariants_limits.sequences_in_order,
        lambda: evidence(*limited("ordered", 14.0, 13.0, limit_key="a")),
    ),
    (
        "a second task of a key that is held",
        invariants_rules.one_of_each_key,
        lambda: evidence(*limited("only", 11.0, 12.0, key="a")),
    ),
    (
        "a second task of a key that counts for good",
        invariants_rules.one_of_each_key,
        lambda: evidence(*limited("once", 6.05, 12.0, key="a")),
    ),
    ("an item left out", invariants_rules.iterations_go_on, lambda: evidence(*walked((0, 1), (3,)))),
    ("two items doubled", invariants_rules.iterations_go_on, lambda: evidence(*walked((0, 1, 2), (1, 2, 3)))),
    ("an iteration that ends too soon", invariants_rules.iterations_go_on, lambda: evidence(*walked((0, 1, 2)))),
    (
        "a step that ran after its result was stored",
        invariants_durable.steps_and_signals,
        lambda: evidence(*durable_with({"in_run": 2, "step": "ask", "ran": "b"})),
    ),
    (
        "another result",
        invariants_durable.steps_and_signals,
        lambda: evidence(*durable_with({"in_run": 2, "step": "ask", "has": "b"})),
    ),
    (
        "a signal that arrived twice",
        invariants_durable.steps_and_signals,
        lambda: evidence(*durable_with({"in_run": 2, "step": "second signal", "has": "s"}, without="second signal")),
    ),
    (
        "a signal that nobody sent",
        invariants_durable.steps_and_signals,
        lambda: evidence(*durable_with({"in_run": 2, "step": "second signal", "has": "x"}, without="second signal")),
    ),
    (
        "a signal that was lost",
        invariants_durable.steps_and_signals,
        lambda: evidence(*durable_with({"in_run": 2, "step": "first signal", "has": None}, without="first signal")),
    ),
    ("no letter", invariants_rules.one_letter_each, lambda: evidence(*lettered(), stored=LETTERED)),
    ("two letters", invariants_rules.one_letter_each, lambda: evidence(*lettered("x", "y"), stored=LETTERED)),
    ("a letter of what is not archived", invariants_rules.one_letter_each, lambda: evidence(*lettered("x"))),
    (
        "a start after the expiry",
        invariants_rules.in_time,
        lambda: evidence(*limited("late", 11.0, expires=3)),
    ),
    (
        "one of a lower band first",
        invariants_limits.urgent_first,
        lambda: evidence(
            *limited("ranked", 15.0, priority=0),
            *enqueued(9.0, "u", name="ranked", priority=9),
            *ran(16.0, "u", run=2, name="ranked"),
            told(16.01, "taken", "u", run=2, at=1016.0),
        ),
    ),
    (
        "a step that nobody was told of",
        invariants_rules.nothing_left_over,
        lambda: with_remains(left={"wf-steps": ["x"]}),
    ),
    ("a place that is held", invariants_rules.nothing_left_over, lambda: with_remains(holders={"c:placed:": ["x"]})),
    ("one that waits for a place", invariants_rules.nothing_left_over, lambda: with_remains(waiting={"s:a:": ["x"]})),
    ("tokens that are kept", invariants_rules.nothing_left_over, lambda: with_remains(held={"r:rated:": 1.0})),
    ("keys of a workflow that is gone", invariants_rules.nothing_left_over, lambda: with_remains(workflows={"w"})),
    ("a workflow that is overdue", invariants_rules.nothing_left_over, lambda: with_remains(kept={"w": -99.0})),
    ("a lock beyond its rule", invariants_rules.nothing_left_over, lambda: with_remains(locks_of_ended=[("l", "x")])),
    ("a key that nobody knows", invariants_rules.nothing_left_over, lambda: with_remains(odd=["what:x"])),
    (
        "health that is green all through an outage",
        invariants_bounds.truthful_health,
        lambda: evidence(*SOUND, *outage(10.0, 22.0, "worker-0")),
    ),
]


@pytest.mark.parametrize(
    ("invariant", "broken"), [(each[1], each[2]) for each in BROKEN], ids=[each[0] for each in BROKEN]
)
def test_it_turns_red(invariant: Callable[[Evidence], Verdict], broken: Broken) -> None:
    assert not invariant(broken()).holds


def test_each_invariant_can_turn_red() -> None:
    """None is left out above."""
    assert {invariant for _, invariant, _ in BROKEN} == set(INVARIANTS)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_health_that_stays_red_after_an_outage_is_told(is_damaged: bool) -> None:
    """A queue that was damaged meanwhile may be red for that."""
    harm = [event(9.5, "damaged", id="x", how="pending retyped", survives=True)] if is_damaged else []
    found = evidence(*SOUND, *outage(10.0, 22.0, "worker-0"), *harm)
    for sample in found.history.events:
        if sample["event"] == "health" and sample["process"] == WORKER_A and sample["t"] > 11:
            sample["status"] = 503

    failures = invariants_bounds.truthful_health(found).failures
    assert [each for each in failures if "not well again" in each] == failures
    assert bool(failures) is not is_damaged


def test_health_that_tells_the_truth_holds() -> None:
    found = evidence(*SOUND, *outage(10.0, 22.0, "worker-0"))
    for sample in found.history.events:
        if sample["event"] == "health" and sample["process"] == WORKER_A and 13 < sample["t"] < 25:
            sample["status"] = 503

    assert invariants_bounds.truthful_health(found).holds


@pytest.mark.parametrize(
    ("incident", "how"),
    [
        (killed(2.0), {"lasts": None}),
        (frozen(2.0, 14.0), {"lasts": 13.0, "outcome": "lost"}),
        (outage(2.0, 14.0, "worker-0"), {"lasts": 13.0, "outcome": "lost"}),
        (outage(2.0, 14.0), {"lasts": 13.0, "outcome": "lost"}),
        (
            [
                event(2.0, "terminated", place="worker-0", process=WORKER_A, expects="long"),
                event(5.0, "exited", place="worker-0", process=WORKER_A, status=0),
            ],
            {"lasts": 3.0, "how": "interrupted", "outcome": "requeued"},
        ),
    ],
    ids=["killed", "frozen", "cut off", "Redis away", "told to end"],
)
def test_what_a_fault_explains_is_allowed(incident: list[dict[str, Any]], how: dict[str, Any]) -> None:
    """Used is counted, allowed is the concurrency, and the invariants about runs hold."""
    found = evidence(
        *enqueued(1.0, "a", name="long"),
        *ran(1.2, "a", name="long", **how),
        *incident,
        *ran(11.0, "a", pid=WORKER_B, attempt=2, name="long"),
    )

    verdict = invariants_runs.extra_runs(found)
    assert (verdict.failures, verdict.figures["used"]) == ([], 1)
    assert int(verdict.figures["allowed"]) >= 8
    assert invariants_runs.owners_only(found).holds


@pytest.mark.parametrize("is_told_safe", [False, True])
def test_a_failover_may_forget_a_task_only_if_nobody_was_told_that_it_is_safe(is_told_safe: bool) -> None:
    sent = enqueued(1.0, "a")
    found = evidence(
        *(sent if is_told_safe else [sent[0], event(3.0, "unknown", id="a")]),
        *ran(1.2, "a", lasts=0.5, outcome="lost"),
        event(1.1, "failover", key=1, what="a planned failover"),
        event(4.0, "failover over", key=1, what="a planned failover"),
    )

    assert invariants_runs.owners_only(found).holds is not is_told_safe


def test_a_failure_of_the_function_itself_is_no_extra_run() -> None:
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", how="raised", outcome="retried"),
        *ran(3.0, "a", pid=WORKER_B, attempt=2),
    )

    assert invariants_runs.extra_runs(found).figures["used"] == 0


def test_recoveries_are_measured_from_the_moment_a_worker_went_silent() -> None:
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", lasts=None),
        *killed(2.0),
        event(9.5, "recovered", id="a", pid=WORKER_B, who="worker-1"),
        *ran(10.0, "a", pid=WORKER_B, attempt=2),
    )

    verdict = invariants_bounds.bounded_recovery(found)

    assert verdict.holds
    assert (verdict.figures["recoveries"], verdict.figures["max s"]) == (1, 7.5)


@pytest.mark.parametrize(
    ("times", "dies", "back", "took_s", "holds"),
    [
        ([(2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], 8.5, 17.0, 8.5, True),  # in touch in between, until it died
        ([(2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], 8.5, 19.0, 10.5, False),
        ([(2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], None, 15.0, 9.0, True),
        ([(2.0, 10.5)], 12.0, 12.3, 10.3, False),  # so long that others might take it: its end is no excuse
        ([(2.0, 8.0)], 9.0, 17.0, 8.0, True),
        ([(2.0, 8.0)], None, 12.3, 10.3, False),
    ],
)
def test_recoveries_are_measured_from_the_last_moment_in_touch(
    times: list[tuple[float, float]], dies: float | None, back: float, took_s: float, holds: bool
) -> None:
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", lasts=None),
        *(each for start, end in times for each in outage(start, end, "worker-0")),
        *(killed(dies) if dies else ()),
        event(back, "recovered", id="a", pid=WORKER_B, who="worker-1"),
        *ran(back + 0.1, "a", pid=WORKER_B, attempt=2),
    )

    verdict = invariants_bounds.bounded_recovery(found)

    assert verdict.figures["max s"] == took_s
    assert verdict.holds == holds


def test_a_task_lost_again_before_it_ran_is_measured_once() -> None:
    """When the second worker died is not known from the task's own history."""
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", lasts=None),
        *killed(2.0),
        event(9.5, "recovered", id="a", pid=WORKER_B, who="worker-1"),
        event(18.5, "recovered", id="a", pid=WORKER_B, who="worker-1"),
    )

    assert invariants_bounds.bounded_recovery(found).figures["recoveries"] == 1


def test_an_outage_of_redis_does_not_count_as_recovery() -> None:
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", lasts=None),
        *killed(2.0),
        *outage(4.0, 16.0),
        event(20.0, "recovered", id="a", pid=WORKER_B, who="worker-1"),
    )

    assert invariants_bounds.bounded_recovery(found).figures["max s"] == 6.0


def test_what_redis_waited_for_a_processor_is_not_the_calls() -> None:
    found = evidence(
        *SOUND,
        event(5.0, "slow call", what="EVALSHA x", seconds=0.08, unix=100.0, server=0),
        event(5.1, "redis waited", seconds=0.06, since=100.2, unix=100.4, server=0),
    )

    verdict = invariants_bounds.flat_and_quick(found)

    assert verdict.holds
    assert verdict.figures["longest call ms"] == 80.0


def test_what_redis_waited_counts_for_a_call_however_late_it_is_noted() -> None:
    """Who notes it waits for a processor as well."""
    call = event(5.0, "slow call", what="EVALSHA x", seconds=0.08, unix=100.0, server=0)
    noted = event(8.0, "redis waited", seconds=0.06, since=99.9, unix=103.0, server=0)
    before = event(4.0, "redis waited", seconds=0.06, since=98.0, unix=99.0, server=0)

    assert invariants_bounds.flat_and_quick(evidence(*SOUND, call, noted)).holds
    assert not invariants_bounds.flat_and_quick(evidence(*SOUND, call, before)).holds


def test_what_a_worker_gave_back_because_it_came_too_late_is_next() -> None:
    """It stands in front of the urgent ones."""
    found = [
        *limited("ranked", 15.0, priority=0),
        *enqueued(9.0, "u", name="ranked", priority=9),
        *ran(16.0, "u", run=2, name="ranked"),
        told(16.01, "taken", "u", run=2, at=1016.0),
    ]

    assert invariants_limits.urgent_first(evidence(*found, told(14.0, "given back", "ranked-0"))).holds
    assert not invariants_limits.urgent_first(evidence(*found)).holds


def test_a_call_is_not_slow_because_the_machine_stood_still() -> None:
    found = evidence(*SOUND, event(25.0, "slow call", what="EVALSHA x", seconds=4.0, unix=1022.0, server=0))
    found.incidents.stalls.append(Window(20.0, 24.0))

    assert invariants_bounds.flat_and_quick(found).holds


def test_a_firing_of_which_no_scheduler_knows_that_it_arrived_may_run() -> None:
    """Its answer was lost, and then the schedulers were stopped, or it came before the first that is known."""
    ticked = ran(3.0, "tick", run=9, name="beat")

    assert invariants_state.nothing_invented(evidence(*ticked, possible_beats=frozenset({"tick"}))).holds
    assert not invariants_state.nothing_invented(evidence(*ticked)).holds


@pytest.mark.parametrize("is_away", [True, False])
def test_a_short_task_goes_back_only_if_redis_was_away_after_its_worker_was_told_to_end(is_away: bool) -> None:
    """The worker had asked for it just before, and got it when there was no time left."""
    found = evidence(
        *enqueued(1.0, "a", name="slow"),
        event(2.0, "terminated", place="worker-0", process=WORKER_A, expects="short"),
        *(outage(1.9, 4.8) if is_away else []),
        *ran(4.8, "a", name="slow", lasts=0.2, how="interrupted", outcome="requeued"),
        event(5.3, "exited", place="worker-0", process=WORKER_A, status=0),
        *ran(6.0, "a", pid=WORKER_B, name="slow"),
    )

    assert invariants_runs.extra_runs(found).holds is is_away


def exited(status: int, *, is_asked: bool = False) -> list[dict[str, Any]]:
    told = {"place": "worker-0", "process": WORKER_A}
    asked = [event(30.0, "terminated", **told, expects="short")] if is_asked else []
    return [*asked, event(30.5, "exited", **told, status=status)]


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked to end", "not asked"])
def test_a_worker_may_exit_with_the_status_of_a_task_that_takes_it_along(is_asked: bool) -> None:
    poison = [*enqueued(30.0, "p", name="poison"), *ran(30.2, "p", name="poison", lasts=None)]

    assert invariants_bounds.as_expected(evidence(*poison, *exited(-6, is_asked=is_asked))).holds
    assert not invariants_bounds.as_expected(evidence(*poison, *exited(1, is_asked=is_asked))).holds
    assert not invariants_bounds.as_expected(evidence(*exited(-6, is_asked=is_asked))).holds


def test_a_worker_that_does_not_reach_redis_when_it_starts_may_exit() -> None:
    assert invariants_bounds.as_expected(evidence(*outage(20.0, 35.0), *exited(1))).holds
    assert not invariants_bounds.as_expected(evidence(*exited(1))).holds


def test_a_worker_that_was_never_ready_need_not_tell_its_health() -> None:
    """It was starting when the outage began."""
    found = evidence(*SOUND, *outage(10.0, 22.0, "worker-0"))
    asked = [each for each in found.history.events if each["event"] == "health" and each["process"] == WORKER_A]
    for sample in asked:
        if sample["asked"] < 22.5:
            sample["process"] = WORKER_B

    assert invariants_bounds.truthful_health(found).holds


def test_health_of_a_worker_that_started_in_an_outage_is_not_asked_for_all_of_it() -> None:
    """It stands in for one that was told to end meanwhile, and saw a moment of it."""
    found = evidence(*SOUND, *outage(10.0, 22.0, "worker-0"))
    for process in found.incidents.workers:
        if process.pid == WORKER_A:
            process.started = 21.9

    assert invariants_bounds.truthful_health(found).holds
