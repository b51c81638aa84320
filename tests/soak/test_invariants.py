"""Test each invariant with artificial evidence: it holds without an error, and fails for each kind of violation."""

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
from tests.soak.invariants import INVARIANTS, check_invariants
from tests.soak.made_up import WORKER_A, WORKER_B, enqueued, enqueued_workflow, event, evidence, ran, run_event

pytestmark = pytest.mark.nightly

HEALTHY = [*enqueued(1.0, "a", slot=7), *ran(1.2, "a"), *enqueued(2.0, "b", slot=8), *ran(2.2, "b", pid=WORKER_B)]


def test_all_invariants_hold_without_an_error() -> None:
    verdicts = check_invariants(evidence(*HEALTHY, *RULED, stored=LETTERED))

    assert [verdict.failures for verdict in verdicts] == [[]] * 28
    assert sorted(verdict.number for verdict in verdicts) == list(range(28))


def test_no_invariant_is_listed_twice() -> None:
    assert len(INVARIANTS) == len({invariant.__name__ for invariant in INVARIANTS}) == 28


def killed(t: float, pid: int = WORKER_A) -> list[dict[str, Any]]:
    return [event(t, "killed", place=f"worker-{pid - WORKER_A}", process=pid)]


def frozen(start: float, end: float, pid: int = WORKER_A) -> list[dict[str, Any]]:
    place = f"worker-{pid - WORKER_A}"
    return [event(start, "frozen", place=place, process=pid), event(end, "thawed", place=place, process=pid)]


def outage(start: float, end: float, place: str | None = None, what: str = "cut off") -> list[dict[str, Any]]:
    common = {"key": int(start * 1000), "what": what, "place": place}
    return [event(start, "outage", **common, unix=start), event(end, "outage over", **common, unix=end)]


def archived(task_id: str, retried: int = 0, places: tuple[str, ...] = ("archived",)) -> Stored:
    return Stored(id=task_id, state="archived", places=places, retried=retried)


def chained(second_at: float = 5.2, got: Any = 11, **facts: Any) -> list[dict[str, Any]]:
    """Return the events of a workflow with two steps that ran."""
    return [
        *enqueued_workflow(5.0, [11, [], None, "done"], [12, [11], 11, "done"], **facts),
        *ran(5.05, "w.begin", run=21, name="begin"),
        run_event(5.06, "step", "w.begin", run=21, slot=11, got=None),
        *ran(second_at, "w.then", run=22, pid=WORKER_B, name="then"),
        run_event(second_at + 0.01, "step", "w.then", run=22, pid=WORKER_B, slot=12, got=got),
    ]


def limited(name: str, *starts: float, lasts: float = 0.1, pid: int = WORKER_A, **facts: Any) -> list[dict[str, Any]]:
    """Return the events of tasks that were enqueued one after the other and ran at these times."""
    found = []
    for number, start in enumerate(starts):
        task_id = f"{name}-{number}"
        found += enqueued(6.0 + number / 10, task_id, name=name, **facts)
        found += ran(start, task_id, name=name, run=30 + number, lasts=lasts, pid=pid)
        found.append(run_event(start + 0.01, "taken", task_id, run=30 + number, pid=pid, at=1000.0 + start))
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
        found.append(run_event(started + 0.05 * (1 + at), "durable", "durable", run=69 + run, **fact))
    return found


DURABLE_EVENTS: tuple[dict[str, Any], ...] = (
    {"in_run": 1, "step": "ask", "ran": "a"},
    {"in_run": 1, "step": "ask", "has": "a"},
    {"in_run": 1, "sending": "s"},
    {"in_run": 1, "sent": "s"},
    {"in_run": 2, "step": "ask", "has": "a"},
    {"in_run": 2, "step": "first signal", "has": "s"},
    {"in_run": 2, "step": "parts", "has": [1, 2]},
    {"in_run": 2, "step": "second signal", "has": None},
    {"in_run": 1, "answering": "y"},
    {"in_run": 1, "answered": "y"},
    {"in_run": 2, "step": "answer", "has": "y"},
)


def durable_with(*more: dict[str, Any], without: str = "") -> list[dict[str, Any]]:
    facts = [dict(each) for each in (*DURABLE_EVENTS, *more) if each in more or each.get("step") != without]
    return [*durable(*facts), *part("part-1", 10.0), *part("part-2", 10.5)]


