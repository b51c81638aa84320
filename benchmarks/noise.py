"""Measure what else the machine did during a measurement: CPU stolen by its host, CPU of other processes, and load.

The values are read from `/proc`. On other systems than Linux they are unknown, and the results say so.
"""

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_STAT = Path("/proc/stat")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """CPU time that foreign processes and the host took, in percent of one CPU, and the load of the last minute."""

    steal_percent: float
    foreign_percent: float
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """CPU seconds since the machine started, of all CPUs together."""

    busy_s: float
    steal_s: float

    @classmethod
    def parse(cls, stat: str) -> Self:
        """Read the text of `/proc/stat`.

        Raises:
            ValueError: The text has no line for all CPUs.
        """
        for line in stat.splitlines():
            name, *words = line.split()
            if name == "cpu":
                user, nice, system, _idle, _waiting, irq, softirq, steal = (int(word) * _TICK_S for word in words[:8])
                return cls(busy_s=user + nice + system + irq + softirq, steal_s=steal)
        raise ValueError("/proc/stat has no line `cpu`")


def spent_s(pid: int | str) -> float:
    """Return the CPU seconds of a process and of its reaped children, 0 if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) * _TICK_S


class NoiseMeter:
    """Measures the CPU time that foreign processes use between its creation and `read`.

    This process, its reaped children and the given processes do not count as foreign.

    Args:
        elapsed_s: Current monotonic time in seconds.
        pids: Running processes that do not count as foreign.
    """

    def __init__(self, elapsed_s: float, *pids: int) -> None:
        self._pids = pids
        self._started_s = elapsed_s
        self._before = self._times()
        self._ours_before_s = self._ours_s()

    def read(self, elapsed_s: float) -> Noise | None:
        """Return the noise since the meter was created, None if the system does not report it."""
        after = self._times()
        if self._before is None or after is None:
            return None
        duration_s = max(_TICK_S, elapsed_s - self._started_s)
        ours_s = self._ours_s() - self._ours_before_s
        foreign_s = after.busy_s - self._before.busy_s - ours_s
        return Noise(
            steal_percent=round((after.steal_s - self._before.steal_s) / duration_s * 100, 2),
            foreign_percent=round(max(0.0, foreign_s) / duration_s * 100, 2),
            load=round(os.getloadavg()[0], 2),
        )

    @staticmethod
    def _times() -> CpuTimes | None:
        return CpuTimes.parse(_STAT.read_text()) if _STAT.exists() else None

    def _ours_s(self) -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(map(spent_s, self._pids))
