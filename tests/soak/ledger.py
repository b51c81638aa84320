"""Ledgers: each process appends events to a separate file outside Redis. The files are merged after the soak.

Each event is one line and one write to the kernel, so a killed process loses no event; at most its last line is
incomplete. All times are seconds of the machine's monotonic clock, which is the same for all processes.

===============  ==============================  ===============================================================
written by       event                           meaning
===============  ==============================  ===============================================================
producers        attempt                         the task is about to be enqueued
                 acknowledged, refused, unknown  result of the enqueue
                 flow attempt, ...               the same for a workflow, with its expected steps
workers          start                           a run begins: the function is about to be called
                 end, raised, interrupted        the function returned, raised an exception, or was interrupted
                 outcome                         how the worker is about to settle the run
                 lost                            the worker learned that it does not own the task any more
                 recovered, given back           the worker recovered another's task, or returned a task unstarted
                 taken                           when a worker took the task, by Redis's clock (Unix s)
                 item                            an iteration produced an item
                 step                            a step of a workflow ran: its slot and the results that it got
                 letter                          a dead-letter task ran: the id of the archived task
                 durable                         a durable task ran a step, got a result, or was sent a signal
                 part                            a sub-task of a durable task ran: the id of the durable task
schedulers       fired                           a periodic task was enqueued
conductor        see `incidents`                 faults and their effects
===============  ==============================  ===============================================================
"""

import itertools
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]

ENQUEUES = ("attempt", "acknowledged", "refused", "unknown")
ENDS = ("end", "raised", "interrupted")
FLOWS = tuple(f"flow {answer}" for answer in ENQUEUES)


class Ledger:
    """Appends events to a file. Safe to share between threads: one line is one write.

    Args:
        folder: Folder of all ledgers.
        who: Name of the process's place, such as `worker-1`.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        self.pid = os.getpid()
        self._file = os.open(folder / f"{who}-{self.pid}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **facts: Any) -> None:
        """Append an event with the current time."""
        line = json.dumps({"t": time.monotonic(), "event": event, "who": self.who, "pid": self.pid, **facts})
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(folder: Path) -> list[Event]:
    """Return the events of all ledgers in a folder, sorted by time. Incomplete last lines are ignored."""
    events: list[Event] = []
    for file in sorted(folder.glob("*.jsonl")):
        lines = file.read_bytes().split(b"\n")
        events += [json.loads(line) for line in lines[:-1]]  # the part after the last newline is empty or incomplete
    events.sort(key=lambda event: event["t"])
    return events


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a task, which is one call of its function.

    Attributes:
        started, ended: Monotonic seconds; `ended` is None if the function never ended, as in a killed process.
        how: How the function ended: `end`, `raised`, `interrupted`, or "" if it never ended.
        outcome, outcome_at: How the worker was about to settle the run, and when; "" for a success and for a run that
            was not settled.
        lost_at: When the worker learned that it does not own the task any more, None if it did not.
        taken: When a worker took the task, Unix seconds by Redis's clock; None if not recorded.
        items: Items of the iteration.
        got: Results that a step of a workflow got, or, in a dead-letter task, the id of the archived task.
    """

    task_id: str
    name: str
    who: str
    pid: int
    number: int
    attempt: int
    started: float
    key: str = ""
    ended: float | None = None
    how: str = ""
    outcome: str = ""
    outcome_at: float | None = None
    lost_at: float | None = None
    taken: float | None = None
    items: list[int] = field(default_factory=list)
    got: Any = None


@dataclass(slots=True, kw_only=True)
class Task:
    """The events of one task in the ledgers."""

    id: str
    name: str = ""
    queue: str = ""
    slot: int | None = None
    enqueues: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    facts: Event = field(default_factory=dict)
    attempted_at: float = math.inf
    answered_at: float = math.inf

    @property
    def is_acknowledged(self) -> bool:
        return "acknowledged" in self.enqueues

    @property
    def is_unknown(self) -> bool:
        """Whether the result of an attempt to enqueue the task is unknown."""
        answered = self.enqueues.count("acknowledged") + self.enqueues.count("refused")
        return self.enqueues.count("attempt") > answered

    @property
    def has_succeeded(self) -> bool:
        return any(run.how == "end" for run in self.runs)


@dataclass(slots=True, kw_only=True)
class Step:
    """The expected result of a step of a workflow.

    Attributes:
        after: Slots of its predecessors.
        got: The results that it must get.
        end: How it must end: `done`, `failed` or `skipped`.
    """

    slot: int
    after: list[int]
    got: Any
    end: str


