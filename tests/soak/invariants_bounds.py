"""Invariants about time and resources: recovery, calls to Redis, health. Pure: from evidence to a verdict."""

import math
import signal
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.evidence import Evidence, Verdict
from tests.soak.incidents import Process, Window
from tests.soak.ledger import Event

SLOW_S = 0.050
"""Longest call to Redis."""
BACK_OFF_S = 5.0
"""Longest pause of a worker's services after Redis could not be reached."""
RED_S = 10.0
"""An outage longer than this shows in the health."""
GREEN_S = 10.0
"""Seconds after an outage within which the health is green again."""
GROWN_AFTER_S = 15.0
"""Age of a process from which its use of resources must be flat."""
RSS_KIB = 48 * 1024
"""Most a process may grow afterwards. What it counts by itself, as the ids it has written, takes some."""
THREADS = 12
"""Threads of a worker besides those of its functions."""
BY_POISON = (9, -signal.SIGABRT, -signal.SIGSEGV)
"""Statuses of a worker that ran the task which takes its process along."""
UNREACHED = 1
"""Status of a process that could not reach Redis when it started."""
FILES = 96
"""Descriptors of a process."""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all does not exceed; NaN without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True, slots=True)
class Recovery:
    """A task that was taken back from a worker that went silent.

    Attributes:
        seconds: From the moment it went silent until the task was available again, but for outages of Redis.
        limit_s: Most it may have taken.
    """

    task_id: str
    seconds: float
    limit_s: float


def recoveries(evidence: Evidence) -> list[Recovery]:
    """Find every task that was taken back, and how long that took."""
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
            continue  # its worker died before the function was called: when, is not known
        silent_at = _silent_at(incidents.processes.get(before[-1].pid), before[-1].started, event["t"], evidence)
        if silent_at is None:
            continue  # nobody went silent: invariant 6 has something to say
        down_s = incidents.down_s(silent_at, event["t"])
        limit_s = leases.takeover_s + 1.0 + (BACK_OFF_S if down_s else 0.0)  # cut to whole seconds twice
        found.append(Recovery(task.id, event["t"] - silent_at - down_s, limit_s))
    return found


def _silent_at(process: Process | None, started: float, until: float, evidence: Evidence) -> float | None:
    """Return since when, at the latest, a process could not renew a lease that it held.

    What lasted as long as a lease and the grace took it, whatever came later. Of several shorter times the last one
    counts, and the end of the process before them: it may have renewed its lease in between.
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
    """Find the tasks that were taken back although no worker ended or was out of touch in all the time before.

    Whose the task was is not known where its function was not called.
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
    """11: a lost worker's task is available again within lease + grace + interval of the recoverer, and no other is."""
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
        verdict.fail(f"{task_id} was taken back, and no worker had gone silent", task_id)
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
    """12: threads, descriptors and memory stay flat, and no call keeps Redis longer than 50 ms.

    Of the time of a call, what Redis was kept from a processor about that second is not the call's. Who notes that may
    be late on a busy machine as well.
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
            verdict.fail(f"{call['what']} took {call['seconds'] * 1000:.0f} ms, {net * 1000:.0f} of them its own")
    verdict.figures |= {"longest call ms": round(longest * 1000, 1), "longest call's own ms": round(own * 1000, 1)}
    if not samples:
        verdict.fail("nobody looked at the processes")
    return verdict


def _unix_windows(events: Sequence[Event], what: str) -> list[tuple[float, float]]:
    """Return begin and end of outages of one kind in Unix seconds. A call that Redis was frozen in is not slow."""
    begun = {event["key"]: event["unix"] for event in events if event["event"] == "outage" and event["what"] == what}
    ended = {event["key"]: event["unix"] for event in events if event["event"] == "outage over"}
    return [(start, ended.get(key, math.inf)) for key, start in begun.items()]


def truthful_health(evidence: Evidence) -> Verdict:
    """15: a worker that cannot reach Redis for more than 10 s says so, and is well again within 10 s afterwards.

    Unless keys of a queue were damaged meanwhile: that is mended once Redis can be reached, and told until then.
    """
    verdict = Verdict(number=15, title="health red in outages over 10 s, green within 10 s after")
    asked: dict[int, list[Event]] = defaultdict(list)
    for event in evidence.history.events:
        if event["event"] == "health":
            asked[event["process"]].append(event)
    harmed = [event["t"] for event in evidence.history.events if event["event"] == "damaged"]
    outages = 0
    for process in evidence.incidents.workers:
        for position, window in enumerate(process.blocked):
            is_frozen = any(window.overlap(each.start, each.end) for each in process.frozen)
            window = Window(max(window.start, process.started), window.end, window.what)  # what it has seen of it
            if is_frozen or window.length <= RED_S or process.ended < window.end:
                continue
            outages += 1
            during = [each for each in asked[process.pid] if window.start <= each["asked"] <= window.end]
            if during and all(each["status"] == 200 for each in during):
                verdict.fail(f"{process.place} said it was well for all of {window.length:.0f} s ({window.what})")
            if not during and any(each["asked"] < window.start for each in asked[process.pid]):  # else it never started
                verdict.fail(f"nobody asked {process.place} during {window.length:.0f} s ({window.what})")
            later = process.blocked[position + 1 :]
            undisturbed = window.end + GREEN_S <= min(
                process.ended, process.terminated or math.inf, later[0].start if later else math.inf
            )
            after = [each for each in asked[process.pid] if window.end < each["t"] <= window.end + GREEN_S]
            undisturbed = undisturbed and not any(window.start - GREEN_S <= t <= window.end + GREEN_S for t in harmed)
            if undisturbed and not any(each["status"] == 200 for each in after):
                verdict.fail(f"{process.place} was not well again {GREEN_S:.0f} s after {window.what}")
    verdict.figures["outages over 10 s"] = outages
    verdict.figures["samples"] = sum(map(len, asked.values()))
    return verdict


def _was_redis_away(evidence: Evidence, process: Process) -> bool:
    """Whether a process could not always reach a Redis that takes writes while it lived."""
    windows = [*process.blocked, *evidence.incidents.failovers]
    return any(window.overlap(process.started, process.ended) > 0 for window in windows)


def as_expected(evidence: Evidence) -> Verdict:
    """0: what faults did had the effect it has to have; who was asked to end exited with 0, and no other exited.

    But for a worker that was killed by the task it ran, and one that could not reach Redis when it started.
    """
    verdict = Verdict(number=0, title="faults took effect; processes exited only if asked to, and then with 0")
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
            verdict.fail(f"{process.place} was asked to end and exited with {process.status}")
        elif process.status != UNREACHED or not _was_redis_away(evidence, process):
            age_s = process.ended - process.started
            verdict.fail(f"{process.place} exited with {process.status} by itself, {age_s:.1f} s after its start")
    verdict.figures["asked to end"] = asked
    stalls = evidence.incidents.stalls
    if stalls:
        verdict.figures["machine stood still"] = len(stalls)
        verdict.figures["longest s"] = round(max(stall.length for stall in stalls), 1)
    return verdict
