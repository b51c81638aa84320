"""Invariants about limits: concurrency, rates, sequences and priorities. The functions do no I/O."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable

from tests.soak.evidence import Evidence, Verdict
from tests.soak.incidents import LAG_S
from tests.soak.invariants_runs import owned_until
from tests.soak.ledger import Run, Task
from tests.soak.limits import LIMITS, SEQUENCES, Bucket, Places, Window

CLOCK_S = 0.002
"""Tolerance in seconds: Redis and the recorded start times use whole milliseconds."""


def _limited(evidence: Evidence, kind: type) -> Iterable[tuple[Task, tuple[str, ...], Places | Bucket | Window]]:
    """Return (task, slot, limit) for each limit of this kind. A slot is what the limit counts: task, queue and key."""
    for task in evidence.history.tasks.values():
        for number, limit in enumerate(LIMITS.get(task.name, ())):
            if isinstance(limit, kind) and task.runs:
                keyed = isinstance(limit, Window) or (isinstance(limit, Places) and limit.keyed)
                who = str(task.facts.get("limit_key", "")) if keyed else ""
                yield task, (task.name, str(number), task.queue, who), limit


def places_held(evidence: Evidence) -> Verdict:
    """18: never more tasks run at once than their concurrency limit allows.

    A run counts from its start to the end of its function, or until its worker has been cut off for longer than a
    lease: then another task gets the place, and both may run until the worker notices. Runs around a failover do not
    count, because the new primary may not know who holds a permit.
    """
    verdict = Verdict(number=18, title="never more at once than a concurrency limit allows, also for each key")
    spans: dict[tuple[str, ...], list[tuple[float, float, Task]]] = defaultdict(list)
    places: dict[tuple[str, ...], int] = {}
    for task, slot, limit in _limited(evidence, Places):
        assert isinstance(limit, Places)
        places[slot] = limit.number
        for position, run in enumerate(task.runs):
            end = owned_until(evidence, task, position)
            if not evidence.incidents.forgets(run.started, end):
                spans[slot].append((run.started, end, task))
    runs = full = 0
    for slot, found in spans.items():
        runs += len(found)
        steps = sorted(
            [(start, 1, task.id) for start, _, task in found] + [(end, -1, task.id) for _, end, task in found]
        )
        running = most = 0
        for t, step, task_id in steps:
            running += step
            most = max(most, running)
            if running > places[slot]:
                verdict.fail(f"{running} of {slot} ran at {t:.3f}, {places[slot]} are allowed", task_id)
                break
        full += most == places[slot]
    verdict.figures |= {"runs": runs, "slots": len(spans), "slots that were full": full}
    return verdict


def rates_kept(evidence: Evidence) -> Verdict:
    """19: in no period more tasks start than their rate limit allows.

    The start of a run is when a worker took the task, by Redis's clock. The function reads this time from Redis; a run
    is ignored if that fails. After a failover the rate starts with a full bucket.
    """
    verdict = Verdict(number=19, title="in no period more starts than a rate limit allows")
    starts: dict[tuple[str, ...], dict[tuple[float, str], int]] = defaultdict(dict)
    limits: dict[tuple[str, ...], Bucket | Window] = {}
    unknown = 0
    for kind in (Bucket, Window):
        for task, slot, limit in _limited(evidence, kind):
            assert isinstance(limit, Bucket | Window)
            limits[slot] = limit
            for run in task.runs:
                if run.taken is None:
                    unknown += 1
                else:
                    starts[slot][run.taken, task.id] = int(task.facts.get("cost", 1))
    resets = sorted(window.end + evidence.unix_s for window in evidence.incidents.failovers)
    resets_from = sorted(window.start - LAG_S + evidence.unix_s for window in evidence.incidents.failovers)
    waited = 0
    for slot, found in starts.items():
        limit = limits[slot]
        ordered = sorted((at, cost, task_id) for (at, task_id), cost in found.items())
        if isinstance(limit, Window):
            _check_window(verdict, slot, limit, ordered, [*resets_from, *resets])
        else:
            waited += _check_bucket(verdict, slot, limit, ordered, list(zip(resets_from, resets, strict=True)))
    verdict.figures |= {"starts": sum(map(len, starts.values())), "that left less than a token": waited}
    verdict.figures["unknown"] = unknown
    return verdict


def _check_window(
    verdict: Verdict, slot: tuple[str, ...], limit: Window, starts: list[tuple[float, int, str]], resets: list[float]
) -> None:
    for period, group in itertools.groupby(starts, key=lambda start: math.floor(start[0] / limit.period_s)):
        found = list(group)
        if any(math.floor(reset / limit.period_s) == period for reset in resets):
            continue
        if len(found) > limit.number:
            verdict.fail(
                f"{len(found)} of {slot} started in {limit.period_s} s, {limit.number} are allowed", found[-1][2]
            )


def _check_bucket(
    verdict: Verdict,
    slot: tuple[str, ...],
    limit: Bucket,
    starts: list[tuple[float, int, str]],
    resets: list[tuple[float, float]],
) -> int:
    """Replay the starts on a token bucket. The level becomes negative only if the rate was exceeded in some period."""
    level, last, scarce = float(limit.burst), -math.inf, 0
    for at, cost, task_id in starts:
        if any(start <= at and last <= end for start, end in resets):
            level = float(limit.burst)
        level = min(float(limit.burst), level + (at - last) * limit.tokens) - cost
        last = at
        scarce += level < 1
        if level < -CLOCK_S * limit.tokens:
            verdict.fail(f"{slot} used {-level:.3f} tokens more than its rate allows, at {at:.3f}", task_id)
            level = 0.0
    return scarce


def sequences_in_order(evidence: Evidence) -> Verdict:
    """20: tasks of a sequence run one at a time, in the order in which they were enqueued.

    Two tasks that were enqueued at the same time may run in either order. Tasks around a failover are ignored, because
    the new primary may not know the order.
    """
    verdict = Verdict(number=20, title="sequences one at a time and in order, retries included")
    by_key: dict[tuple[str, str, str], list[Task]] = defaultdict(list)
    for task in evidence.history.tasks.values():
        if task.name in SEQUENCES and task.runs:
            by_key[task.name, task.queue, str(task.facts.get("limit_key", ""))].append(task)
    pairs = retried = 0
    for key, tasks in by_key.items():
        retried += sum(len(task.runs) > 1 for task in tasks)
        by_start = sorted(tasks, key=lambda task: task.runs[0].started)
        for before, task in itertools.pairwise(by_start):
            until = owned_until(evidence, before, len(before.runs) - 1)
            if evidence.incidents.forgets(before.runs[0].started, task.runs[0].started):
                continue
            if task.runs[0].started < until:
                verdict.fail(f"{before.id} and {task.id} of {key} ran at the same time", task.id)
        known = sorted((task for task in tasks if task.is_acknowledged), key=lambda task: task.answered_at)
        latest: Task | None = None
        position = 0
        for task in sorted(tasks, key=lambda task: task.attempted_at):
            while position < len(known) and known[position].answered_at < task.attempted_at:
                each = known[position]
                if latest is None or each.runs[0].started > latest.runs[0].started:
                    latest = each
                position += 1
            if latest is None or latest is task:
                continue
            pairs += 1
            forgotten = evidence.incidents.forgets(latest.attempted_at, latest.runs[0].started)
            if task.runs[0].started < latest.runs[0].started and not forgotten:
                verdict.fail(f"{task.id} of {key} began before {latest.id}, which was enqueued earlier", task.id)
    verdict.figures |= {"sequences": len(by_key), "tasks compared": pairs, "with several runs": retried}
    return verdict


def first_run(task: Task) -> Run | None:
    """Return the first run of a task if it is the first attempt and the time when a worker took the task is known."""
    if not task.runs or task.runs[0].attempt != 1 or task.runs[0].taken is None:
        return None
    return task.runs[0]


def urgent_first(evidence: Evidence) -> Verdict:
    """25: no worker takes a task while a task with a higher priority band waits in the same queue.

    Exceptions are tasks that a worker returned to the head of the queue, because it stopped or got the task too late,
    and tasks that waited for a minute.
    """
    verdict = Verdict(number=25, title="no task is taken while one of a higher band waits")
    unix_s = evidence.unix_s
    stops = [
        (process.terminated + unix_s, min(process.ended, process.terminated + 60.0) + unix_s + 1.0)
        for process in evidence.incidents.workers
        if process.terminated is not None
    ]
    stops += [(each.start - LAG_S + unix_s, each.end + unix_s) for each in evidence.incidents.failovers]
    given_back = {event["id"] for event in evidence.history.events if event["event"] == "given back"}
    by_queue: dict[str, list[tuple[int, float, float, Task]]] = defaultdict(list)
    for task in evidence.history.tasks.values():
        run = first_run(task)
        is_ranked = task.name == "ranked" and task.is_acknowledged and task.id not in given_back
        if is_ranked and run is not None and run.taken is not None:
            known_s = task.answered_at + unix_s
            if not any(start <= run.taken and known_s <= end for start, end in stops):
                by_queue[task.queue].append((int(task.facts["priority"]), known_s, run.taken, task))
    compared = overtaken = 0
    for queue, found in by_queue.items():
        found.sort(key=lambda each: each[2])
        for position, (band, known_s, taken, urgent) in enumerate(found):
            for lower, its_known_s, its_taken, other in reversed(found[:position]):
                if its_taken < known_s + CLOCK_S:
                    break
                compared += 1
                if lower < band and its_taken < taken and its_taken - its_known_s < OLD_S:
                    verdict.fail(
                        f"{other.id} of band {lower} was taken from {queue} at {its_taken:.3f}, when {urgent.id} of "
                        f"band {band} had waited since {known_s:.3f}, which was taken at {taken:.3f}",
                        urgent.id,
                    )
            overtaken += any(
                lower < band and its_known_s < known_s for lower, its_known_s, _, _ in found[position + 1 :]
            )
    verdict.figures |= {"tasks": sum(map(len, by_queue.values())), "compared": compared, "overtook another": overtaken}
    return verdict


OLD_S = 55.0
"""Seconds after which a waiting task may start before more urgent ones: a minute, minus a tolerance."""
