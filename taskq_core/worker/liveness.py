"""Prove that a worker process of this host has ended.

A worker describes its process by facts that the kernel gives out: PID, start time, and the place where both hold.
Another worker in the same place can prove that this process has ended. Without a proof the answer is "may be running",
and the lease decides. A process that is stopped, busy or cut off from the network is running.

Only Linux offers these facts. Elsewhere `Host.place` is empty, and nothing is proved.
"""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, also after another one was given its PID.

    Attributes:
        pid: Its PID.
        started: When it started, in the kernel's clock ticks since the boot.
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """The process of a worker, as other workers of its host read it.

    Attributes:
        process: The process.
        supervisor: The process that takes its tasks back when it dies, if it has one.
    """

    process: ProcessId
    supervisor: ProcessId | None = None

    def encode(self) -> bytes:
        """Return the bytes to store."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Return what was stored, None if this is not such a record."""
        try:
            stored = json.loads(data)
            supervisor = stored["supervisor"]
            return cls(_process_id(stored["process"]), None if supervisor is None else _process_id(supervisor))
        except (ValueError, TypeError, KeyError):
            return None


def _process_id(stored: Any) -> ProcessId:
    pid, started = stored["pid"], stored["started"]
    if type(pid) is not int or type(started) is not int or not 0 < pid < 2**31:  # kill() gives 0 and -1 a meaning
        raise ValueError("not a process")
    return ProcessId(pid, started)


class Host:
    """Reads facts about processes from the kernel.

    Args:
        proc: Where procfs is mounted.
        kill: Sends a signal, as `os.kill`.
        name: Name of the host.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        kill: Callable[[int, int], object] = os.kill,
        name: str | None = None,
    ) -> None:
        self._proc = proc
        self._kill = kill
        self._name = socket.gethostname() if name is None else name

    def place(self) -> str:
        """Return a digest of the place in which PIDs and start times of this process hold, "" if it is not known.

        Two workers with the same place see the same processes under the same numbers:

        - The boot ID differs between kernels and between boots. Containers of a host share it.
        - A PID namespace gives out PIDs. Its inode number is free for another namespace only when the namespace is
          gone. Every process holds its namespace, also as a zombie, so all processes of such a namespace have
          ended. A container that got the number of an earlier container therefore proves nothing wrong about it.
        - A time namespace shifts the start times that procfs shows.
        - A network namespace holds the names of `hold`.
        - Virtual machines that were started from one memory snapshot share all of this, but not a host name that was
          set after the start.
        """
        if sys.platform != "linux":
            return ""
        try:
            # A procfs that belongs to another PID namespace shows other processes under our PIDs.
            if self._namespace_pids() != [str(os.getpid())]:
                return ""
            boot_id = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
            namespaces = [os.readlink(self._proc / "self/ns/pid")]
            for kind in ("time", "net"):
                path = self._proc / "self/ns" / kind
                namespaces.append(os.readlink(path) if path.is_symlink() else "")  # a kernel without such namespaces
        except OSError:
            return ""
        if not boot_id:
            return ""
        return hashlib.sha256("\n".join([self._name, boot_id, *namespaces]).encode()).hexdigest()[:32]

    def _namespace_pids(self) -> list[str]:
        """Return the PIDs of this process, from the namespace of procfs down to its own."""
        for line in (self._proc / "self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "NSpid":
                return value.split()
        return []

    def describe(self, *, has_supervisor: bool) -> LocalWorker | None:
        """Return this process as a worker; None if the kernel does not give out the facts."""
        own = self._read(os.getpid())
        supervisor = self._read(os.getppid()) if has_supervisor else None
        if own is None or (has_supervisor and supervisor is None):
            return None
        return LocalWorker(own.process, None if supervisor is None else supervisor.process)

    def has_ended(self, process: ProcessId) -> bool:
        """Whether a process of this place has certainly ended. False also means that it may be running."""
        try:
            # Not by a missing /proc/PID: procfs may hide processes of other users (hidepid).
            self._kill(process.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it belongs to another user
            pass
        found = self._read(process.pid)
        if found is None:
            return False
        # The first thread of a process can be a zombie while others still run.
        return found.process != process or (found.is_zombie and found.threads == 1)

    def _read(self, pid: int) -> "_Stat | None":
        try:
            line = (self._proc / str(pid) / "stat").read_text(errors="replace")
            fields = line.rpartition(")")[2].split()  # the name of the program may hold spaces and parentheses
            return _Stat(ProcessId(pid, int(fields[19])), is_zombie=fields[0] == "Z", threads=int(fields[17]))
        except (OSError, ValueError, IndexError):
            return None


@dataclass(frozen=True, slots=True)
class _Stat:
    process: ProcessId
    is_zombie: bool
    threads: int


def hold(token: str) -> socket.socket | None:
    """Take the name of a worker until this process and all processes that inherit the socket have ended.

    Processes that run tasks for the worker inherit it. They end with the worker, but not at the same moment.

    Returns:
        A socket that holds the name. None where the system has no such names.
    """
    if sys.platform != "linux":
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_name(token))
    except OSError:
        held.close()
        return None
    return held


def is_held(token: str) -> bool:
    """Whether a process may hold the name of a worker."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_name(token))
        except ConnectionRefusedError:  # no socket has this name
            return False
        except OSError:
            return True
    return True


def _name(token: str) -> bytes:
    return b"\0taskq-worker-" + token.encode("ascii", "replace")[:64]  # the kernel's own name space, not a file
