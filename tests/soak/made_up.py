"""Small made-up evidence, sound in every respect: tests break one thing in it and see the invariant turn red."""

from typing import Any

from tests.soak.dump import QueueDump, Stored
from tests.soak.effects import value_of
from tests.soak.evidence import Evidence
from tests.soak.incidents import read_incidents
from tests.soak.ledger import Event, merge
from tests.soak.profiles import PROFILES

PROFILE = PROFILES["ci"]
WORKER_A, WORKER_B = 101, 102


def event(t: float, kind: str, *, pid: int = 1, who: str = "conductor", **facts: Any) -> Event:
    return {"t": t, "event": kind, "pid": pid, "who": who, **facts}


def enqueued(t: float, task_id: str, *, name: str = "quick", slot: int | None = None, **facts: Any) -> list[Event]:
    told = {"id": task_id, "pid": 50, "who": "producer-0"}
    return [
        event(t, "attempt", name=name, queue="default", slot=slot, **told, **facts),
        event(t + 0.01, "acknowledged", **told),
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
    """Return the events of one run; without `lasts` it never came back."""
    told = {"id": task_id, "pid": pid, "who": f"worker-{pid - WORKER_A}", "run": run}
    more = {"key": key} if key else {}
    found = [event(t, "start", name=name, queue="default", attempt=attempt, **told, **more)]
    if lasts is not None:
        found.append(event(t + lasts, how, **told))
    if outcome:
        found.append(
            event(t + (lasts or 0.1) + 0.001, outcome if outcome == "lost" else "outcome", outcome=outcome, **told)
        )
    return found


def began() -> list[Event]:
    """Two workers that start, are looked at and are well."""
    found = [
        event(0.0, "started", place="worker-0", process=WORKER_A),
        event(0.0, "started", place="worker-1", process=WORKER_B),
    ]
    for second in range(1, 60):
        found.append(event(second, "leases", queue="default", active=0, pending=0, differ=[], who="look"))
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
    **more: Any,
) -> Evidence:
    """Build evidence in which Redis and the table of effects agree with the events, unless told otherwise."""
    history = merge(sorted([*began(), *events], key=lambda each: each["t"]))
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
        max_retry={"quick": 10, "poison": 1, "long": 10, "slow": 10},
        **more,
    )