@dataclass(slots=True, kw_only=True)
class Flow:
    """A workflow that a producer enqueued.

    Attributes:
        answer: Result of the enqueue: `acknowledged`, `refused`, `unknown`, or `attempt` if none was recorded.
        id, queue: Id of the workflow and the queue of its state, "" if no result was recorded.
        state: Expected final state.
        is_kept: Whether it must still exist at the end of the soak.
    """

    name: str
    kind: str
    steps: list[Step]
    state: str
    is_kept: bool
    answer: str = "attempt"
    id: str = ""
    queue: str = ""
    answered_at: float = math.inf


@dataclass(slots=True, kw_only=True)
class History:
    """The merged ledgers."""

    tasks: dict[str, Task]
    fired: dict[str, list[Event]]
    """Firings that schedulers enqueued, by task id."""
    events: list[Event]
    """All events, sorted by time."""
    flows: dict[str, Flow] = field(default_factory=dict)
    """Workflows by id."""

    def flow_of(self, task_id: str) -> Flow | None:
        """Return the workflow of a step; None for other tasks."""
        return self.flows.get(task_id.partition(".")[0])

    @property
    def runs(self) -> Iterator[Run]:
        return itertools.chain.from_iterable(task.runs for task in self.tasks.values())

    def of_task(self, task_id: str) -> list[Event]:
        """Return all events of one task."""
        return [event for event in self.events if event.get("id") == task_id]


def merge(events: Iterable[Event]) -> History:
    """Build the history from events that are sorted by time."""
    tasks: dict[str, Task] = {}
    fired: dict[str, list[Event]] = defaultdict(list)
    running: dict[tuple[int, int], Run] = {}
    begun: dict[str, Flow] = {}
    kept = list(events)
    for event in kept:
        kind = event["event"]
        if kind in ENQUEUES:
            task = tasks.setdefault(event["id"], Task(id=event["id"]))
            task.enqueues.append(kind)
            if kind == "acknowledged":
                task.answered_at = event["t"]
            if kind == "attempt":
                task.attempted_at = event["t"]
                task.name, task.queue, task.slot = event["name"], event["queue"], event.get("slot")
                task.facts = event
        elif kind == "start":
            task = tasks.setdefault(event["id"], Task(id=event["id"]))
            task.name, task.queue = event["name"], event["queue"]
            run = Run(
                task_id=event["id"],
                name=event["name"],
                who=event["who"],
                pid=event["pid"],
                number=event["run"],
                attempt=event["attempt"],
                started=event["t"],
                key=event.get("key", ""),
            )
            task.runs.append(run)
            running[event["pid"], event["run"]] = run
        elif kind in ENDS:
            run = running[event["pid"], event["run"]]
            run.ended, run.how = event["t"], kind
        elif kind in ("outcome", "lost"):
            found = running.get((event["pid"], event["run"]))
            if found is not None and found.task_id == event["id"]:  # else the function was never called
                if kind == "lost" or event["outcome"] == "lost":
                    found.lost_at = event["t"] if found.lost_at is None else found.lost_at
                else:
                    found.outcome, found.outcome_at = event["outcome"], event["t"]
        elif kind in ("taken", "item", "step", "letter"):
            _add_to_run(tasks[event["id"]], running[event["pid"], event["run"]], event)
        elif kind in FLOWS:
            _add_to_workflow(begun, event)
        elif kind == "fired":
            fired[event["id"]].append(event)
    flows = {flow.id: flow for flow in begun.values() if flow.id}
    return History(tasks=tasks, fired=dict(fired), events=kept, flows=flows)


def _add_to_run(task: Task, run: Run, event: Event) -> None:
    """Add the data of an event to its run."""
    match event["event"]:
        case "taken":
            run.taken = event["at"]
        case "item":
            run.items.append(event["item"])
        case "step":
            task.slot, run.got = event["slot"], event["got"]
        case _:
            run.got = event["of"]


def _add_to_workflow(flows: dict[str, Flow], event: Event) -> None:
    """Add the data of an event to its workflow."""
    name, answer = event["flow"], event["event"].removeprefix("flow ")
    if answer == "attempt":
        steps = [Step(slot=slot, after=after, got=got, end=end) for slot, after, got, end in event["steps"]]
        flows[name] = Flow(name=name, kind=event["kind"], steps=steps, state=event["state"], is_kept=event["kept"])
        return
    flow = flows[name]
    flow.answer, flow.id, flow.queue, flow.answered_at = answer, event["workflow"], event["queue"], event["t"]
