"""Prove that a process on this host has ended, by the socket name that it held.

Each worker and each supervisor binds a socket to a unique name in Linux's abstract namespace. The kernel frees the name
when all processes that hold the socket have ended, including task processes, which inherit it. A process that is
stopped, busy or disconnected keeps its name.

If it is not proven that a process has ended, the process counts as running, and its leases must expire. Only Linux has
such names.
"""

import hashlib
import os
import socket
import sys
from pathlib import Path

_PROC = Path("/proc")


def place() -> str:
    """Return a digest that identifies the namespace in which this process sees socket names, "" if it is unknown.

    Socket names belong to a network namespace. The kernel does not use the inode number of a namespace again before all
    its processes have ended. The boot ID differs between kernels and between boots. Virtual machines that started from
    one memory snapshot share both, but not a host name that was set after the start.
    """
    if sys.platform != "linux":
        return ""
    try:
        boot_id = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/net")
    except OSError:
        return ""
    return hashlib.sha256(f"{socket.gethostname()}\n{boot_id}\n{namespace}".encode()).hexdigest()[:32]


def hold(name: str) -> socket.socket | None:
    """Bind a socket to a name, and keep the name until this process and all that inherit the socket have ended.

    Returns:
        A socket that holds the name, or None if the system has no such names or another process holds it.
    """
    if sys.platform != "linux":
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_address(name))
    except OSError:
        held.close()
        return None
    return held


def is_held(name: str) -> bool:
    """Return whether a process holds a name. Return True if that is unknown."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_address(name))
        except ConnectionRefusedError:  # no socket has this address
            return False
        except OSError:
            return True
    return True


def _address(name: str) -> bytes:
    # A leading zero byte makes the address of a Unix socket abstract: no file is created.
    return b"\0taskq-worker-" + name.encode("ascii", "replace")[:64]
