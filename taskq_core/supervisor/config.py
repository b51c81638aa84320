"""How many processes a worker has and when each is replaced: one checked record, and the pure rules about it."""

import random
from dataclasses import dataclass

from taskq_core.service.health import check_health_address
from taskq_core.settings import AUTO, PROCESSES_MAX, Duration, check_whole, memory_bytes, seconds
from taskq_core.supervisor.cores import usable_cores

TICK_S = 1.0
"""Seconds between two looks of a supervisor at what is due, beside those that something gives rise to."""
HAND_BACK_S = 5.0
"""Seconds in which what the last processes held is given back before the supervisor ends."""
FIRST_PAUSE_S = 1.0
"""Seconds before a process that died twice in a row is followed by another one; twice as long each further time."""
LONGEST_PAUSE_S = 60.0
"""Most seconds before a process is followed by another one."""
STEADY_S = 60.0
"""Seconds after which a process that dies is followed as if it were the first to die."""
START_TRIES = 3
"""Processes that may die at their start, at each place, before it is given up that any comes up."""
MEMBER_SHARE = 0.8
"""Fraction of the final telemetry timeout for worker processes. The rest is for their supervisor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorConfig:
    """Configuration of the parent of worker processes."""

    processes: int = 1
    """Processes that work at the same time, 1 to 512."""
    max_tasks: int | None = None
    """Tasks after about which a process is replaced. None: it is not for their number."""
    max_memory: int | None = None
    """Bytes of memory beyond which a process is replaced. None: it is not for its memory."""
    ending: Duration = 45.0
    """Seconds after which a process that was told to stop is killed."""
    aborting: Duration = 15.0
    """Seconds after which a process that was told to stop at once is killed."""
    silence: Duration = 60.0
    """Seconds after which a process that says nothing is killed: its leases have ended, and others have its tasks."""
    loading: Duration = 300.0
    """Seconds after which a process that has not loaded its code is killed."""
    starting: Duration = 300.0
    """Seconds after that in which one that takes no tasks is killed: what a lifespan opens hangs. As long, for that may
    fill caches."""
    burst: bool = False
    """Whether a process that ends by itself has done its work."""
    health_host: str = "127.0.0.1"
    """Address at which the health of all is told over HTTP."""
    health_port: int | None = None
    """Port at which it is told, 0 for any free one. None: it is not told."""

    def __post_init__(self) -> None:
        check_whole("processes", self.processes, least=1, most=PROCESSES_MAX)
        if self.max_tasks is not None:
            check_whole("max_tasks", self.max_tasks, least=1, most=1_000_000_000)
        if self.max_memory is not None:
            memory_bytes("max_memory", self.max_memory)
        for name in ("ending", "aborting", "silence", "loading", "starting"):
            object.__setattr__(self, name, seconds(name, getattr(self, name), allow_zero=False))
        check_health_address(self.health_host, self.health_port)

    @property
    def ends_within_s(self) -> float:
        """Seconds after which it has ended that was told to stop. Who kills it has to wait longer.

        By then its last process was killed, and what that held was given back.
        """
        return self.span("ending") + 2 * TICK_S + HAND_BACK_S

    def span(self, name: str) -> float:
        """Return a duration of this record in seconds."""
        return seconds(name, getattr(self, name))


def process_count(processes: int | str) -> int:
    """Return how many processes are meant: for `auto` as many as this process may use cores, at least 1."""
    return usable_cores() if processes == AUTO else int(processes)


class Pause:
    """How long to wait before a process that died is followed by another one. The first is followed at once."""

    def __init__(self) -> None:
        self.deaths = 0
        """Deaths in a row."""

    def after(self, lived_s: float) -> float:
        """Return the seconds to wait after a process that lived so long."""
        self.deaths = 1 if lived_s >= STEADY_S else self.deaths + 1
        if self.deaths == 1:
            return 0.0
        longest = min(FIRST_PAUSE_S * 2.0 ** min(self.deaths - 2, 10), LONGEST_PAUSE_S)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - jitter, no secret

    def forget(self) -> None:
        """Begin anew: what follows is other code."""
        self.deaths = 0


@dataclass(slots=True)
class Limits:
    """When one process asks to be replaced. Drawn anew for each, so that processes started together part.

    Attributes:
        tasks: Ended tasks, None for any number.
        memory: Bytes of memory, None for any.
    """

    tasks: int | None = None
    memory: int | None = None

    @classmethod
    def drawn(cls, max_tasks: int | None, max_memory: int | None) -> "Limits":
        """Return limits within a tenth of those given: of the memory below, of the tasks to either side."""
        tasks = None if max_tasks is None else max(1, round(max_tasks * random.uniform(0.9, 1.1)))  # noqa: S311
        memory = None if max_memory is None else round(max_memory * random.uniform(0.9, 1.0))  # noqa: S311
        return cls(tasks, memory)

    def reached(self, tasks: int, memory: int) -> str:
        """Return why a process with so many ended tasks and bytes of memory is to be replaced, "" if it is not.

        It is not before it has run anything: what it takes then, its successor takes as well.
        """
        if self.tasks is not None and tasks >= self.tasks:
            return f"it has run {tasks} tasks"
        if self.memory is not None and memory > self.memory and tasks:
            return f"it takes {memory / 1e6:.0f} MB of memory"
        return ""