def part(task_id: str, at: float) -> list[dict[str, Any]]:
    """Return the events of a run of a sub-task of the durable task."""
    return [
        *ran(at, task_id, name="part", run=72, lasts=0.2),
        run_event(at + 0.1, "part", task_id, run=72, of="durable", number=1),
    ]


def iterated(*runs: tuple[int, ...], of: int = 4) -> list[dict[str, Any]]:
    """Return the events of an iterating task. SIGTERM to its worker ended each run but the last."""
    found = enqueued(7.0, "walk", name="walk", items=of)
    for number, items in enumerate(runs):
        start, is_last = 8.0 + 5 * number, number == len(runs) - 1
        how = {} if is_last else {"how": "interrupted", "outcome": "requeued"}
        pid = WORKER_B if number else WORKER_A
        found += ran(start, "walk", name="walk", run=50 + number, lasts=1.0, pid=pid, **how)
        found += [
            run_event(start + 0.1 * (1 + at), "item", "walk", run=50 + number, pid=pid, item=item)
            for at, item in enumerate(items)
        ]
    return found


def dead_lettered(*letters: str) -> list[dict[str, Any]]:
    """Return the events of a task that failed for good, and of its dead-letter tasks."""
    found = enqueued(7.0, "bad", name="poison", slot=None)
    for number, letter in enumerate(letters):
        found += ran(9.0 + number, letter, name="letter", run=60 + number)
        found.append(run_event(9.05 + number, "letter", letter, run=60 + number, of="bad"))
    return found


LETTERED = (archived("bad"),)
RULED = [
    *chained(),
    *limited("placed", 11.0, 11.01, 11.02, 11.2),
    *limited("rated", 12.0, 12.01, 12.2),
    *limited("ordered", 13.0, 14.0, limit_key="a"),
    *iterated((0, 1), (1, 2, 3)),
    *durable_with(),
    event(8.5, "terminated", place="worker-0", process=WORKER_A, expects="short"),
    event(20.0, "exited", place="worker-0", process=WORKER_A, status=0),
    *dead_lettered("dead:default:bad:1"),
]


Broken = Callable[[], Evidence]


def with_queue(*events: Any, **changes: Any) -> Evidence:
    found = evidence(*HEALTHY, *events)
    for name, value in changes.items():
        setattr(found.queues["default"], name, value)
    return found


def with_remains(**changes: Any) -> Evidence:
    found = evidence(*HEALTHY)
    for name, value in changes.items():
        setattr(found.remains["default"], name, value)
    return found


