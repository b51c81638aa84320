"""Invariants about runs: which worker ran a task, when, and how often. The functions do no I/O."""

import itertools
import math
from collections import defaultdict

from tests.soak.evidence import Evidence, Verdict
from tests.soak.incidents import Process
from tests.soak.ledger import Run, Task
from tests.soak.limits import ITERATING


def extra_runs(evidence: Evidence) -> Verdict:
    """6: a fault explains each extra run, and there are at most as many extra runs as the faults allow.

    A retry after an exception of the function is not an extra run. An extra run is explained if the process of the run
    before died, was cut off from Redis or frozen for longer than its lease, or got SIGTERM.
    """
    verdict = Verdict(number=6, title="extra runs are explained and within the allowance")
    incidents, leases = evidence.incidents, evidence.profile.leases
    used = forgotten = 0
    reasons: dict[str, int] = defaultdict(int)
    for task in evidence.history.tasks.values():
        if task.id in incidents.damaged:
            continue
        for before, run in itertools.pairwise(task.runs):
            if before.how == "raised" and before.outcome == "retried" and before.lost_at is None:
                continue
            if before.outcome == "waiting":
                continue  # a durable task that waited and now continues
            used += 1
            reason = incidents.takes_task(before.pid, before.started, run.started, leases)
            if not reason and (reason := incidents.forgets(before.started, before.ended or run.started)):
                forgotten += 1
            if before.outcome == "requeued":
                process = incidents.processes.get(before.pid)
                reason = "its process got SIGTERM" if process is not None and process.terminated is not None else ""
                if process is not None and process.expects == "short" and task.name not in LONG:
                    reason = reason if _grace_was_cut(process, before) else ""
            if reason:
                reasons[reason] += 1
            else:
                verdict.fail(
                    f"{task.id} ({task.name}) ran on {before.who} at {before.started:.2f} ({before.how or 'no end'}, "
                    f"{before.outcome or 'no outcome'}) and again on {run.who} at {run.started:.2f}; "
                    "no fault explains it",
                    task.id,
                )
    allowed = incidents.allowance(leases, evidence.profile.concurrency) + forgotten
    if used > allowed:
        verdict.fail(f"{used} extra runs, {allowed} are allowed")
    verdict.figures |= {"used": used, "allowed": allowed, **{f"because {each}": n for each, n in reasons.items()}}
    return verdict


def _grace_was_cut(process: Process, run: Run) -> bool:
    """Whether Redis was unreachable after the worker got SIGTERM, so that a task may have come too late to finish."""
    if process.terminated is None or run.outcome_at is None:
        return False
    return any(window.overlap(process.terminated, run.outcome_at) > 0 for window in process.blocked)


LONG = ("long", "along", "stubborn", "blocking", "stumbling", *ITERATING)
"""Tasks that may take longer than the shutdown grace of a worker, and tasks that can stop between two items."""


def owners_only(evidence: Evidence) -> Verdict:
    """7: a run loses its task only if another worker took the task.

    That worker ran the task later, or archived it because no attempt was left.
    """
    verdict = Verdict(number=7, title="only its owner changed a task")
    lost = 0
    archived, leases = evidence.archived, evidence.profile.leases
    for task in evidence.history.tasks.values():
        if task.id in evidence.incidents.damaged:
            continue
        for position, run in enumerate(task.runs):
            if run.lost_at is None:
                continue
            lost += 1
            if position < len(task.runs) - 1 or task.id in archived:
                continue
            if evidence.incidents.takes_task(run.pid, run.started, run.lost_at, leases):
                continue  # the worker gave the task up by itself; its last request may or may not have arrived
            if not task.is_acknowledged and evidence.incidents.forgets(run.started, run.lost_at):
                continue  # the new primary never had the task, whose enqueue was not acknowledged
            others = sorted({before.who for before in task.runs[:position]})
            verdict.fail(
                f"{task.id} ({task.name}) was taken from {run.who} at {run.lost_at:.2f}, but no worker ran it "
                f"afterwards; workers that ran it before: {others}",
                task.id,
            )
    verdict.figures["runs that lost their task"] = lost
    return verdict


