"""What ran, when and how often: a file that every process of a measurement has in its memory.

A task writes its number's start, end, process and one more run. The file outlives workers that are killed. Two runs of
one number that write in the same few nanoseconds may count as one. Used by the interpreters of the peers, so it needs
nothing but Python.
"""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

_BYTES_A_TASK = 8 + 8 + 4 + 1
MOST_RUNS = 255
"""A number that ran more often counts as this many runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How often tasks ran that should have run once."""

    expected: int
    once: int
    lost: int
    repeated: int
    """Tasks that ran more than once."""
    runs: int
    """All runs together."""

    @property
    def is_exact(self) -> bool:
        """Whether each ran once."""
        return self.once == self.expected


class Ledger:
    """A ledger for task numbers from 0 to below its capacity.

    Args:
        path: The file; `create` makes it.
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
        """Note a task that does nothing else."""
        self.starts[number] = self.ends[number] = time_ns()
        self.processes[number] = self._process_id()
        if self.runs[number] < MOST_RUNS:
            self.runs[number] += 1

    def began(self, number: int) -> None:
        """Note the start of a task; `ended` follows."""
        self.starts[number] = time_ns()

    def ended(self, number: int) -> None:
        """Note its end."""
        self.ends[number] = time_ns()
        self.processes[number] = self._process_id()
        if self.runs[number] < MOST_RUNS:
            self.runs[number] += 1

    def seen(self, count: int) -> int:
        """Return how many of the first so many have run at least once."""
        return count - bytes(self.runs[:count]).count(0)

    def account(self, count: int) -> Account:
        """Return how often the first `count` tasks ran. Runs beyond them count as repeated: they were not enqueued."""
        runs = bytes(self.runs)
        asked = runs[:count]
        beyond = len(runs) - count - runs[count:].count(0)
        once, lost = asked.count(1), asked.count(0)
        return Account(expected=count, once=once, lost=lost, repeated=count - once - lost + beyond, runs=sum(runs))

    def rate(self, count: int) -> float:
        """Tasks a second of the first so many, from the first start in the process that began last to the last end."""
        begun: dict[int, int] = {}
        for process, start in zip(self.processes[:count], self.starts[:count], strict=True):
            if start and start < begun.get(process, start + 1):
                begun[process] = start
        since = max(begun.values())
        ran = sum(start >= since for start in self.starts[:count])
        return ran / max(1e-9, (max(self.ends[:count]) - since) / 1e9)

    def close(self) -> None:
        """Let go of the memory; the file stays."""
        for view in (self.starts, self.ends, self.processes, self.runs):
            view.release()
        self._memory.close()
