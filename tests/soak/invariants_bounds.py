"""Invariants about time and resources: recovery, calls to Redis, health. The functions do no I/O."""

import math
import signal
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.evidence import Evidence, Verdict
from tests.soak.incidents import Process, Window
from tests.soak.ledger import Event

SLOW_S = 0.050
"""Maximum duration of a Redis command."""
BACK_OFF_S = 5.0
"""Maximum pause of a worker's services after Redis was unreachable."""
RED_S = 10.0
"""An outage longer than this must make the worker's readiness check fail."""
GREEN_S = 10.0
"""Seconds after an outage within which the readiness check must pass again."""
GROWN_AFTER_S = 15.0
"""Age of a process from which its use of resources must stay flat."""
RSS_KIB = 48 * 1024
"""Maximum growth of a process after that age. The soak's own records in the process, such as task ids, need some."""
THREADS = 12
"""Maximum number of a worker's threads, without the threads that run tasks."""
BY_POISON = (9, -signal.SIGABRT, -signal.SIGSEGV)
"""Exit statuses of a worker that ran the task `poison`, which kills its process."""
UNREACHED = 1
"""Exit status of a process that could not reach Redis when it started."""
FILES = 96
"""Maximum number of open file descriptors of a process."""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed; NaN without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery of a task whose worker stopped renewing its lease.

    Attributes:
        seconds: Time from the last renewal until the task was available again, without outages of Redis.
        limit_s: Maximum of this time.
    """

    task_id: str
    seconds: float
    limit_s: float


def recoveries(evidence: Evidence) -> list[Recovery]:
    """Return all recoveries whose duration is known."""
    incidents, leases = evidence.incidents, evidence.profile.leases
    found = []
    taken_back_at: dict[str, float] = {}
    for event in evidence.history.events:
        task = evidence.history.tasks.get(event["id"]) if event["event"] == "recovered" else None
        if task is None:
            continue
        before = [run for run in task.runs if run.started < event["t"]]
        known_t, taken_back_at[task.id] = taken_back_at.get(task.id, -math.inf), event["t"]
        if not before or before[-1].started < known_t:
            continue  # its worker died before it called the function, at an unknown time
        silent_at = _silent_at(incidents.processes.get(before[-1].pid), before[-1].started, event["t"], evidence)
        if silent_at is None:
            continue  # no worker stopped renewing leases: invariant 6 reports this task
        down_s = incidents.down_s(silent_at, event["t"])
        limit_s = (
            leases.takeover_s + 1.0 + (BACK_OFF_S if down_s else 0.0)
        )  # leases are truncated to whole seconds twice
        found.append(Recovery(task.id, event["t"] - silent_at - down_s, limit_s))
    return found


def _silent_at(process: Process | None, started: float, until: float, evidence: Evidence) -> float | None:
    """Return the latest time from which a process may have been unable to renew a lease; None if it always could.

    If the process was cut off for as long as lease and grace, the lease was lost in that period. Several shorter
    periods can also lose it together: the process may have renewed the lease in between, so the last period counts.
    """
    if process is None:
        return None
    leases = evidence.profile.leases
    apart = [window for window in process.apart if window.start <= until and window.end >= started]
    moments = [process.ended] if process.died and started <= process.ended <= until else []
    moments += [max(window.start, started) for window in apart if window.length >= leases.lease + leases.grace]
    if moments:
        return min(moments)
    lost = [window for window in process.lost_leases(leases) if window.start <= until and window.end >= started]
    return max(
        (max(each.start, started) for each in apart if any(window.overlap(each.start, each.end) for window in lost)),
        default=None,
    )


def _unexplained(evidence: Evidence) -> list[str]:
    """Return tasks that were recovered although no worker died, stopped or was cut off in the time before.

    This considers all workers, because the owner of a task is unknown if its function was not called.
    """
    incidents, reach_s = evidence.incidents, evidence.profile.leases.takeover_s + 1.0 + BACK_OFF_S
    windows = [*incidents.outages, *incidents.failovers, *incidents.stalls]
    for worker in incidents.workers:
        windows += worker.blocked
        if worker.died or worker.terminated is not None:
            began = worker.ended if worker.terminated is None else worker.terminated
            windows.append(Window(began, worker.ended))
    return [
        event["id"]
        for event in evidence.history.events
        if event["event"] == "recovered"
        and event["id"] not in incidents.damaged
        and not any(window.start <= event["t"] and event["t"] - reach_s <= window.end for window in windows)
    ]


def bounded_recovery(evidence: Evidence) -> Verdict:
    """11: tasks of a lost worker are recovered within lease + grace + the recoverer's interval. No others are."""
    verdict = Verdict(number=11, title="each recovery within lease + grace + interval")
    found = recoveries(evidence)
    for recovery in found:
        if recovery.seconds > recovery.limit_s:
            verdict.fail(
                f"{recovery.task_id} was available again after {recovery.seconds:.1f} s, "
                f"{recovery.limit_s:.1f} are allowed",
                recovery.task_id,
            )
    for task_id in _unexplained(evidence):
        verdict.fail(f"{task_id} was recovered although no worker was lost", task_id)
    seconds = [recovery.seconds for recovery in found]
    verdict.figures["recoveries"] = len(found)
    if found:
        verdict.figures |= {
            "p50 s": round(quantile(seconds, 0.5), 2),
            "p99 s": round(quantile(seconds, 0.99), 2),
            "max s": round(max(seconds), 2),
        }
    verdict.figures["limit s"] = round(evidence.profile.leases.takeover_s + 1.0, 2)
    return verdict


