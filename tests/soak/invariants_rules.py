"""Invariants about unique keys, iteration, dead letters, expiry and leftover keys in Redis. The functions do no I/O."""

import itertools
import math
from collections import defaultdict

from taskq_core.handles.expiry import EXPIRED_TEXT
from tests.soak.evidence import Evidence, Verdict
from tests.soak.ledger import Task
from tests.soak.limits import ITERATING, WITH_DEAD_LETTER

OVERDUE_S = 20.0
"""Maximum delay of the janitor in seconds."""
SHOWN = 5
"""Maximum number of ids or items in a message."""


def one_of_each_key(evidence: Evidence) -> Verdict:
    """21: no task is accepted while another task with the same unique key exists.

    A task `only` holds its key at least from the acknowledgement of its enqueue until its function first returned. A
    task `once` holds its key for the whole soak, because its retention is longer.
    """
    verdict = Verdict(number=21, title="no two tasks hold a unique key at the same time")
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
                verdict.fail(f"{task.id} of {key} was accepted while {before.id} held the key", task.id)
    tasks = [task for found in by_key.values() for task in found]
    refused = sum(
        task.name in ("only", "once") and "refused" in task.enqueues for task in evidence.history.tasks.values()
    )
    verdict.figures |= {"keys": len(by_key), "accepted": len(tasks), "refused": refused}
    return verdict


def _returned_at(task: Task) -> float:
    ends = [run.ended for run in task.runs if run.how == "end" and run.ended is not None]
    return min(ends, default=-math.inf)


def iterations_continue(evidence: Evidence) -> Verdict:
    """22: an iteration skips no item, and each interruption repeats at most the current item."""
    verdict = Verdict(number=22, title="iterations skip no item, and repeat at most one per interruption")
    count = interruptions = doubled = 0
    for task in evidence.history.tasks.values():
        if task.name not in ITERATING or not task.runs:
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
                verdict.fail(f"{task.id} was at item {last} and continued with {run.items[:SHOWN]}", task.id)
            doubled += first == last
            last = max(last, run.items[-1])
        if task.has_succeeded and last + 1 != task.facts["items"]:
            verdict.fail(f"{task.id} iterated over {last + 1} of {task.facts['items']} items", task.id)
    verdict.figures |= {"iterations": count, "interruptions": interruptions, "items repeated": doubled}
    return verdict


def one_dead_letter_each(evidence: Evidence) -> Verdict:
    """23: each archived task with `dead_letter` has exactly one dead-letter task, and no other task has any."""
    verdict = Verdict(number=23, title="each archived task with `dead_letter` has exactly one dead-letter task")
    letters: dict[str, list[Task]] = defaultdict(list)
    for task in evidence.history.tasks.values():
        for of in {run.got for run in task.runs if task.name == "letter" and run.got is not None}:
            letters[of].append(task)
    archived = evidence.archived
    wanted = [task for task in evidence.history.tasks.values() if task.name in WITH_DEAD_LETTER and task.id in archived]
    for task in wanted:
        found = letters.pop(task.id, [])
        forgotten = any(evidence.incidents.forgets(run.started, run.ended or math.inf) for run in task.runs)
        if len(found) != 1 and not (found and forgotten):
            verdict.fail(f"{task.id} ({task.name}) was archived and has {len(found)} dead-letter tasks", task.id)
        if not any(letter.has_succeeded for letter in found):
            verdict.fail(f"the dead-letter task of {task.id} ({task.name}) did not succeed", task.id)
    for of, found in letters.items():
        verdict.fail(f"{of} is not archived and has a dead-letter task, {found[0].id}", found[0].id)
    verdict.figures["dead letters"] = len(wanted)
    return verdict


def in_time(evidence: Evidence) -> Verdict:
    """24: no worker took a task after its expiry, which is rounded up to a whole second. Other tasks were archived."""
    verdict = Verdict(number=24, title="no task started after its expiry")
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
                verdict.fail(f"{task.id} was archived with the error {left.error!r:.80}", task.id)
    verdict.figures |= {"starts": started, "expired": expired}
    return verdict


def nothing_left_over(evidence: Evidence) -> Verdict:
    """26: idle queues have no leftovers.

    These are: places and tokens of limits, steps and messages that were not sent, locks of ended tasks, keys of deleted
    workflows, and unknown keys.
    """
    verdict = Verdict(number=26, title="no places, tokens, locks or keys of workflows are left over")
    keys = 0
    for queue in evidence.remains.values():
        keys += len(queue.held) + len(queue.workflows)
        for key, members in queue.left.items():
            verdict.fail(f"{queue.name}: {key} contains {members[:SHOWN]}, expected nothing")
        for what, found in (("hold", queue.holders), ("wait for", queue.waiting)):
            for slot, ids in found.items():
                verdict.fail(f"{queue.name}: {ids[:SHOWN]} still {what} a permit of {slot}", ids[0] if ids else None)
        for slot, tokens in queue.held.items():
            if tokens:
                verdict.fail(f"{queue.name}: {tokens:g} tokens of {slot} are still reserved")
        for workflow in sorted(queue.workflows - queue.kept.keys()):
            verdict.fail(f"{queue.name}: keys of the deleted workflow {workflow} are left", workflow)
        for workflow, left_s in queue.kept.items():
            if left_s < -OVERDUE_S:
                verdict.fail(
                    f"{queue.name}: workflow {workflow} should have been deleted {-left_s:.0f} s ago", workflow
                )
        for lock, holder in queue.locks_of_ended:
            verdict.fail(f"{queue.name}: {lock} is held by {holder}, which has ended", holder)
        if queue.unknown_keys:
            verdict.fail(f"{queue.name}: unknown keys: {queue.unknown_keys[:SHOWN]}")
    verdict.figures |= {"queues": len(evidence.remains), "rates and workflows": keys}
    return verdict