BROKEN: list[tuple[str, Callable[[Evidence], Verdict], Broken]] = [
    (
        "an effect of a fault is missing",
        invariants_bounds.as_expected,
        lambda: evidence(*HEALTHY, event(3.0, "unexpected", what="the worker settled nothing")),
    ),
    (
        "a worker that fails after SIGTERM",
        invariants_bounds.as_expected,
        lambda: evidence(
            *HEALTHY,
            event(3.0, "terminated", place="worker-0", process=WORKER_A, expects="short"),
            event(4.0, "exited", place="worker-0", process=WORKER_A, status=1),
        ),
    ),
    (
        "a hash in no structure",
        invariants_state.one_place,
        lambda: evidence(*HEALTHY, stored=(archived("x", places=()),)),
    ),
    (
        "a hash in two structures",
        invariants_state.one_place,
        lambda: evidence(*HEALTHY, stored=(archived("x", places=("archived", "retry")),)),
    ),
    (
        "an id without a hash",
        invariants_state.one_place,
        lambda: with_queue(without_task=[("gone", "retry")]),
    ),
    (
        "a lock of a deleted task",
        invariants_state.one_place,
        lambda: with_queue(locks={"asynq:{default}:unique:x:": "gone"}),
    ),
    (
        "active without a lease, while it runs",
        invariants_state.active_is_leased,
        lambda: evidence(*HEALTHY, event(3.5, "leases", queue="default", active=1, pending=0, differ=["a"])),
    ),
    ("leased at rest", invariants_state.active_is_leased, lambda: with_queue(leased=["a"])),
    ("leases left at rest", invariants_state.at_rest, lambda: with_queue(leased=["a"])),
    (
        "a task still pending",
        invariants_state.at_rest,
        lambda: evidence(*HEALTHY, stored=(Stored(id="x", state="pending", places=("pending",)),)),
    ),
    ("an acknowledged task that never ran", invariants_state.nothing_lost, lambda: evidence(*enqueued(1.0, "x"))),
    (
        "an acknowledged task whose run never ended",
        invariants_state.nothing_lost,
        lambda: evidence(*HEALTHY, *enqueued(3.0, "x"), *ran(3.2, "x", run=9, lasts=None), *killed(3.5)),
    ),
    (
        "a firing is missing",
        invariants_state.nothing_lost,
        lambda: evidence(*HEALTHY, beats=frozenset({"tick"})),
    ),
    (
        "a task that was not enqueued",
        invariants_state.nothing_invented,
        lambda: evidence(*HEALTHY, *ran(3.0, "x", run=9)),
    ),
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
        "a second run of a task although only another worker was frozen",
        invariants_runs.extra_runs,
        lambda: evidence(
            *enqueued(1.0, "a"),
            *ran(1.2, "a", lasts=None),
            *frozen(1.5, 30.0, WORKER_B),
            *ran(15.0, "a", pid=WORKER_B, attempt=2),
        ),
    ),
    (
        "a short task returned by a worker that had time to finish it",
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
        "a worker lost a task that no other worker took",
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
    ("a success counted twice", invariants_state.counters_agree, lambda: evidence(*HEALTHY, processed=3)),
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
        "a task is recovered although no worker was lost",
        invariants_bounds.bounded_recovery,
        lambda: evidence(
            *enqueued(1.0, "a"),
            event(14.0, "recovered", id="a", pid=WORKER_B, who="worker-1"),
            *ran(15.0, "a", pid=WORKER_B, attempt=2),
        ),
    ),
    (
        "a slow Redis command",
        invariants_bounds.flat_and_quick,
        lambda: evidence(*HEALTHY, event(5.0, "slow call", what="EVALSHA x", seconds=0.08, unix=100.0, server=0)),
    ),
    (
        "threads that pile up",
        invariants_bounds.flat_and_quick,
        lambda: evidence(
            *HEALTHY, event(50.0, "resources", process=WORKER_A, place="worker-0", threads=40, files=30, rss_kib=50_000)
        ),
    ),
    (
        "descriptors that pile up",
        invariants_bounds.flat_and_quick,
        lambda: evidence(
            *HEALTHY, event(50.0, "resources", process=WORKER_A, place="worker-0", threads=9, files=300, rss_kib=50_000)
        ),
    ),
    (
        "memory that grows",
        invariants_bounds.flat_and_quick,
        lambda: evidence(
            *HEALTHY, event(59.5, "resources", process=WORKER_A, place="worker-0", threads=9, files=30, rss_kib=150_000)
        ),
    ),
    (
        "a payload in a log",
        invariants_state.no_canary,
        lambda: evidence(*HEALTHY, canaries=["worker-0.log"]),
    ),
    ("an effect that is missing", invariants_state.effects_add_up, lambda: evidence(*HEALTHY, effects={7: 1})),
    (
        "an effect of a task that never ran",
        invariants_state.effects_add_up,
        lambda: evidence(*enqueued(1.0, "x", slot=9), effects={9: 5}),
    ),
    (
        "a result that is not stored",
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
        "a workflow that ends in another state",
        invariants_flows.flows_end,
        lambda: evidence(*chained(), workflows={"w": "failed"}),
    ),
    ("a workflow that does not exist", invariants_flows.flows_end, lambda: evidence(*chained(), workflows={})),
    (
        "a step that is lost",
        invariants_flows.flows_end,
        lambda: evidence(*[each for each in chained() if each.get("id") != "w.then"]),
    ),
    (
        "a step that had to be skipped",
        invariants_flows.flows_end,
        lambda: evidence(*chained(), *enqueued_workflow(5.0, [12, [], None, "skipped"], workflow="w")),
    ),
    (
        "a step of a workflow that was refused",
        invariants_state.nothing_invented,
        lambda: evidence(*chained(answer="refused")),
    ),
    ("a step before its predecessor", invariants_flows.steps_in_order, lambda: evidence(*chained(second_at=5.1))),
    ("a step with another result", invariants_flows.steps_in_order, lambda: evidence(*chained(got=7))),
    (
        "more at once than a limit allows",
        invariants_limits.places_held,
        lambda: evidence(*limited("placed", 11.0, 11.01, 11.02, 11.05)),
    ),
    (
        "two of a key at once",
        invariants_limits.places_held,
        lambda: evidence(*limited("placed_by", 11.0, 11.05, limit_key="a")),
    ),
    (
        "more in a period than a token bucket allows",
        invariants_limits.rates_kept,
        lambda: evidence(*limited("rated", 12.0, 12.01, 12.1)),
    ),
    (
        "more in a period than a fixed window allows",
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
        "a second task of a key that stays locked after the end",
        invariants_rules.one_of_each_key,
        lambda: evidence(*limited("once", 6.05, 12.0, key="a")),
    ),
    ("a skipped item", invariants_rules.iterations_continue, lambda: evidence(*iterated((0, 1), (3,)))),
    ("two repeated items", invariants_rules.iterations_continue, lambda: evidence(*iterated((0, 1, 2), (1, 2, 3)))),
    ("an iteration that ends too soon", invariants_rules.iterations_continue, lambda: evidence(*iterated((0, 1, 2)))),
    (
        "a step that ran after its result was stored",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "ask", "ran": "b"})),
    ),
    (
        "a run that succeeds although the task was cancelled before",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 1, "cancelled": True})),
    ),
    (
        "a run that gets another result than the run before",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "ask", "has": "b"})),
    ),
    (
        "a signal that arrived twice",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "second signal", "has": "s"}, without="second signal")),
    ),
    (
        "a signal that was not sent",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "second signal", "has": "x"}, without="second signal")),
    ),
    (
        "a signal that was lost",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "first signal", "has": None}, without="first signal")),
    ),
    (
        "two accepted answers to a question",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 1, "answered": "n"})),
    ),
    (
        "an answer that was not sent",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "answer", "has": "x"}, without="answer")),
    ),
    (
        "an answer that was lost",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "answer", "has": None}, without="answer")),
    ),
    (
        "a sub-task that was enqueued twice",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with(), *part("part-3", 11.0)),
    ),
    (
        "a sub-task that ran after its result was stored",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with(), *part("part-1", 14.0)),
    ),
    (
        "a missing result of a sub-task",
        invariants_durable.steps_signals_and_parts,
        lambda: evidence(*durable_with({"in_run": 2, "step": "parts", "has": [1]}, without="parts")),
    ),
    ("no dead-letter task", invariants_rules.one_dead_letter_each, lambda: evidence(*dead_lettered(), stored=LETTERED)),
    (
        "two dead-letter tasks",
        invariants_rules.one_dead_letter_each,
        lambda: evidence(*dead_lettered("x", "y"), stored=LETTERED),
    ),
    (
        "a dead-letter task of a task that is not archived",
        invariants_rules.one_dead_letter_each,
        lambda: evidence(*dead_lettered("x")),
    ),
    (
        "a start after the expiry",
        invariants_rules.in_time,
        lambda: evidence(*limited("late", 11.0, expires=3)),
    ),
    (
        "a task with a lower priority starts first",
        invariants_limits.urgent_first,
        lambda: evidence(
            *limited("ranked", 15.0, priority=0),
            *enqueued(9.0, "u", name="ranked", priority=9),
            *ran(16.0, "u", run=2, name="ranked"),
            run_event(16.01, "taken", "u", run=2, at=1016.0),
        ),
    ),
    (
        "a step that was not sent",
        invariants_rules.nothing_left_over,
        lambda: with_remains(left={"wf-steps": ["x"]}),
    ),
    ("a place that is held", invariants_rules.nothing_left_over, lambda: with_remains(holders={"c:placed:": ["x"]})),
    (
        "a task that waits for a place",
        invariants_rules.nothing_left_over,
        lambda: with_remains(waiting={"s:a:": ["x"]}),
    ),
    (
        "tokens that are still reserved",
        invariants_rules.nothing_left_over,
        lambda: with_remains(held={"r:rated:": 1.0}),
    ),
    ("keys of a deleted workflow", invariants_rules.nothing_left_over, lambda: with_remains(workflows={"w"})),
    ("a workflow that is overdue", invariants_rules.nothing_left_over, lambda: with_remains(kept={"w": -99.0})),
    ("a lock of an ended task", invariants_rules.nothing_left_over, lambda: with_remains(locks_of_ended=[("l", "x")])),
    ("an unknown key", invariants_rules.nothing_left_over, lambda: with_remains(unknown_keys=["what:x"])),
    (
        "a readiness check that passes during an outage",
        invariants_bounds.truthful_health,
        lambda: evidence(*HEALTHY, *outage(10.0, 22.0, "worker-0")),
    ),
]


