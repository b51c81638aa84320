"""Read the faults and their effects from the ledgers: which process died, which was cut off, and for how long.

From this it derives which extra runs of tasks are allowed. The functions do no I/O. The events are:

=============================  =====================================================================================
event                          meaning
=============================  =====================================================================================
started                        a process was started in a place, such as `worker-1`
killed, exited                 the process was killed, or exited with a status
terminated                     the process got SIGTERM; it must finish short tasks, and may return long ones
frozen, thawed                 the process got SIGSTOP, and SIGCONT
outage, outage over            Redis was unreachable from one place, or from all
failover, failover over        another server became primary; writes that were not replicated are lost
start, end                     run of a coroutine that blocks the event loop, so that the worker settles nothing
(no event for a second)        the machine was stalled: no process ran
damaged                        a fault damaged the keys of a task
unexpected                     a fault did not have the effect that it must have
=============================  =====================================================================================
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.soak.ledger import Event
from tests.soak.profiles import Leases

BLOCKING = "blocking"
"""Name of the task that blocks the event loop."""
STALL_S = 1.0
"""Seconds without any event that count as a stall of the machine. A thread of the conductor writes five a second."""
LAG_S = 1.0
"""Maximum replication lag in seconds."""


@dataclass(frozen=True, slots=True)
class Window:
    """A period in which a process could not work or could not reach Redis, in seconds of the monotonic clock."""

    start: float
    end: float
    what: str = ""

    @property
    def length(self) -> float:
        return self.end - self.start

    def overlap(self, start: float, end: float) -> float:
        """Return how many seconds of the period from `start` to `end` are in this window."""
        return max(0.0, min(self.end, end) - max(self.start, start))


def merged(windows: Iterable[Window], gap_s: float) -> list[Window]:
    """Join windows that overlap, or with so small a gap that a worker may not have reconnected in between."""
    joined: list[Window] = []
    for window in sorted(windows, key=lambda each: each.start):
        if joined and window.start <= joined[-1].end + gap_s:
            last = joined[-1]
            joined[-1] = Window(last.start, max(last.end, window.end), f"{last.what}, {window.what}")
        else:
            joined.append(window)
    return joined


@dataclass(slots=True, kw_only=True)
class Process:
    """A process of the soak. Times are seconds of the monotonic clock.

    Attributes:
        ended: When the process ended, infinity if it did not.
        died: Whether it was killed or exited with a status other than 0.
        terminated: When it got SIGTERM, None if it did not.
        expects: Why it got SIGTERM: while it ran `short` or `long` tasks, in a signal `storm`, or when it was `idle`.
        frozen: Periods between SIGSTOP and SIGCONT, and stalls of the machine.
        apart: Periods in which it could not run or could not reach Redis.
        blocked: The same periods, joined if it may not have reconnected in between.
    """

    place: str
    pid: int
    started: float
    ended: float = math.inf
    died: bool = False
    status: int | None = None
    terminated: float | None = None
    expects: str = ""
    frozen: list[Window] = field(default_factory=list)
    apart: list[Window] = field(default_factory=list)
    blocked: list[Window] = field(default_factory=list)

    @property
    def role(self) -> str:
        return self.place.partition("-")[0]

    def lost_leases(self, leases: Leases) -> list[Window]:
        """Return the periods that were so long that other workers may have recovered the tasks of this process."""
        return [each for each in self.blocked if each.length > leases.tolerated_s]


@dataclass(slots=True, kw_only=True)
class Incidents:
    """All faults of a soak and their effects."""

    processes: dict[int, Process]
    outages: list[Window]
    """Periods in which no process could reach Redis, merged."""
    failovers: list[Window]
    """Periods in which another server became primary."""
    damaged: dict[str, bool]
    """For the id of each damaged task: whether the task must still run."""
    unexpected: list[str]
    """Sentences about faults that did not have the effect that they must have."""
    stalls: list[Window]
    """Periods in which the machine was stalled."""

    @property
    def workers(self) -> list[Process]:
        return [process for process in self.processes.values() if process.role == "worker"]

    def down_s(self, start: float, end: float) -> float:
        """Return how many seconds of a period no process could reach Redis."""
        return sum(outage.overlap(start, end) for outage in self.outages)

    def takes_task(self, pid: int, start: float, end: float, leases: Leases) -> str:
        """Return why another worker may have recovered a task of this worker in a period, "" without a reason."""
        process = self.processes.get(pid)
        if process is None:
            return ""
        if process.died and start <= process.ended <= end:
            return "its process died"
        for window in process.lost_leases(leases):
            if window.start <= end and start <= window.end + leases.heartbeat:
                return window.what
        return ""

    def forgets(self, start: float, end: float) -> str:
        """Return which failover may have lost a write of a period, "" if there was none.

        A write in the last second before a failover may be missing on the replica.
        """
        for window in self.failovers:
            if window.start - LAG_S <= end and start <= window.end:
                return window.what
        return ""

    def allowance(self, leases: Leases, concurrency: int) -> int:
        """Return the maximum number of extra runs, not counting those caused by failovers.

        It is `concurrency` for each death of a worker, each expiry of its leases, and each SIGTERM.
        """
        count = 0
        for worker in self.workers:
            count += worker.died + len(worker.lost_leases(leases)) + (worker.terminated is not None)
        return count * concurrency


def read_incidents(events: Sequence[Event], leases: Leases) -> Incidents:
    """Read the incidents from the events of the merged ledgers."""
    last_t = events[-1]["t"] if events else 0.0
    processes: dict[int, Process] = {}
    open_outages: dict[int, Event] = {}
    outages: list[tuple[str | None, Window]] = []
    open_failovers: dict[int, Event] = {}
    failovers: list[Window] = []
    damaged: dict[str, bool] = {}
    unexpected: list[str] = []
    blocking: dict[tuple[int, int], float] = {}
    frozen: dict[int, float] = {}

    def thaw(pid: int, t: float) -> None:
        if pid in frozen:
            processes[pid].frozen.append(Window(frozen.pop(pid), t, "it was frozen"))

    for event in events:
        t = event["t"]
        match event["event"]:
            case "started":
                processes[event["process"]] = Process(place=event["place"], pid=event["process"], started=t)
            case "killed":
                thaw(event["process"], t)
                process = processes[event["process"]]
                process.ended, process.died = t, True
            case "exited":
                thaw(event["process"], t)
                process = processes[event["process"]]
                process.ended, process.status = t, event["status"]
                process.died = event["status"] != 0
            case "terminated":
                if event["process"] in processes:
                    processes[event["process"]].terminated = t
                    processes[event["process"]].expects = event["expects"]
            case "frozen":
                frozen.setdefault(event["process"], t)
            case "thawed":
                thaw(event["process"], t)
            case "outage":
                open_outages[event["key"]] = event
            case "outage over":
                begun = open_outages.pop(event["key"])
                outages.append((begun["place"], Window(begun["t"], t, begun["what"])))
            case "failover":
                open_failovers[event["key"]] = event
            case "failover over":
                begun = open_failovers.pop(event["key"])
                failovers.append(Window(begun["t"], t, begun["what"]))
            case "start" if event["name"] == BLOCKING:
                blocking[event["pid"], event["run"]] = t
            case "end" if (event["pid"], event["run"]) in blocking and event["pid"] in processes:
                since = blocking.pop((event["pid"], event["run"]))
                outages.append((processes[event["pid"]].place, Window(since, t, "its event loop was blocked")))
            case "damaged":
                damaged[event["id"]] = damaged.get(event["id"], True) and event["survives"]
            case "unexpected":
                unexpected.append(event["what"])
    for pid in list(frozen):
        thaw(pid, last_t)
    failovers += [Window(each["t"], last_t, each["what"]) for each in open_failovers.values()]
    outages += [(each["place"], Window(each["t"], last_t, each["what"])) for each in open_outages.values()]

    stalls = [
        Window(before["t"], after["t"], "the machine was stalled")
        for before, after in itertools.pairwise(events)
        if after["t"] - before["t"] > STALL_S
    ]
    gap_s = 2 * leases.heartbeat + 0.2
    for process in processes.values():
        process.frozen += [each for each in stalls if process.started <= each.start < process.ended]
        own = [
            window
            for place, window in outages
            if place in (None, process.place) and window.overlap(process.started, min(process.ended, last_t)) > 0
        ]
        process.apart = merged([*process.frozen, *own], 0.0)
        process.blocked = merged(process.apart, gap_s)
    everywhere = merged([*stalls, *(window for place, window in outages if place is None)], gap_s)
    return Incidents(
        processes=processes,
        outages=everywhere,
        failovers=failovers,
        damaged=damaged,
        unexpected=unexpected,
        stalls=stalls,
    )
