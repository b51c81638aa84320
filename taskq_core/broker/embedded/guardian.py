"""The guardian: a small process that owns the redis-server of one folder.

It is run as a script, by its path, and imports only the standard library. So it starts in a few milliseconds and runs
no code of the user. It starts the server, restarts it when it dies, and stops it when no process holds `users.lock`.
The package's docstring describes the whole protocol.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOOK_INTERVAL_S = 0.01
_ANSWER_TIMEOUT_S = 2.0
_STOP_TIMEOUT_S = 30.0
_ORPHAN_TIMEOUT_S = 20.0
_SHORTEST_LIFE_S = 1.0
_LARGEST_LOG_BYTES = 5_000_000
_PR_SET_PDEATHSIG = 1

SETTINGS = {
    "port": "0",
    "unixsocketperm": "600",
    "dir": ".",
    "logfile": "redis.log",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",  # no snapshots: the append-only file already stores the data
    "maxmemory-policy": "noeviction",
}
"""The server's settings besides its socket."""


class Liveness(StrEnum):
    """Answer of a server to PING."""

    READY = "ready"
    LOADING = "loading"
    SILENT = "silent"


def ask(socket_path: str, command: str) -> bytes:
    """Send a command to the server at a socket, and return the reply without line breaks.

    Raises:
        OSError: No server listens, or the reply does not arrive within 2 s.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        connection.connect(socket_path)
        connection.sendall(command.encode() + b"\r\n")
        with connection.makefile("rb") as replies:
            head = replies.readline()
            if not head.endswith(b"\r\n"):
                raise ConnectionError("the server closed the connection")
            if head.startswith(b"$"):
                return replies.read(int(head[1:]))
            return head[:-2]


def liveness(socket_path: str) -> Liveness:
    """Ask the server at a socket whether it is ready."""
    try:
        reply = ask(socket_path, "PING")
    except OSError:
        return Liveness.SILENT
    # Redis answered, so it runs. It may still refuse commands, for example while a script runs or the disk is full.
    return Liveness.LOADING if reply.startswith(b"-LOADING") else Liveness.READY


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take a `flock` if it is free. Return whether it was taken."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(path: Path) -> int:
    """Open a lock file, and create it if it is missing. Programs that are started later do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def guard(*, folder: str, program: str, data: str, socket: str) -> None:
    """Run the server of a folder as long as it has users. Return at once if there is another guardian.

    Args:
        folder: Folder with the lock files and `address`.
        program: Path of the redis-server.
        data: Working folder of the server.
        socket: Path of its socket.
    """
    guardian_lock = open_lock(Path(folder) / "guardian.lock")
    if not try_lock(guardian_lock):
        return
    # The child process inherits the lock and becomes the guardian. The opener waits for the parent, so no zombie
    # remains.
    if os.fork():
        os._exit(0)
    # Reset signals that the opener ignores or blocks. The server would inherit them, and might not receive SIGTERM.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server_lock, users_lock = open_lock(Path(folder) / "server.lock"), open_lock(Path(folder) / "users.lock")
    if not _wait_for_orphan(server_lock, socket):
        sys.exit("the redis-server of a guardian that was killed does not end")
    address = Path(folder) / "address"
    draft = address.with_name("address.new")
    draft.write_bytes(os.fsencode(socket))
    draft.replace(address)
    try:
        while not _serve_once(program, Path(data), socket, server_lock, users_lock):
            time.sleep(LOOK_INTERVAL_S)
    finally:
        address.unlink(missing_ok=True)


def _wait_for_orphan(server_lock: int, socket_path: str) -> bool:
    """Wait until the server of a killed guardian has ended. Return False if it does not end."""
    deadline = time.monotonic() + _ORPHAN_TIMEOUT_S
    while not try_lock(server_lock):
        if time.monotonic() > deadline:
            return False
        if sys.platform != "linux":  # on Linux, the kernel has sent SIGTERM to the server when the guardian died
            with contextlib.suppress(OSError):
                ask(socket_path, "SHUTDOWN")
        time.sleep(LOOK_INTERVAL_S)
    return True


def _serve_once(program: str, data: Path, socket_path: str, server_lock: int, users_lock: int) -> bool:
    """Run the server until it ends or no user is left. Return False if it must be started again."""
    log = data / "redis.log"
    if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
        log.replace(data / "redis.log.1")
    arguments = ["--unixsocket", socket_path]
    for name, value in SETTINGS.items():
        arguments += [f"--{name}", value]
    started = time.monotonic()
    with log.open("ab") as output:
        server = subprocess.Popen(  # noqa: S603 - the program that the opener chose, no shell
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=data,
            env=os.environ | {"LC_ALL": "C"},  # Redis 7 does not start if the locale is not installed
            pass_fds=[server_lock],
            preexec_fn=_die_with(os.getpid()),
        )
    try:
        while server.poll() is None:
            if try_lock(users_lock):
                return True
            time.sleep(LOOK_INTERVAL_S)
        was_killed = server.returncode < 0
        # Do not restart a server that ended by itself so soon after its start, because it would end again.
        return not was_killed and time.monotonic() - started < _SHORTEST_LIFE_S
    finally:
        server.terminate()
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _die_with(guardian: int) -> Callable[[], None] | None:
    """Return a function that makes a new process receive SIGTERM when the guardian ends.

    It is SIGTERM and not SIGKILL, so that acknowledged writes that wait for a slow disk are still written.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def die_with_guardian() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guardian:
            os._exit(1)

    return die_with_guardian


if __name__ == "__main__":
    os.umask(0o077)
    guard(**json.loads(sys.argv[1]))