@pytest.mark.parametrize(
    ("invariant", "broken"), [(each[1], each[2]) for each in BROKEN], ids=[each[0] for each in BROKEN]
)
def test_an_invariant_fails_for_a_violation(invariant: Callable[[Evidence], Verdict], broken: Broken) -> None:
    assert not invariant(broken()).holds


def test_each_invariant_has_a_violation_in_the_list() -> None:
    assert {invariant for _, invariant, _ in BROKEN} == set(INVARIANTS)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_readiness_must_recover_after_an_outage_unless_a_queue_was_damaged(is_damaged: bool) -> None:
    harm = [event(9.5, "damaged", id="x", how="pending retyped", survives=True)] if is_damaged else []
    found = evidence(*HEALTHY, *outage(10.0, 22.0, "worker-0"), *harm)
    for sample in found.history.events:
        if sample["event"] == "health" and sample["process"] == WORKER_A and sample["t"] > 11:
            sample["status"] = 503

    failures = invariants_bounds.truthful_health(found).failures
    assert [each for each in failures if "not ready again" in each] == failures
    assert bool(failures) is not is_damaged


def test_readiness_that_fails_in_an_outage_and_recovers_is_correct() -> None:
    found = evidence(*HEALTHY, *outage(10.0, 22.0, "worker-0"))
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
    ids=["killed", "frozen", "cut off", "Redis unavailable", "SIGTERM"],
)
def test_an_extra_run_that_a_fault_explains_is_allowed(incident: list[dict[str, Any]], how: dict[str, Any]) -> None:
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


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_a_failover_may_forget_a_task_only_if_it_was_not_acknowledged(is_acknowledged: bool) -> None:
    sent = enqueued(1.0, "a")
    found = evidence(
        *(sent if is_acknowledged else [sent[0], event(3.0, "unknown", id="a")]),
        *ran(1.2, "a", lasts=0.5, outcome="lost"),
        event(1.1, "failover", key=1, what="a planned failover"),
        event(4.0, "failover over", key=1, what="a planned failover"),
    )

    assert invariants_runs.owners_only(found).holds is not is_acknowledged


