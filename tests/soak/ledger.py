"""What happened, outside Redis: each process appends lines to a file of its own, which are merged afterwards.

A line reaches the kernel in one write before the process goes on, so that a killed process loses none; at most its last
line is torn. All times are seconds of the machine's monotonic clock, which its processes share.

===============  ==============================  ===============================================================
written by       event                           means
===============  ==============================  ===============================================================
producers        attempt                         the task is about to be enqueued
                 acknowledged, refused, unknown  what came of it
                 flow attempt, ...               the same of a workflow, with the plan of its steps
workers          start                           a run begins: the function is about to be called
                 end, raised, interrupted        the function returned, raised, or was told to end and did
                 outcome                         how the worker means to settle the run
                 lost                            the worker was told that the run is not its own any more
                 recovered, given back           the worker took a task back from another, or did not begin one
                 taken                           when a worker took the task, by Redis's clock (Unix s)
                 item                            an iteration handed out an item
                 step                            a step of a workflow ran: its slot, and what it was handed
                 letter                          a task was told of the archived one that it is enqueued for
schedulers       fired                           a firing was enqueued
conductor        see `incidents`                 what was done to the processes
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
        folder: Where all ledgers stand.
        who: Name of the process's place, such as `worker-1`.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        self.pid = os.getpid()
        self._file = os.open(folder / f"{who}-{self.pid}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with the time."""
        line = json.dumps({"t": time.monotonic(), "event": event, "who": self.who, "pid": self.pid, **facts})
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(folder: Path) -> list[Event]:
    """Return the events of all ledgers of a folder in the order of their time. A torn last line is left out."""
    events: list[Event] = []
    for file in sorted(folder.glob("*.jsonl")):
        lines = file.read_bytes().split(b"\n")
        events += [json.loads(line) for line in lines[:-1]]  # what follows the last newline is empty, or torn
    events.sort(key=lambda event: event["t"])
    return events


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a task: the function was called once.

    Attributes:
        started, ended: Monotonic seconds; `ended` is None for a run that never came back.
        how: `end`, `raised`, `interrupted`, or "" for one that never came back.
        outcome, outcome_at: How the worker meant to settle it, and when; "" if it did not come to that. That a run
            succeeded is not told again.
        lost_at: When the worker was told that it is not its own, None if it was not.
        taken: When a worker took it, Unix seconds by Redis's clock; None where that was not asked for.
        items: Items that its iteration handed out.
        got: What it was handed as a step of a workflow, or which task it was told of as a dead letter.
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
        """Somebody may have enqueued it: an attempt has no certain answer."""
        answered = self.enqueues.count("acknowledged") + self.enqueues.count("refused")
        return self.enqueues.count("attempt") > answered

    @property
    def has_succeeded(self) -> bool:
        return any(run.how == "end" for run in self.runs)


@dataclass(slots=True, kw_only=True)
class Step:
    """What has to become of one step of a workflow.

    Attributes:
        after: Slots of the steps it comes after.
        got: What it has to be handed.
        fate: `done`, `failed` or `skipped`.
    """

    slot: int
    after: list[int]
    got: Any
    fate: str


@dataclass(slots=True, kw_only=True)
class Flow:
    """What producers know of one workflow.

    Attributes:
        answer: `acknowledged`, `refused`, `unknown`; `attempt` without an answer.
        id, queue: Its id and its home, "" without an answer.
        state: How it has to end.
        is_kept: Whether it still has to be there in the end.
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
    """Firings that schedulers say they enqueued, by the id of their task."""
    events: list[Event]
    """Everything, in the order of time."""
    flows: dict[str, Flow] = field(default_factory=dict)
    """Workflows by their id."""

    def flow_of(self, task_id: str) -> Flow | None:
        """Return the workflow that a task is a step of."""
        return self.flows.get(task_id.partition(".")[0])

    @property
    def runs(self) -> Iterator[Run]:
        return itertools.chain.from_iterable(task.runs for task in self.tasks.values())

    def of_task(self, task_id: str) -> list[Event]:
        """Return all that was written about one task."""
        return [event for event in self.events if event.get("id") == task_id]


def merge(events: Iterable[Event]) -> History:
    """Build the history from events in the order of time. Pure."""
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
            if found is not None and found.task_id == event["id"]:  # else its function was never called
                if kind == "lost" or event["outcome"] == "lost":
                    found.lost_at = event["t"] if found.lost_at is None else found.lost_at
                else:
                    found.outcome, found.outcome_at = event["outcome"], event["t"]
        elif kind in ("taken", "item", "step", "letter"):
            _note(tasks[event["id"]], running[event["pid"], event["run"]], event)
        elif kind in FLOWS:
            _follow(begun, event)
        elif kind == "fired":
            fired[event["id"]].append(event)
    flows = {flow.id: flow for flow in begun.values() if flow.id}
    return History(tasks=tasks, fired=dict(fired), events=kept, flows=flows)


def _note(task: Task, run: Run, event: Event) -> None:
    """Keep what a run has written of itself."""
    match event["event"]:
        case "taken":
            run.taken = event["at"]
        case "item":
            run.items.append(event["item"])
        case "step":
            task.slot, run.got = event["slot"], event["got"]
        case _:
            run.got = event["of"]


def _follow(flows: dict[str, Flow], event: Event) -> None:
    """Keep what a producer has written of a workflow."""
    name, answer = event["flow"], event["event"].removeprefix("flow ")
    if answer == "attempt":
        steps = [Step(slot=slot, after=after, got=got, fate=fate) for slot, after, got, fate in event["steps"]]
        flows[name] = Flow(name=name, kind=event["kind"], steps=steps, state=event["state"], is_kept=event["kept"])
        return
    flow = flows[name]
    flow.answer, flow.id, flow.queue, flow.answered_at = answer, event["workflow"], event["queue"], event["t"]
