"""Number of processes, and the rules for replacing them."""

import random

from msgspec import Struct
from msgspec.structs import force_setattr

from taskq_core.settings import AUTO, PROCESSES_MAX, Duration, check_health_address, check_whole, memory_bytes, seconds
from taskq_core.supervisor.cores import usable_cores

TICK_S = 1.0
"""Seconds between two regular checks of the supervisor. The supervisor also checks after each event, such as a
signal."""
TAKE_BACK_S = 5.0
"""Maximum time for returning the tasks of the last processes, before the supervisor ends."""
FIRST_PAUSE_S = 1.0
"""Seconds until the next start of a process that died twice in a row. The time doubles with each further death."""
LONGEST_PAUSE_S = 60.0
"""Maximum seconds until the next start after the death of a process."""
STEADY_S = 60.0
"""Seconds of work after which earlier deaths of a process no longer count."""
START_TRIES = 3
"""Number of failed starts of each process after which the supervisor gives up, if no process has ever worked."""
MEMBER_SHARE = 0.8
"""Fraction of the time to send the last telemetry that worker processes may use. The rest is for their supervisor."""


class SupervisorConfig(Struct, frozen=True, kw_only=True):
    """Configuration of the parent of worker processes."""

    processes: int = 1
    """Number of processes, 1 to 512."""
    max_tasks: int | None = None
    """Approximate number of tasks after which a process is replaced. None: no limit."""
    max_memory: int | None = None
    """Memory in bytes above which a process is replaced. None: no limit."""
    ending: Duration = 45.0
    """Seconds after which the supervisor kills a process that it asked to stop."""
    aborting: Duration = 15.0
    """Seconds after which the supervisor kills a process that it asked to stop at once."""
    silence: Duration = 60.0
    """Seconds without messages after which the supervisor kills a process. The leases of its tasks expire earlier."""
    loading: Duration = 300.0
    """Maximum seconds for importing the code. After that, the process is killed."""
    starting: Duration = 300.0
    """Maximum seconds from the import of the code until a process takes tasks, because a lifespan may hang. After that,
    the process is killed."""
    burst: bool = False
    """Burst mode: a process that ends by itself has finished its work, and is not replaced."""
    wait_for_redis: bool = True
    """Start the first processes only when Redis answers. False: end with an error if Redis cannot be reached."""
    health_host: str = "127.0.0.1"
    """Address of the health endpoint for all processes."""
    health_port: int | None = None
    """Port of the health endpoint, 0 for any free port. None: no endpoint."""

    def __post_init__(self) -> None:
        check_whole("processes", self.processes, least=1, most=PROCESSES_MAX)
        if self.max_tasks is not None:
            check_whole("max_tasks", self.max_tasks, least=1, most=1_000_000_000)
        if self.max_memory is not None:
            memory_bytes("max_memory", self.max_memory)
        for name in ("ending", "aborting", "silence", "loading", "starting"):
            force_setattr(self, name, seconds(name, getattr(self, name), allow_zero=False))
        check_health_address(self.health_host, self.health_port)

    @property
    def ends_within_s(self) -> float:
        """Maximum shutdown time in seconds. The process manager must wait longer before it sends SIGKILL."""
        return self.span("ending") + 2 * TICK_S + TAKE_BACK_S

    def span(self, name: str) -> float:
        """Return a duration of this record in seconds."""
        return seconds(name, getattr(self, name))


def process_count(processes: int | str) -> int:
    """Return the number of processes. `auto` means the number of usable cores."""
    return usable_cores() if processes == AUTO else int(processes)


class Pause:
    """Computes the pause before a process that died is replaced. After the first death, there is no pause."""

    def __init__(self) -> None:
        self.deaths = 0
        """Number of deaths of a process in a row."""

    def after(self, lived_s: float) -> float:
        """Return the pause in seconds after the death of a process that worked for `lived_s` seconds."""
        self.deaths = 1 if lived_s >= STEADY_S else self.deaths + 1
        if self.deaths == 1:
            return 0.0
        longest = min(FIRST_PAUSE_S * 2.0 ** min(self.deaths - 2, 10), LONGEST_PAUSE_S)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - jitter, no secret

    def forget(self) -> None:
        """Forget earlier deaths, because the next process runs new code, which may not die."""
        self.deaths = 0


class Limits(Struct):
    """Limits at which a process asks to be replaced.

    The limits are random, so that processes are not replaced together.

    Attributes:
        tasks: Number of ended tasks, None for no limit.
        memory: Memory in bytes, None for no limit.
    """

    tasks: int | None = None
    memory: int | None = None

    @classmethod
    def drawn(cls, max_tasks: int | None, max_memory: int | None) -> "Limits":
        """Return random limits: up to a tenth less memory, up to a tenth more or fewer tasks."""
        tasks = None if max_tasks is None else max(1, round(max_tasks * random.uniform(0.9, 1.1)))  # noqa: S311
        memory = None if max_memory is None else round(max_memory * random.uniform(0.9, 1.0))  # noqa: S311
        return cls(tasks, memory)

    def reached(self, tasks: int, memory: int) -> str:
        """Return why a process must be replaced, "" if not.

        The memory does not count before the first task has ended, because a new process would use as much.
        """
        if self.tasks is not None and tasks >= self.tasks:
            return f"the process has run {tasks} tasks"
        if self.memory is not None and memory > self.memory and tasks:
            return f"the process uses {memory / 1e6:.0f} MB of memory"
        return ""
