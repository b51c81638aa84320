"""What was done to whom, read from the conductor's ledger: which extra runs it allows, how long it lasted. Pure.

=============================  =====================================================================================
event                          means
=============================  =====================================================================================
started                        a process was started in a place
killed, exited                 it was killed, or it ended by itself with a status
terminated                     it was asked to end; short tasks must be finished, others may go back
frozen, thawed                 it was stopped by a signal, and continued
outage, outage over            Redis could not be reached from a place, or from anywhere
failover, failover over        another server took over; what was not replicated is lost
start, end                     of a coroutine that blocks the event loop: the worker settles nothing meanwhile
(nothing for a second)         the machine stood still: no process ran, whatever it is
damaged                        a task was damaged on purpose
unexpected                     something was not as it has to be
=============================  =====================================================================================
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.soak.ledger import Event
from tests.soak.profiles import Leases

BLOCKING = "blocking"
"""The task that blocks the event loop."""
STILL_S = 1.0
"""Seconds without a line from any process, one of which writes five a second, after which no process can have run."""
LAG_S = 1.0
"""Seconds by which a replica may be behind."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which something could not be reached, in monotonic seconds."""

    start: float
    end: float
    what: str = ""

    @property
    def length(self) -> float:
        return self.end - self.start

    def overlap(self, start: float, end: float) -> float:
        """Return for how many seconds of a time it lasted."""
        return max(0.0, min(self.end, end) - max(self.start, start))


def merged(windows: Iterable[Window], gap_s: float) -> list[Window]:
    """Join windows that overlap, or that lie so close that a worker may not have come back in between."""
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
    """One process that took part.

    Attributes:
        ended: When it was gone, infinity if it was not.
        died: Whether it ended otherwise than it was asked to.
        terminated: When it was asked to end, None if it was not.
        expects: Which tasks it was asked to end with: `short`, `long` or `storm`.
        apart: When it could not reach Redis, or could not run.
        blocked: The same, joined where it may not have come back in between.
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
        """Return the times so long that others may have taken its tasks meanwhile."""
        return [each for each in self.blocked if each.length > leases.tolerated_s]


@dataclass(slots=True, kw_only=True)
class Incidents:
    """All that was done."""

    processes: dict[int, Process]
    outages: list[Window]
    """Times when no process could reach Redis, merged."""
    failovers: list[Window]
    """When another server took over."""
    damaged: dict[str, bool]
    """By id of a task: whether it must be run all the same."""
    unexpected: list[str]
    stalls: list[Window]
    """Times when the machine was stalled."""

    @property
    def workers(self) -> list[Process]:
        return [process for process in self.processes.values() if process.role == "worker"]

    def down_s(self, start: float, end: float) -> float:
        """Return for how many seconds of a time span no process could reach Redis."""
        return sum(outage.overlap(start, end) for outage in self.outages)

    def takes_task(self, pid: int, start: float, end: float, leases: Leases) -> str:
        """Return what may have taken a task from a worker between two moments, "" for nothing."""
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
        """Return which failover may have forgotten what was done between two moments, "" for none.

        What was done in the second before it need not have reached the replica.
        """
        for window in self.failovers:
            if window.start - LAG_S <= end and start <= window.end:
                return window.what
        return ""

    def allowance(self, leases: Leases, concurrency: int) -> int:
        """Return how many extra runs are allowed in all.

        `concurrency` for each worker that died, each time its leases ran out, and each time it was told to end with
        tasks longer than its grace. What a failover forgets comes on top.
        """
        count = 0
        for worker in self.workers:
            count += worker.died + len(worker.lost_leases(leases)) + (worker.terminated is not None)
        return count * concurrency


def read_incidents(events: Sequence[Event], leases: Leases) -> Incidents:
    """Read what was done from the merged ledgers."""
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
        Window(before["t"], after["t"], "the machine stood still")
        for before, after in itertools.pairwise(events)
        if after["t"] - before["t"] > STILL_S
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
