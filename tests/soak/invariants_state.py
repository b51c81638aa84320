"""Invariants about the content of Redis and the final state of each task. The functions do no I/O."""

from tests.soak.effects import value_of
from tests.soak.evidence import Evidence, Verdict

ENDS = ("archived", "completed")


def one_place(evidence: Evidence) -> Verdict:
    """1: every task id is in the list or set of its state and in no other. Every lock belongs to an existing task."""
    verdict = Verdict(number=1, title="every task is in exactly the list or set of its state; no lock is left over")
    count = 0
    for queue in evidence.queues.values():
        count += len(queue.tasks)
        for task in queue.tasks.values():
            if task.places != (task.state,):
                verdict.fail(f"{queue.name}: {task.id} has state {task.state!r} and is in {task.places}", task.id)
        for task_id, place in queue.without_task:
            verdict.fail(f"{queue.name}: {place} lists {task_id}, which has no hash", task_id)
        for lock, holder in queue.locks.items():
            if holder not in queue.tasks:
                verdict.fail(f"{queue.name}: {lock} is held by {holder}, which was deleted", holder)
    verdict.figures["hashes"] = count
    return verdict


def active_is_leased(evidence: Evidence) -> Verdict:
    """2: in each sample, the active tasks are exactly the tasks with a lease. Damaged tasks are ignored."""
    verdict = Verdict(number=2, title="exactly the active tasks have leases")
    looks = 0
    for event in evidence.history.events:
        if event["event"] == "leases":
            looks += 1
            others = [task_id for task_id in event["differ"] if task_id not in evidence.incidents.damaged]
            if others:
                verdict.fail(
                    f"{event['queue']} at {event['t']:.1f}: {others[:3]} only active or only leased", others[0]
                )
    for queue in evidence.queues.values():
        active = {task.id for task in queue.tasks.values() if task.state == "active"}
        if active != set(queue.leased):
            verdict.fail(f"{queue.name}: in the end active {sorted(active)[:3]}, leased {queue.leased[:3]}")
    if not looks:
        verdict.fail("the monitor took no sample")
    verdict.figures["samples"] = looks
    return verdict


def at_rest(evidence: Evidence) -> Verdict:
    """3: in the end no task is pending, active, leased, scheduled or in retry."""
    verdict = Verdict(number=3, title="in the end no task is pending, active, leased, scheduled or in retry")
    for queue in evidence.queues.values():
        for state, size in queue.sizes.items():
            if size and state not in ENDS:
                left = [task.id for task in queue.tasks.values() if task.state == state]
                verdict.fail(f"{queue.name}: {size} still {state}: {left[:3]}", left[0] if left else None)
        if queue.leased:
            verdict.fail(f"{queue.name}: {len(queue.leased)} still leased", queue.leased[0])
    return verdict


def nothing_lost(evidence: Evidence) -> Verdict:
    """4: every task whose enqueue was acknowledged was completed or archived."""
    verdict = Verdict(number=4, title="every acknowledged task was completed or archived")
    archived = evidence.archived
    acknowledged = lost = reported = 0
    for task in evidence.history.tasks.values():
        if not task.is_acknowledged:
            continue
        acknowledged += 1
        if task.has_succeeded or task.id in archived:
            continue
        if evidence.incidents.damaged.get(task.id) is False:
            reported += 1  # fault 31 destroyed it
            continue
        lost += 1
        verdict.fail(f"{task.id} ({task.name}) was acknowledged and is neither completed nor archived", task.id)
    for task_id in evidence.beats:
        task = evidence.history.tasks.get(task_id)
        if task is None or not task.has_succeeded:
            lost += 1
            verdict.fail(f"the firing of {task_id} is missing", task_id)
    verdict.figures |= {"acknowledged": acknowledged, "lost": lost, "destroyed on purpose": reported}
    verdict.figures["firings"] = len(evidence.beats)
    if not acknowledged:
        verdict.fail("nothing was acknowledged")
    return verdict