def test_a_retry_after_an_exception_is_no_extra_run() -> None:
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", how="raised", outcome="retried"),
        *ran(3.0, "a", pid=WORKER_B, attempt=2),
    )

    assert invariants_runs.extra_runs(found).figures["used"] == 0


def test_the_duration_of_a_recovery_starts_at_the_death_of_the_worker() -> None:
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
        ([(2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], 8.5, 17.0, 8.5, True),  # connected in between, until it died
        ([(2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], 8.5, 19.0, 10.5, False),
        ([(2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], None, 15.0, 9.0, True),
        (
            [(2.0, 10.5)],
            12.0,
            12.3,
            10.3,
            False,
        ),  # the first outage was long enough to lose the lease, so its start counts
        ([(2.0, 8.0)], 9.0, 17.0, 8.0, True),
        ([(2.0, 8.0)], None, 12.3, 10.3, False),
    ],
)
def test_the_duration_of_a_recovery_starts_when_the_worker_was_connected_last(
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


def test_the_second_recovery_of_a_task_that_did_not_run_in_between_is_not_measured() -> None:
    """The task's history does not contain when the second worker died."""
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", lasts=None),
        *killed(2.0),
        event(9.5, "recovered", id="a", pid=WORKER_B, who="worker-1"),
        event(18.5, "recovered", id="a", pid=WORKER_B, who="worker-1"),
    )

    assert invariants_bounds.bounded_recovery(found).figures["recoveries"] == 1


def test_the_duration_of_a_recovery_does_not_include_an_outage_of_redis() -> None:
    found = evidence(
        *enqueued(1.0, "a"),
        *ran(1.2, "a", lasts=None),
        *killed(2.0),
        *outage(4.0, 16.0),
        event(20.0, "recovered", id="a", pid=WORKER_B, who="worker-1"),
    )

    assert invariants_bounds.bounded_recovery(found).figures["max s"] == 6.0


def test_the_duration_of_a_command_does_not_include_waiting_for_a_processor() -> None:
    found = evidence(
        *HEALTHY,
        event(5.0, "slow call", what="EVALSHA x", seconds=0.08, unix=100.0, server=0),
        event(5.1, "redis waited", seconds=0.06, since=100.2, unix=100.4, server=0),
    )

    verdict = invariants_bounds.flat_and_quick(found)

    assert verdict.holds
    assert verdict.figures["longest call ms"] == 80.0


def test_a_wait_for_a_processor_may_be_recorded_late() -> None:
    """The monitor waits for a processor as well."""
    call = event(5.0, "slow call", what="EVALSHA x", seconds=0.08, unix=100.0, server=0)
    noted = event(8.0, "redis waited", seconds=0.06, since=99.9, unix=103.0, server=0)
    before = event(4.0, "redis waited", seconds=0.06, since=98.0, unix=99.0, server=0)

    assert invariants_bounds.flat_and_quick(evidence(*HEALTHY, call, noted)).holds
    assert not invariants_bounds.flat_and_quick(evidence(*HEALTHY, call, before)).holds


def test_a_task_that_a_worker_returned_may_run_before_urgent_tasks() -> None:
    """It is at the head of the queue."""
    found = [
        *limited("ranked", 15.0, priority=0),
        *enqueued(9.0, "u", name="ranked", priority=9),
        *ran(16.0, "u", run=2, name="ranked"),
        run_event(16.01, "taken", "u", run=2, at=1016.0),
    ]

    assert invariants_limits.urgent_first(evidence(*found, run_event(14.0, "given back", "ranked-0"))).holds
    assert not invariants_limits.urgent_first(evidence(*found)).holds


def test_a_command_during_a_stall_of_the_machine_is_not_slow() -> None:
    found = evidence(*HEALTHY, event(25.0, "slow call", what="EVALSHA x", seconds=4.0, unix=1022.0, server=0))
    found.incidents.stalls.append(Window(20.0, 24.0))

    assert invariants_bounds.flat_and_quick(found).holds


def test_a_firing_whose_response_was_lost_may_run() -> None:
    ticked = ran(3.0, "tick", run=9, name="beat")

    assert invariants_state.nothing_invented(evidence(*ticked, possible_beats=frozenset({"tick"}))).holds
    assert not invariants_state.nothing_invented(evidence(*ticked)).holds


@pytest.mark.parametrize("was_unavailable", [True, False])
def test_a_worker_may_return_a_short_task_only_if_redis_was_unavailable_after_sigterm(was_unavailable: bool) -> None:
    """The worker requested the task before SIGTERM, and got it too late to finish it."""
    found = evidence(
        *enqueued(1.0, "a", name="slow"),
        event(2.0, "terminated", place="worker-0", process=WORKER_A, expects="short"),
        *(outage(1.9, 4.8) if was_unavailable else []),
        *ran(4.8, "a", name="slow", lasts=0.2, how="interrupted", outcome="requeued"),
        event(5.3, "exited", place="worker-0", process=WORKER_A, status=0),
        *ran(6.0, "a", pid=WORKER_B, name="slow"),
    )

    assert invariants_runs.extra_runs(found).holds is was_unavailable


def exited(status: int, *, got_sigterm: bool = False) -> list[dict[str, Any]]:
    common = {"place": "worker-0", "process": WORKER_A}
    sigterm = [event(30.0, "terminated", **common, expects="short")] if got_sigterm else []
    return [*sigterm, event(30.5, "exited", **common, status=status)]


@pytest.mark.parametrize("got_sigterm", [True, False], ids=["SIGTERM", "no SIGTERM"])
def test_a_worker_may_exit_with_the_status_of_a_task_that_kills_it(got_sigterm: bool) -> None:
    poison = [*enqueued(30.0, "p", name="poison"), *ran(30.2, "p", name="poison", lasts=None)]

    assert invariants_bounds.as_expected(evidence(*poison, *exited(-6, got_sigterm=got_sigterm))).holds
    assert not invariants_bounds.as_expected(evidence(*poison, *exited(1, got_sigterm=got_sigterm))).holds
    assert not invariants_bounds.as_expected(evidence(*exited(-6, got_sigterm=got_sigterm))).holds


def test_a_worker_that_cannot_reach_redis_at_its_start_may_exit() -> None:
    assert invariants_bounds.as_expected(evidence(*outage(20.0, 35.0), *exited(1))).holds
    assert not invariants_bounds.as_expected(evidence(*exited(1))).holds


def test_a_worker_that_is_starting_in_an_outage_need_not_respond_to_readiness_checks() -> None:
    found = evidence(*HEALTHY, *outage(10.0, 22.0, "worker-0"))
    asked = [each for each in found.history.events if each["event"] == "health" and each["process"] == WORKER_A]
    for sample in asked:
        if sample["asked"] < 22.5:
            sample["process"] = WORKER_B

    assert invariants_bounds.truthful_health(found).holds


def test_a_worker_that_starts_at_the_end_of_an_outage_may_be_ready() -> None:
    found = evidence(*HEALTHY, *outage(10.0, 22.0, "worker-0"))
    for process in found.incidents.workers:
        if process.pid == WORKER_A:
            process.started = 21.9

    assert invariants_bounds.truthful_health(found).holds
