"""Invariants about workflows: that they end, that no step is lost or early. Pure: from evidence to a verdict."""

import math

from tests.soak.evidence import Evidence, Verdict
from tests.soak.ledger import Flow, Task


def steps_of(evidence: Evidence) -> dict[int, Task]:
    """Return the tasks of steps that ran, by slot."""
    tasks = evidence.history.tasks.values()
    return {task.slot: task for task in tasks if task.slot is not None and evidence.history.flow_of(task.id)}


def flows_end(evidence: Evidence) -> Verdict:
    """16: each workflow ends as it has to, and with it each of its steps; those that are kept say so.

    Of a workflow whose enqueue got no answer not all members of a group need have been sent: it ends in any way, or it
    never was.
    """
    verdict = Verdict(number=16, title="each workflow ended as it had to, with each of its steps")
    steps, archived = steps_of(evidence), evidence.archived
    told = kept = 0
    for flow in evidence.history.flows.values():
        state = evidence.workflows.get(flow.id, "")
        if flow.answer == "refused":
            continue
        if state not in ("", "succeeded", "failed"):
            verdict.fail(f"{flow.kind} {flow.id} ({flow.answer}) is still {state}", flow.id)
        if flow.answer != "acknowledged":
            continue
        told += 1
        if flow.is_kept:
            kept += 1
            if state != flow.state:
                verdict.fail(f"{flow.kind} {flow.id} had to end as {flow.state} and is {state or 'gone'}", flow.id)
        for step in flow.steps:
            task = steps.get(step.slot)
            fate = "skipped" if task is None else "failed" if task.id in archived else "done"
            if fate == "done" and task is not None and not task.has_succeeded:
                fate = "lost"
            if fate != step.fate:
                verdict.fail(
                    f"step {step.slot} of {flow.kind} {flow.id} had to be {step.fate} and is {fate}",
                    flow.id if task is None else task.id,
                )
    verdict.figures |= {"workflows": told, "looked at in the end": kept}
    verdict.figures["steps run"] = len(steps)
    return verdict


def steps_follow(evidence: Evidence) -> Verdict:
    """17: a step starts after what it comes after was settled, and is handed its results.

    What no worker was told to be lost may have been settled once its function had returned, and not before; what has
    failed for good, once its last attempt had.
    """
    verdict = Verdict(number=17, title="each step began after its predecessors were settled, with their results")
    steps = steps_of(evidence)
    compared = 0
    for flow in evidence.history.flows.values():
        for step in flow.steps:
            task = steps.get(step.slot)
            if task is None or not task.runs:
                continue
            began = task.runs[0].started
            for slot in step.after:
                settled = _settled_at(steps.get(slot), _fate(flow, slot))
                compared += 1
                if began < settled:
                    verdict.fail(
                        f"step {step.slot} of {flow.kind} {flow.id} began at {began:.3f}, and step {slot} before it "
                        f"ended at {settled:.3f}",
                        task.id,
                    )
            for run in task.runs:
                if run.got != step.got and (run.got is not None or run.how == "end"):
                    verdict.fail(
                        f"step {step.slot} of {flow.kind} {flow.id} was handed {str(run.got)[:80]}, "
                        f"expected {str(step.got)[:80]}",
                        task.id,
                    )
    verdict.figures["pairs compared"] = compared
    return verdict


def _fate(flow: Flow, slot: int) -> str:
    return next(step.fate for step in flow.steps if step.slot == slot)


def _settled_at(task: Task | None, fate: str) -> float:
    """Return the first moment at which a step can have been settled; infinity for one that never was."""
    if task is None:
        return math.inf
    if fate == "failed":
        ends = [run.ended or run.started for run in task.runs[-1:]]
    else:
        ends = [run.ended for run in task.runs if run.how == "end" and run.ended is not None]
    return min(ends, default=math.inf)
