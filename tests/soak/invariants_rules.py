"""Invariants about uniqueness, iteration, dead letters, expiry, and what is left over. Pure: evidence to a verdict."""

import itertools
import math
from collections import defaultdict

from taskq_core.handles.expiry import EXPIRED_TEXT
from tests.soak.evidence import Evidence, Verdict
from tests.soak.ledger import Task
from tests.soak.limits import LETTERED, WALKS

OVERDUE_S = 20.0
"""Seconds by which the janitor may be late."""
SHOWN = 5


def one_of_each_key(evidence: Evidence) -> Verdict:
    """21: a unique key is held by one task that is alive: no other is accepted meanwhile.

    From its acknowledgement until its function first returned a task is certainly alive; one that counts for as long as
    it is there, for good.
    """
    verdict = Verdict(number=21, title="a unique key is held by one live task")
    by_key: dict[tuple[str, str, str], list[Task]] = defaultdict(list)
    for task in evidence.history.tasks.values():
        if task.name in ("only", "once") and (task.is_acknowledged or task.runs):
            by_key[task.name, task.queue, str(task.facts.get("key", ""))].append(task)
    for (name, _, key), tasks in by_key.items():
        if name == "once":
            if len(tasks) > 1:
                verdict.fail(f"{len(tasks)} of {key} were accepted: {[task.id for task in tasks][:SHOWN]}", tasks[1].id)
            continue
        accepted = sorted((task for task in tasks if task.is_acknowledged), key=lambda task: task.answered_at)
        for before, task in itertools.pairwise(accepted):
            if before.answered_at < task.attempted_at and task.answered_at < _returned_at(before):
                verdict.fail(f"{task.id} of {key} was accepted while {before.id} was alive", task.id)
    tasks = [task for found in by_key.values() for task in found]
    refused = sum(
        task.name in ("only", "once") and "refused" in task.enqueues for task in evidence.history.tasks.values()
    )
    verdict.figures |= {"keys": len(by_key), "accepted": len(tasks), "refused": refused}
    return verdict


def _returned_at(task: Task) -> float:
    ends = [run.ended for run in task.runs if run.how == "end" and run.ended is not None]
    return min(ends, default=-math.inf)


def iterations_go_on(evidence: Evidence) -> Verdict:
    """22: an iteration leaves out no item, and a run that goes on repeats at most the one that was in hand."""
    verdict = Verdict(number=22, title="iterations lose no item, and double at most one for each interruption")
    count = interruptions = doubled = 0
    for task in evidence.history.tasks.values():
        if task.name not in WALKS or not task.runs:
            continue
        if any(evidence.incidents.forgets(run.started, run.ended or math.inf) for run in task.runs):
            continue
        count += 1
        interruptions += len(task.runs) - 1
        last = -1
        for run in task.runs:
            if not run.items:
                continue
            first = run.items[0]
            if first not in (last, last + 1) or run.items != list(range(first, first + len(run.items))):
                verdict.fail(f"{task.id} was at item {last} and went on with {run.items[:SHOWN]}", task.id)
            doubled += first == last
            last = max(last, run.items[-1])
        if task.has_succeeded and last + 1 != task.facts["items"]:
            verdict.fail(f"{task.id} handed out {last + 1} items of {task.facts['items']}", task.id)
    verdict.figures |= {"iterations": count, "interruptions": interruptions, "items doubled": doubled}
    return verdict


def one_letter_each(evidence: Evidence) -> Verdict:
    """23: each archived task with a dead letter has exactly one, and no other task has any."""
    verdict = Verdict(number=23, title="each archived task with a dead letter has exactly one")
    letters: dict[str, list[Task]] = defaultdict(list)
    for task in evidence.history.tasks.values():
        for of in {run.got for run in task.runs if task.name == "letter" and run.got is not None}:
            letters[of].append(task)
    archived = evidence.archived
    wanted = [task for task in evidence.history.tasks.values() if task.name in LETTERED and task.id in archived]
    for task in wanted:
        found = letters.pop(task.id, [])
        forgotten = any(evidence.incidents.forgets(run.started, run.ended or math.inf) for run in task.runs)
        if len(found) != 1 and not (found and forgotten):
            verdict.fail(f"{task.id} ({task.name}) was archived and has {len(found)} letters", task.id)
        if not any(letter.has_succeeded for letter in found):
            verdict.fail(f"the letter of {task.id} ({task.name}) did not succeed", task.id)
    for of, found in letters.items():
        verdict.fail(f"{of} is not archived and has a letter, {found[0].id}", found[0].id)
    verdict.figures["letters"] = len(wanted)
    return verdict


def in_time(evidence: Evidence) -> Verdict:
    """24: no task was taken after its expiry, which is rounded up to a whole second; what was not, expired."""
    verdict = Verdict(number=24, title="no task was started after its expiry")
    expired = started = 0
    stored = {task.id: task for queue in evidence.queues.values() for task in queue.tasks.values()}
    for task in evidence.history.tasks.values():
        if task.name != "late" or not task.is_acknowledged:
            continue
        expiry = task.answered_at + evidence.unix_s + task.facts["expires"] + 1.0
        for run in task.runs:
            if run.taken is not None:
                started += 1
                if run.taken > expiry:
                    verdict.fail(f"{task.id} was taken {run.taken - expiry:.2f} s after its expiry", task.id)
        left = stored.get(task.id)
        if left is not None and left.state == "archived":
            expired += 1
            if not left.error.startswith(EXPIRED_TEXT):
                verdict.fail(f"{task.id} was archived for {left.error!r:.80}", task.id)
    verdict.figures |= {"starts": started, "expired": expired}
    return verdict


def nothing_left_over(evidence: Evidence) -> Verdict:
    """26: at rest nobody holds a place or tokens, and nothing is there of workflows that are not kept.

    Nor any step that was not told of, message to another queue, lock beyond its rule, or key that nobody knows.
    """
    verdict = Verdict(number=26, title="no permits, tokens, locks or keys of workflows are left over")
    keys = 0
    for queue in evidence.remains.values():
        keys += len(queue.held) + len(queue.workflows)
        for key, members in queue.left.items():
            verdict.fail(f"{queue.name}: {key} holds {members[:SHOWN]}")
        for what, found in (("held", queue.holders), ("waited for", queue.waiting)):
            for slot, ids in found.items():
                verdict.fail(f"{queue.name}: a place of {slot} is {what} by {ids[:SHOWN]}", ids[0] if ids else None)
        for slot, tokens in queue.held.items():
            if tokens:
                verdict.fail(f"{queue.name}: {tokens:g} tokens of {slot} are kept for nobody")
        for workflow in sorted(queue.workflows - queue.kept.keys()):
            verdict.fail(f"{queue.name}: keys of workflow {workflow} are left, which is not there", workflow)
        for workflow, left_s in queue.kept.items():
            if left_s < -OVERDUE_S:
                verdict.fail(f"{queue.name}: workflow {workflow} should have gone {-left_s:.0f} s ago", workflow)
        for lock, holder in queue.locks_of_ended:
            verdict.fail(f"{queue.name}: {lock} is held by {holder}, which has ended", holder)
        if queue.odd:
            verdict.fail(f"{queue.name}: keys that nobody knows: {queue.odd[:SHOWN]}")
    verdict.figures |= {"queues": len(evidence.remains), "rates and workflows": keys}
    return verdict
