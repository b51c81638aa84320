"""Run the workers of a measurement: start them on given CPUs, measure their CPU time and memory, and kill them."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.noise import spent_s
from benchmarks.peers.environments import ROOT
from benchmarks.placement import on

_PAGE = os.sysconf("SC_PAGE_SIZE")
_REAP_S = 10.0


class Workers:
    """Runs processes during a `with` block. Each command starts a separate session, which contains its child processes.

    Args:
        commands: The commands to start.
        variables: Environment variables to add to those of this process.
        cpus: CPUs on which the processes may run. Empty: all CPUs.
        log: File for the output of all processes.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], variables: Mapping[str, str], cpus: tuple[int, ...], log: Path
    ) -> None:
        self._commands = commands
        self._variables = variables
        self._cpus = cpus
        self._log = log
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            with self._log.open("wb") as log, on(self._cpus):
                for command in self._commands:
                    self._started.append(
                        subprocess.Popen(
                            command,
                            cwd=ROOT,
                            env={**os.environ, **self._variables},
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def is_alive(self) -> bool:
        """Return whether all processes still run."""
        return all(process.poll() is None for process in self._started)

    def last_words(self) -> str:
        """Return the last output of the processes."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-4:])[-600:]

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes of the sessions."""
        return sum(map(spent_s, self._pids()))

    def busy_s(self) -> float:
        """Return the CPU seconds of all running threads, which are more precise than `cpu_s`. Not on Linux: `cpu_s`."""
        spent_ns = 0
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    spent_ns += int(task.read_text().split()[0])
                except OSError:
                    continue  # the process has just ended
        return spent_ns / 1e9 or self.cpu_s()

    def rss_mb(self) -> float:
        """Return the resident memory of all processes of the sessions. Shared memory counts for each process."""
        pages = 0
        for pid in self._pids():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue  # the process has just ended
        return pages * _PAGE / 2**20

    def own_mb(self) -> float:
        """Return the part of `rss_mb` that is not shared with other processes; 0 if the system does not report it."""
        kilobytes = 0
        for pid in self._pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue  # the process has just ended, or belongs to another user
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        return kilobytes / 2**10

    def _pids(self) -> list[str]:
        if not Path("/proc/self/stat").exists():
            return []  # not Linux: the children of a worker are unknown
        sessions = {str(process.pid) for process in self._started}
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    words = (folder / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # the process has just ended
                if words[3] in sessions:
                    found.append(folder.name)
        return found

    def _end(self) -> None:
        """Kill all processes of the sessions. Reap those that have become children of this process."""
        left = {int(pid) for pid in self._pids()} if self._started else set()
        for pid in left | {process.pid for process in self._started if process.poll() is None}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait()
            left.discard(process.pid)
        until = time.monotonic() + _REAP_S
        while left and time.monotonic() < until:
            left = {pid for pid in left if not _is_gone(pid)}
            time.sleep(0.002)


def _is_gone(pid: int) -> bool:
    """Reap a process if it is a child of this process. Return whether it has ended or has another parent."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True