def flat_and_quick(evidence: Evidence) -> Verdict:
    """12: threads, descriptors and memory stay flat, and no command takes Redis more than 50 ms.

    The time that Redis waited for a processor around that second is subtracted. The measurement of these waits may be
    late on a busy machine, too.
    """
    verdict = Verdict(number=12, title="resources stay flat; no Redis call over 50 ms")
    samples: dict[int, list[Event]] = defaultdict(list)
    waits: list[Event] = []
    unix_s = evidence.unix_s
    frozen = _unix_windows(evidence.history.events, "redis frozen")
    frozen += [(stall.start + unix_s, stall.end + unix_s) for stall in evidence.incidents.stalls]
    calls: list[Event] = []
    for event in evidence.history.events:
        if event["event"] == "resources":
            samples[event["process"]].append(event)
        elif event["event"] == "redis waited":
            waits.append(event)
        elif event["event"] == "slow call" and not any(a - 1 <= event["unix"] <= b + 1 for a, b in frozen):
            calls.append(event)
    for pid, looks in samples.items():
        process = evidence.incidents.processes[pid]
        grown = [look for look in looks if look["t"] > process.started + GROWN_AFTER_S]
        if len(grown) < 2:
            continue
        threads = max(look["threads"] for look in looks)
        most = THREADS + (evidence.profile.concurrency if process.role == "worker" else 0)
        if threads > most:
            verdict.fail(f"{process.place} had {threads} threads, {most} are allowed")
        files = max(look["files"] for look in looks)
        if files > FILES:
            verdict.fail(f"{process.place} had {files} descriptors open, {FILES} are allowed")
        growth = grown[-1]["rss_kib"] - grown[0]["rss_kib"]
        if growth > RSS_KIB:
            verdict.fail(f"{process.place} grew by {growth} KiB in {grown[-1]['t'] - grown[0]['t']:.0f} s")
        for name, value in (("most threads", threads), ("most files", files), ("most growth KiB", growth)):
            verdict.figures[name] = max(value, int(verdict.figures.get(name, value)))
    longest = own = 0.0
    for call in calls:
        waited_s = sum(
            wait["seconds"]
            for wait in waits
            if wait["server"] == call["server"]
            and wait["since"] <= call["unix"] + 1.0
            and wait["unix"] >= call["unix"] - call["seconds"]
        )
        net = max(0.0, call["seconds"] - waited_s)
        longest, own = max(longest, call["seconds"]), max(own, net)
        if net > SLOW_S:
            verdict.fail(
                f"{call['what']} took {call['seconds'] * 1000:.0f} ms, "
                f"{net * 1000:.0f} ms without waiting for a processor"
            )
    verdict.figures |= {
        "longest call ms": round(longest * 1000, 1),
        "without waiting for a processor ms": round(own * 1000, 1),
    }
    if not samples:
        verdict.fail("the monitor measured no process")
    return verdict


