"""Invariants about workflows: each one ends, and no step is lost or starts too early. The functions do no I/O."""

import math

from tests.soak.evidence import Evidence, Verdict
from tests.soak.ledger import Flow, Task


def steps_of(evidence: Evidence) -> dict[int, Task]:
    """Return the tasks of steps that ran, by slot."""
    tasks = evidence.history.tasks.values()
    return {task.slot: task for task in tasks if task.slot is not None and evidence.history.flow_of(task.id)}


def flows_end(evidence: Evidence) -> Verdict:
    """16: each workflow and each of its steps ends in the expected state.

    The state of a workflow is checked if the workflow still exists. If its enqueue got no response, the workflow may be
    incomplete or missing. Then it may end in any state.
    """
    verdict = Verdict(number=16, title="each workflow and each of its steps ended in the expected state")
    steps, archived = steps_of(evidence), evidence.archived
    acknowledged = kept = 0
    for flow in evidence.history.flows.values():
        state = evidence.workflows.get(flow.id, "")
        if flow.answer == "refused":
            continue
        if state not in ("", "succeeded", "failed"):
            verdict.fail(f"{flow.kind} {flow.id} ({flow.answer}) is still {state}", flow.id)
        if flow.answer != "acknowledged":
            continue
        acknowledged += 1
        if flow.is_kept:
            kept += 1
            if state != flow.state:
                verdict.fail(f"{flow.kind} {flow.id} is {state or 'deleted'}, expected {flow.state}", flow.id)
        for step in flow.steps:
            task = steps.get(step.slot)
            end = "skipped" if task is None else "failed" if task.id in archived else "done"
            if end == "done" and task is not None and not task.has_succeeded:
                end = "lost"
            if end != step.end:
                verdict.fail(
                    f"step {step.slot} of {flow.kind} {flow.id} is {end}, expected {step.end}",
                    flow.id if task is None else task.id,
                )
    verdict.figures |= {"workflows": acknowledged, "states checked": kept}
    verdict.figures["steps run"] = len(steps)
    return verdict


def steps_in_order(evidence: Evidence) -> Verdict:
    """17: a step starts after its predecessors were settled, and gets their results.

    The ledgers do not contain the exact time at which a step was settled. It is not before its function returned, or,
    for a failed step, not before the first end of its last attempt.
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
                settled = _settled_at(steps.get(slot), _expected_end(flow, slot))
                compared += 1
                if began < settled:
                    verdict.fail(
                        f"step {step.slot} of {flow.kind} {flow.id} began at {began:.3f}, before its predecessor "
                        f"{slot} ended at {settled:.3f}",
                        task.id,
                    )
            for run in task.runs:
                if run.got != step.got and (run.got is not None or run.how == "end"):
                    verdict.fail(
                        f"step {step.slot} of {flow.kind} {flow.id} got {str(run.got)[:80]}, "
                        f"expected {str(step.got)[:80]}",
                        task.id,
                    )
    verdict.figures["pairs compared"] = compared
    return verdict


def _expected_end(flow: Flow, slot: int) -> str:
    return next(step.end for step in flow.steps if step.slot == slot)


def _settled_at(task: Task | None, end: str) -> float:
    """Return the earliest time at which a step can have been settled; infinity if it was not."""
    if task is None:
        return math.inf
    if end == "failed":
        last = max((run.attempt for run in task.runs), default=0)  # several runs if a failover lost its settlement
        ends = [run.ended or run.started for run in task.runs if run.attempt == last]
    else:
        ends = [run.ended for run in task.runs if run.how == "end" and run.ended is not None]
    return min(ends, default=math.inf)