def nothing_invented(evidence: Evidence) -> Verdict:
    """5: every task that ran was enqueued, or its enqueue got no response. No refused task ran."""
    verdict = Verdict(number=5, title="no task ran that was not enqueued or whose enqueue was refused")
    tasks = evidence.history.tasks.values()
    archived = evidence.archived
    for task in tasks:
        flow = evidence.history.flow_of(task.id)
        if task.name == "letter" and all(run.got is None or run.got in archived for run in task.runs):
            continue  # invariant 23 checks their number
        if task.name == "part":
            continue  # invariant 27 checks their number
        if flow is not None and flow.answer != "refused":
            continue
        if task.runs and not (task.is_acknowledged or task.is_unknown or task.id in evidence.possible_beats):
            verdict.fail(f"{task.id} ({task.name}) ran, but the results of its enqueue are {task.enqueues}", task.id)
    verdict.figures |= {
        "unknown": sum(not task.is_acknowledged and task.is_unknown for task in tasks),
        "unknown that ran": sum(not task.is_acknowledged and task.is_unknown and bool(task.runs) for task in tasks),
        "refused": sum(bool(task.enqueues) and not task.is_acknowledged and not task.is_unknown for task in tasks),
    }
    return verdict


def counters_agree(evidence: Evidence) -> Verdict:
    """10: Redis's counters of processed and failed runs equal the runs in the ledgers."""
    verdict = Verdict(number=10, title="the counters processed and failed equal the ledgers")
    expected: dict[str, list[int]] = {name: [0, 0] for name in evidence.queues}
    for queue in evidence.queues.values():
        for stored in queue.tasks.values():
            if stored.state == "archived":
                expected[queue.name][0] += stored.retried + 1
                expected[queue.name][1] += stored.retried + 1
    archived = evidence.archived
    for task in evidence.history.tasks.values():
        if task.id not in archived and task.has_succeeded:
            attempt = max(run.attempt for run in task.runs if run.how == "end")
            expected[task.queue][0] += attempt
            expected[task.queue][1] += attempt - 1
    for queue in evidence.queues.values():
        if queue.name == evidence.damaged_queue or evidence.incidents.failovers:
            continue  # a destroyed task may or may not have been counted; a failover may lose a count
        if [queue.processed, queue.failed] != expected[queue.name]:
            verdict.fail(
                f"{queue.name}: Redis counts {queue.processed} processed and {queue.failed} failed, "
                f"the ledgers {expected[queue.name][0]} and {expected[queue.name][1]}"
            )
        verdict.figures[f"{queue.name} processed"] = queue.processed
        verdict.figures[f"{queue.name} failed"] = queue.failed
    return verdict


def no_canary(evidence: Evidence) -> Verdict:
    """13: no log and no Redis key except task hashes contains text of a payload."""
    verdict = Verdict(number=13, title="no payload in logs, presence or other keys")
    for where in evidence.canaries:
        verdict.fail(f"text of a payload was found in {where}")
    return verdict


def effects_add_up(evidence: Evidence) -> Verdict:
    """14: the table of side effects holds the value of each task that succeeded, and of no other."""
    verdict = Verdict(number=14, title="side effects add up; results are right")
    total = expected = 0
    stored = {task.id: task for queue in evidence.queues.values() for task in queue.tasks.values()}
    for task in evidence.history.tasks.values():
        if task.slot is None:
            continue
        found = evidence.effects.get(task.slot, 0)
        total += found
        if task.has_succeeded:
            expected += value_of(task.slot)
            if found != value_of(task.slot):
                verdict.fail(f"{task.id} succeeded, but its slot contains {found}", task.id)
            last = task.runs[-1]
            if evidence.incidents.forgets(last.started, last.ended or last.started):
                continue  # the failover may have lost the result
            if task.facts.get("kept") and task.id not in stored:
                verdict.fail(f"{task.id} succeeded, but its result is not stored", task.id)
            elif task.facts.get("kept") and stored[task.id].result != str(task.slot).encode():
                verdict.fail(f"{task.id} returned {task.slot}, but another result is stored", task.id)
        elif found and not task.runs:
            verdict.fail(f"{task.id} never ran, but its slot contains {found}", task.id)
    verdict.figures |= {"sum": total, "expected": expected}
    return verdict
