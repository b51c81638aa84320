"""Artificial evidence for tests of the invariants. Every invariant holds for it until a test changes something."""

from typing import Any

from tests.soak.dump import QueueDump, Stored
from tests.soak.effects import value_of
from tests.soak.evidence import Evidence
from tests.soak.incidents import read_incidents
from tests.soak.ledger import Event, merge
from tests.soak.profiles import PROFILES
from tests.soak.remains import Remains

PROFILE = PROFILES["ci"]
WORKER_A, WORKER_B = 101, 102


def event(t: float, what: str, /, *, pid: int = 1, who: str = "conductor", **facts: Any) -> Event:
    return {"t": t, "event": what, "pid": pid, "who": who, **facts}


def enqueued(t: float, task_id: str, *, name: str = "quick", slot: int | None = None, **facts: Any) -> list[Event]:
    common = {"id": task_id, "pid": 50, "who": "producer-0"}
    return [
        event(t, "attempt", name=name, queue="default", slot=slot, **common, **facts),
        event(t + 0.01, "acknowledged", **common),
    ]


def ran(
    t: float,
    task_id: str,
    *,
    pid: int = WORKER_A,
    run: int = 1,
    attempt: int = 1,
    lasts: float | None = 0.1,
    how: str = "end",
    outcome: str = "",
    name: str = "quick",
    key: str = "",
) -> list[Event]:
    """Return the events of a run. It never ends if `lasts` is None."""
    common = {"id": task_id, "pid": pid, "who": f"worker-{pid - WORKER_A}", "run": run}
    more = {"key": key} if key else {}
    found = [event(t, "start", name=name, queue="default", attempt=attempt, **common, **more)]
    if lasts is not None:
        found.append(event(t + lasts, how, **common))
    if outcome:
        found.append(
            event(t + (lasts or 0.1) + 0.001, outcome if outcome == "lost" else "outcome", outcome=outcome, **common)
        )
    return found


def enqueued_workflow(
    t: float, *steps: list[Any], workflow: str = "w", answer: str = "acknowledged", **facts: Any
) -> list[Event]:
    """Return the events of a workflow that was enqueued."""
    common = {"flow": f"flow-{workflow}", "pid": 50, "who": "producer-0"}
    given = {"kind": "chain", "steps": list(steps), "state": "succeeded", "kept": True, **facts}
    return [
        event(t, "flow attempt", **common, **given),
        event(t + 0.01, f"flow {answer}", workflow=workflow, queue="default", **common),
    ]


def run_event(t: float, what: str, task_id: str, *, pid: int = WORKER_A, run: int = 1, **facts: Any) -> Event:
    """Return an event that a run recorded."""
    return event(t, what, id=task_id, pid=pid, who=f"worker-{pid - WORKER_A}", run=run, **facts)


def healthy_workers() -> list[Event]:
    """Return the events of two workers that start and stay healthy, with the samples of the monitor."""
    found = [
        event(0.0, "started", place="worker-0", process=WORKER_A),
        event(0.0, "started", place="worker-1", process=WORKER_B),
        event(0.0, "clock", unix=1000.0),
    ]
    for second in range(1, 60):
        found.append(event(second, "leases", queue="default", active=0, pending=0, differ=[], who="monitor"))
        for pid in (WORKER_A, WORKER_B):
            place = f"worker-{pid - WORKER_A}"
            found.append(event(second, "health", process=pid, place=place, asked=second, status=200))
            found.append(event(second, "resources", process=pid, place=place, threads=9, files=30, rss_kib=50_000))
    return found


def evidence(
    *events: Event,
    stored: tuple[Stored, ...] = (),
    processed: int | None = None,
    failed: int | None = None,
    effects: dict[int, int] | None = None,
    workflows: dict[str, str] | None = None,
    **more: Any,
) -> Evidence:
    """Build evidence from events. By default Redis and the table of effects agree with the events."""
    history = merge(sorted([*healthy_workers(), *events], key=lambda each: each["t"]))
    archived = [task for task in stored if task.state == "archived"]
    attempts = [
        max(run.attempt for run in task.runs if run.how == "end")
        for task in history.tasks.values()
        if task.has_succeeded and task.id not in {each.id for each in archived}
    ]
    failures = sum(task.retried + 1 for task in archived)
    queue = QueueDump(
        name="default",
        tasks={task.id: task for task in stored},
        sizes={
            state: sum(task.state == state for task in stored)
            for state in ("pending", "active", "scheduled", "retry", "archived", "completed")
        },
        processed=sum(attempts) + failures if processed is None else processed,
        failed=sum(attempts) - len(attempts) + failures if failed is None else failed,
    )
    right = {
        task.slot: value_of(task.slot)
        for task in history.tasks.values()
        if task.slot is not None and task.has_succeeded
    }
    return Evidence(
        profile=PROFILE,
        history=history,
        incidents=read_incidents(history.events, PROFILE.leases),
        queues={"default": queue},
        effects=right if effects is None else effects,
        workflows={flow.id: flow.state for flow in history.flows.values()} if workflows is None else workflows,
        remains={"default": Remains(name="default")},
        max_retry={"quick": 10, "poison": 1, "long": 10, "slow": 10, "walk": 10},
        **more,
    )
