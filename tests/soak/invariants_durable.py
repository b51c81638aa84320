"""The invariant about durable tasks: results of steps, signals and sub-tasks. The functions do no I/O."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tests.soak.durable import PARTS
from tests.soak.evidence import Evidence, Verdict

SIGNALS = ("first signal", "second signal")


def steps_signals_and_parts(evidence: Evidence) -> Verdict:
    """27: a step or sub-task does not run again after its result was stored, and each signal is received once.

    A question has one answer. All runs of a task get the same results. A run receives each signal that was acknowledged
    before the run began. Each sub-task has one id. A run that begins after the task was cancelled does not succeed.
    """
    verdict = Verdict(number=27, title="no durable step, signal or sub-task was lost or doubled")
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in evidence.history.events:
        if event["event"] == "durable":
            by_task[event["id"]].append(event)
        elif event["event"] == "part":
            parts[event["of"]].append(event)
    for task_id in parts.keys() - by_task.keys():
        verdict.fail(f"sub-tasks of {task_id} ran, which did not run itself", task_id)
    waits = received = cancelled = undone = 0
    for task_id, events in by_task.items():
        task = evidence.history.tasks.get(task_id)
        if task is None or any(evidence.incidents.forgets(run.started, run.ended or math.inf) for run in task.runs):
            continue
        began = {(run.pid, run.number): run.started for run in task.runs}
        waits += sum(run.outcome == "waiting" for run in task.runs)
        known: dict[str, tuple[float, Any]] = {}
        for event in events:
            if "has" in event:
                _, value = known.setdefault(event["step"], (event["t"], event["has"]))
                if value != event["has"]:
                    verdict.fail(f"{task_id} got {value} and {event['has']} from {event['step']!r}", task_id)
        for event in events:
            first_known, _ = known.get(event.get("step", ""), (math.inf, None))
            if "ran" in event and began.get((event["pid"], event["run"]), 0.0) > first_known:
                verdict.fail(f"{task_id} ran {event['step']!r} again after its result was stored", task_id)
        cancelled_at = min((event["t"] for event in events if "cancelled" in event), default=math.inf)
        if any(run.started > cancelled_at and run.how == "end" for run in task.runs):
            verdict.fail(f"{task_id} went on after it was cancelled", task_id)
        cancelled += cancelled_at < math.inf
        undone += "undo" in known
        _check_parts(verdict, task_id, parts[task_id], *known.get("parts", (math.inf, PARTS)))
        sending = {event["sending"] for event in events if "sending" in event}
        got = [known[name][1] for name in SIGNALS if name in known and known[name][1] is not None]
        received += len(got)
        if len(set(got)) != len(got) or not set(got) <= sending:
            verdict.fail(f"{task_id} received {got}, and {sorted(sending)} were sent", task_id)
        sent = {event["sent"]: event["t"] for event in events if "sent" in event}
        _check_answers(verdict, task_id, events, known.get("answer", (math.inf, "")), began)
        missed_at, missed = known.get(SIGNALS[1], (math.inf, ""))
        if missed is None:
            run = next(e for e in events if e.get("step") == SIGNALS[1] and "has" in e)
            started = began.get((run["pid"], run["run"]), missed_at)
            lost = [value for value, at in sent.items() if at < started and value not in got]
            if lost:
                verdict.fail(f"{task_id} did not receive {lost}, which were acknowledged", task_id)
    verdict.figures |= {"durable tasks": len(by_task), "waits": waits, "signals received": received}
    verdict.figures |= {"cancelled": cancelled, "undone": undone}
    verdict.figures["sub-tasks"] = sum(len({event["id"] for event in each}) for each in parts.values())
    return verdict


def _check_answers(
    verdict: Verdict, task_id: str, events: list[dict[str, Any]], known: tuple[float, Any], began: Mapping[Any, float]
) -> None:
    """Check that one answer to the question was accepted at most, and that it is the one that the task got."""
    known_at, got = known
    accepted = {event["answered"]: event["t"] for event in events if "answered" in event}
    if len(accepted) > 1:
        verdict.fail(f"{task_id} accepted {sorted(accepted)} as answers to one question", task_id)
    if known_at == math.inf:
        return
    if got is not None and got not in {event.get("answering") for event in events}:
        verdict.fail(f"{task_id} got the answer {got}, which was not sent", task_id)
    run = next(each for each in events if each.get("step") == "answer" and "has" in each)
    started = began.get((run["pid"], run["run"]), known_at)
    if any(at < started and value != got for value, at in accepted.items()):
        verdict.fail(f"{task_id} got {got} as its answer, but accepted {sorted(accepted)}", task_id)


def _check_parts(verdict: Verdict, task_id: str, events: list[dict[str, Any]], known_at: float, results: Any) -> None:
    """Check the runs of a task's sub-tasks. Their task got their results at `known_at`."""
    if results != PARTS:
        verdict.fail(f"{task_id} got {results} from its sub-tasks, expected {PARTS}", task_id)
    if len({event["id"] for event in events}) > len(PARTS):
        verdict.fail(f"{task_id} enqueued sub-tasks twice", task_id)
    for event in events:
        if event["t"] > known_at:
            verdict.fail(f"{task_id} ran sub-task {event['number']} again after its result was stored", task_id)