def bounded_runs(evidence: Evidence) -> Verdict:
    """8: no task runs more often than its retries allow. Runs that waited or returned the task do not count."""
    verdict = Verdict(number=8, title="at most max_retry + 1 runs, plus one for each return to the queue or wait")
    most = 0
    for task in evidence.history.tasks.values():
        if task.id in evidence.incidents.damaged or task.name not in evidence.max_retry:
            continue
        given_back = sum(run.outcome in ("requeued", "waiting") for run in task.runs)
        forgotten = sum(bool(evidence.incidents.forgets(run.started, run.ended or run.started)) for run in task.runs)
        limit = evidence.max_retry[task.name] + 1 + given_back + forgotten
        most = max(most, len(task.runs))
        if len(task.runs) > limit:
            verdict.fail(f"{task.id} ({task.name}) ran {len(task.runs)} times, {limit} are allowed", task.id)
        if task.facts.get("hopeless") and task.is_acknowledged and task.id not in evidence.archived:
            verdict.fail(f"{task.id} ({task.name}) cannot succeed, but was not archived", task.id)
    verdict.figures["most runs of a task"] = most
    return verdict


def bounded_concurrency(evidence: Evidence) -> Verdict:
    """9: no worker runs more tasks at a time than its concurrency, and no two tasks of a unique key run at once."""
    verdict = Verdict(number=9, title="at most `concurrency` runs at a time, one of each unique key")
    incidents = evidence.incidents
    by_process: dict[int, list[Run]] = defaultdict(list)
    by_key: dict[str, list[tuple[float, float, Run]]] = defaultdict(list)
    for task in evidence.history.tasks.values():
        for position, run in enumerate(task.runs):
            by_process[run.pid].append(run)
            if run.key:
                by_key[run.key].append((run.started, owned_until(evidence, task, position), run))
    most = 0
    for pid, runs in by_process.items():
        gone = incidents.processes[pid].ended if pid in incidents.processes else math.inf
        steps = [(run.started, 1) for run in runs]
        steps += [(_over_at(run, gone), -1) for run in runs]
        running = 0
        for _, step in sorted(steps, key=lambda each: (each[0], each[1])):
            running += step
            most = max(most, running)
            if running > evidence.profile.concurrency:
                verdict.fail(f"process {pid} ran {running} tasks at a time")
                break
    for key, spans in by_key.items():
        spans.sort(key=lambda span: span[0])
        for (_, end, first), (start, _, second) in itertools.pairwise(spans):
            if start < end and first.task_id != second.task_id:
                verdict.fail(f"{first.task_id} and {second.task_id} of {key} ran at the same time", second.task_id)
    verdict.figures["most at a time"] = most
    verdict.figures["unique runs"] = sum(map(len, by_key.values()))
    return verdict


def _over_at(run: Run, gone: float) -> float:
    """Return when a function ended. `gone`: when its process ended.

    A run that was interrupted after the function returned may have recorded only its outcome.
    """
    ends = [each for each in (run.ended, run.outcome_at, run.lost_at) if each is not None]
    return run.ended if run.ended is not None else min([*ends, gone])


def owned_until(evidence: Evidence, task: Task, position: int) -> float:
    """Return until when a run owned its task: until it ended, its process died, or another worker took the task."""
    run = task.runs[position]
    process = evidence.incidents.processes.get(run.pid)
    ends = [run.ended if run.ended is not None else math.inf]
    ends.append(process.ended if process is not None else math.inf)
    ends += [after.started for after in task.runs[position + 1 : position + 2]]
    ends += [window.start for window in (process.lost_leases(evidence.profile.leases) if process else [])]
    return min(end for end in ends if end >= run.started)
