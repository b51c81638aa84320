"""A ledger of runs: which tasks ran, when, and how often. It is a file that all processes of a measurement map.

Each task has a number. A run writes the start, the end and the process of its task, and increases the number of runs.
The file survives workers that are killed. Two runs of one task that write within a few nanoseconds may count as one.
The interpreters of the peers use this module, so it needs only the standard library.
"""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

_BYTES_A_TASK = 8 + 8 + 4 + 1
MOST_RUNS = 255
"""Maximum number of runs of a task that the ledger counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How often tasks ran that should have run exactly once."""

    expected: int
    once: int
    lost: int
    repeated: int
    """Number of tasks that ran more than once."""
    runs: int
    """Number of runs of all tasks."""

    @property
    def is_exact(self) -> bool:
        """Whether each task ran exactly once."""
        return self.once == self.expected


class Ledger:
    """A ledger for task numbers from 0 to below its capacity.

    Args:
        path: The file, which `create` creates.
        process_id: Identifies the process that ran a task; for a peer that forks for each task, the parent process.
    """

    def __init__(self, path: str | Path, process_id: Callable[[], int] = os.getpid) -> None:
        self._process_id = process_id
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.path = str(path)
        self.capacity = capacity = len(self._memory) // _BYTES_A_TASK
        view = memoryview(self._memory)
        self.starts = view[: 8 * capacity].cast("q")
        self.ends = view[8 * capacity : 16 * capacity].cast("q")
        self.processes = view[16 * capacity : 20 * capacity].cast("I")
        self.runs = view[20 * capacity : 21 * capacity]

    @classmethod
    def create(cls, path: str | Path, capacity: int) -> "Ledger":
        """Create an empty file for this many tasks. Overwrite an existing file."""
        with open(path, "wb") as file:
            file.truncate(capacity * _BYTES_A_TASK)
        return cls(path)

    def ran(self, number: int) -> None:
        """Record the run of a task that does nothing else."""
        self.starts[number] = self.ends[number] = time_ns()
        self.processes[number] = self._process_id()
        if self.runs[number] < MOST_RUNS:
            self.runs[number] += 1

    def began(self, number: int) -> None:
        """Record the start of a task. `ended` must follow."""
        self.starts[number] = time_ns()

    def ended(self, number: int) -> None:
        """Record the end of a task."""
        self.ends[number] = time_ns()
        self.processes[number] = self._process_id()
        if self.runs[number] < MOST_RUNS:
            self.runs[number] += 1

    def seen(self, count: int) -> int:
        """Return how many of the first `count` tasks have run at least once."""
        return count - bytes(self.runs[:count]).count(0)

    def account(self, count: int) -> Account:
        """Return how often the first `count` tasks ran. Runs of tasks that were not enqueued count as repeated."""
        runs = bytes(self.runs)
        asked = runs[:count]
        beyond = len(runs) - count - runs[count:].count(0)
        once, lost = asked.count(1), asked.count(0)
        return Account(expected=count, once=once, lost=lost, repeated=count - once - lost + beyond, runs=sum(runs))

    def rate(self, count: int) -> float:
        """Return the tasks per second of the first `count` tasks, from the time at which all processes have started."""
        begun: dict[int, int] = {}
        for process, start in zip(self.processes[:count], self.starts[:count], strict=True):
            if start and start < begun.get(process, start + 1):
                begun[process] = start
        since = max(begun.values())
        ran = sum(start >= since for start in self.starts[:count])
        return ran / max(1e-9, (max(self.ends[:count]) - since) / 1e9)

    def close(self) -> None:
        """Unmap the file, without deleting it."""
        for view in (self.starts, self.ends, self.processes, self.runs):
            view.release()
        self._memory.close()