def _unix_windows(events: Sequence[Event], what: str) -> list[tuple[float, float]]:
    """Return start and end of each outage of one kind, in Unix seconds."""
    begun = {event["key"]: event["unix"] for event in events if event["event"] == "outage" and event["what"] == what}
    ended = {event["key"]: event["unix"] for event in events if event["event"] == "outage over"}
    return [(start, ended.get(key, math.inf)) for key, start in begun.items()]


def truthful_health(evidence: Evidence) -> Verdict:
    """15: a worker's readiness check fails in an outage of more than 10 s, and passes within 10 s after it.

    It may fail for longer if keys of a queue were damaged, until the worker has repaired them.
    """
    verdict = Verdict(number=15, title="readiness fails in outages over 10 s, and recovers within 10 s")
    asked: dict[int, list[Event]] = defaultdict(list)
    for event in evidence.history.events:
        if event["event"] == "health":
            asked[event["process"]].append(event)
    harmed = [event["t"] for event in evidence.history.events if event["event"] == "damaged"]
    outages = 0
    for process in evidence.incidents.workers:
        for position, window in enumerate(process.blocked):
            is_frozen = any(window.overlap(each.start, each.end) for each in process.frozen)
            window = Window(max(window.start, process.started), window.end, window.what)  # the part in its lifetime
            if is_frozen or window.length <= RED_S or process.ended < window.end:
                continue
            outages += 1
            during = [each for each in asked[process.pid] if window.start <= each["asked"] <= window.end]
            if during and all(each["status"] == 200 for each in during):
                verdict.fail(f"{process.place} was ready for all of {window.length:.0f} s ({window.what})")
            if not during and any(
                each["asked"] < window.start for each in asked[process.pid]
            ):  # else it was still starting
                verdict.fail(f"the monitor did not ask {process.place} for {window.length:.0f} s ({window.what})")
            later = process.blocked[position + 1 :]
            undisturbed = window.end + GREEN_S <= min(
                process.ended, process.terminated or math.inf, later[0].start if later else math.inf
            )
            after = [each for each in asked[process.pid] if window.end < each["t"] <= window.end + GREEN_S]
            undisturbed = undisturbed and not any(window.start - GREEN_S <= t <= window.end + GREEN_S for t in harmed)
            if undisturbed and not any(each["status"] == 200 for each in after):
                verdict.fail(f"{process.place} was not ready again {GREEN_S:.0f} s after {window.what}")
    verdict.figures["outages over 10 s"] = outages
    verdict.figures["samples"] = sum(map(len, asked.values()))
    return verdict


def _was_redis_away(evidence: Evidence, process: Process) -> bool:
    """Whether Redis was unreachable for a process, or accepted no writes, at some time in the process's life."""
    windows = [*process.blocked, *evidence.incidents.failovers]
    return any(window.overlap(process.started, process.ended) > 0 for window in windows)


def as_expected(evidence: Evidence) -> Verdict:
    """0: each fault had its effect, processes exited with 0 after SIGTERM, and no other process exited.

    Exceptions: a worker that its task killed, and a process that could not reach Redis when it started.
    """
    verdict = Verdict(number=0, title="faults took effect; processes exited only after SIGTERM, and with 0")
    for sentence in evidence.incidents.unexpected:
        verdict.fail(sentence)
    poisoned = {run.pid for run in evidence.history.runs if run.name == "poison" and run.ended is None}
    asked = 0
    for process in evidence.incidents.processes.values():
        asked += process.terminated is not None
        if process.status in (0, None) or process.expects == "storm":
            continue
        if process.status in BY_POISON and process.pid in poisoned:
            continue
        if process.terminated is not None:
            verdict.fail(f"{process.place} exited with {process.status} after SIGTERM")
        elif process.status != UNREACHED or not _was_redis_away(evidence, process):
            age_s = process.ended - process.started
            verdict.fail(f"{process.place} exited with {process.status} {age_s:.1f} s after its start, without SIGTERM")
    verdict.figures["terminated"] = asked
    stalls = evidence.incidents.stalls
    if stalls:
        verdict.figures["stalls of the machine"] = len(stalls)
        verdict.figures["longest stall s"] = round(max(stall.length for stall in stalls), 1)
    return verdict
