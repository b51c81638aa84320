"""The guardian: a small process that owns the redis-server of one folder.

It is run as a script, by its path, and needs the standard library alone, so that it starts in a few milliseconds and
nothing of the user's program runs in it. It starts the server, starts it again when it dies, and stops it when no
user holds `users.lock` any more. The package's docstring tells the whole protocol.

It reports on its standard output, which is a pipe to the opener: a dot for every look at a server that is still
loading, then one line, `ready`, `taken` (another guardian is at work) or `error` and the reason as JSON.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOOK_INTERVAL_S = 0.01
_ANSWER_TIMEOUT_S = 2.0
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 30.0
_ORPHAN_TIMEOUT_S = 20.0
_SOUND_LIFE_S = 10.0
_LONGEST_PAUSE_S = 5.0
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
    "save": "",  # the append-only file is the data; snapshots would only add work
    "maxmemory-policy": "noeviction",
}
"""The server's settings besides its socket."""


class Liveness(StrEnum):
    """What a server says to PING."""

    READY = "ready"
    LOADING = "loading"
    SILENT = "silent"


class ServerStartError(Exception):
    """The server does not start; the text says why."""


def ask(socket_path: str, command: str) -> bytes:
    """Send one command without arguments that need quoting, and return the first reply without its line ends.

    Raises:
        OSError: Nobody listens, or there is no whole answer within 2 s.
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
        said = ask(socket_path, "PING")
    except OSError:
        return Liveness.SILENT
    # Any other error (a long script runs, the disk is full) comes from a server that is up.
    return Liveness.LOADING if said.startswith(b"-LOADING") else Liveness.READY


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take a `flock` if it is free."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(path: Path) -> int:
    """Open a lock file, made if need be. The descriptor is not inherited by programs that are started later."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Guardian:
    """Owns one server; every method but `stop` runs in the main thread.

    The main thread starts the server because Linux ties "die with the parent" to the thread that forked.

    Args:
        folder: Holds the lock files and `address`.
        program: The redis-server.
        data: Working folder of the server.
        socket: Path of its socket.
    """

    def __init__(self, *, folder: str, program: str, data: str, socket: str) -> None:
        self.folder, self.program, self.data, self.socket = Path(folder), program, Path(data), socket
        self.address = self.folder / "address"
        self.stopping = threading.Event()
        self.server: subprocess.Popen[bytes] | None = None
        self.server_lock = -1
        self.users_lock = -1
        self.log_start = 0

    def run(self) -> None:
        """Live as long as there are users."""
        guardian_lock = open_lock(self.folder / "guardian.lock")
        if not try_lock(guardian_lock):
            report("taken")
            return
        self.address.unlink(missing_ok=True)
        self.server_lock = open_lock(self.folder / "server.lock")
        self.users_lock = open_lock(self.folder / "users.lock")
        signal.signal(signal.SIGTERM, lambda *_: self._in_background(self.stop))
        try:
            self._wait_for_orphan()
            self._start()
            self._in_background(self._stop_after_last_user)
            self._wait_until_ready()
            self._publish_address()
            report("ready")
            self._keep_running()
        except ServerStartError as exc:
            if not self.stopping.is_set():
                log(str(exc))
                report("error " + json.dumps(str(exc)))
        finally:
            self.address.unlink(missing_ok=True)
            if self.server is not None:
                self._in_background(self.stop)
                self.server.wait()
            log("the server is gone")

    def stop(self) -> None:
        """Stop the server, first in an orderly way; `run` returns when it is gone."""
        self.stopping.set()
        for how in (signal.SIGTERM, signal.SIGKILL):
            # Either this sees the server that `_start` has just made, or `_start` sees `stopping`.
            if self.server is not None:
                self.server.send_signal(how)
            time.sleep(_STOP_TIMEOUT_S)  # a daemon thread: the process usually ends long before

    def _in_background(self, what: Callable[[], None]) -> None:
        threading.Thread(target=what, daemon=True).start()

    def _stop_after_last_user(self) -> None:
        fcntl.flock(self.users_lock, fcntl.LOCK_EX)
        log("no user is left")
        self.stop()

    def _wait_for_orphan(self) -> None:
        """Wait until the server of a guardian that was killed is gone."""
        deadline = time.monotonic() + _ORPHAN_TIMEOUT_S
        ask_at = time.monotonic() + 1.0
        while not try_lock(self.server_lock):
            now = time.monotonic()
            if now > deadline:
                raise ServerStartError(
                    f"an earlier redis-server still uses {self.data} and does not end; end it and try again"
                )
            if now > ask_at:  # where the kernel does not end it with its guardian
                ask_at = deadline
                with contextlib.suppress(OSError):
                    ask(self.socket, "SHUTDOWN")
            time.sleep(LOOK_INTERVAL_S)

    def _start(self) -> None:
        log_file = self.data / "redis.log"
        with contextlib.suppress(FileNotFoundError):
            if log_file.stat().st_size > _LARGEST_LOG_BYTES:
                log_file.replace(self.data / "redis.log.1")
        arguments = ["--unixsocket", self.socket]
        for name, value in SETTINGS.items():
            arguments += [f"--{name}", value]
        with log_file.open("ab") as output:
            self.log_start = output.tell()
            self.server = subprocess.Popen(  # noqa: S603 - the program the opener chose, no shell
                [sys.executable, "-I", "-S", __file__, "exec", str(os.getpid()), self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.data,
                env=os.environ | {"LC_ALL": "C"},  # Redis 7 and newer refuse a locale that is not installed
                pass_fds=[self.server_lock],
            )
        if self.stopping.is_set():
            self.server.terminate()

    def _wait_until_ready(self) -> None:
        assert self.server is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (said := liveness(self.socket)) is not Liveness.READY:
            if said is Liveness.LOADING:
                deadline = time.monotonic() + _START_TIMEOUT_S
                with contextlib.suppress(OSError):
                    os.write(1, b".")
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise ServerStartError(f"{self.program} does not start in {self.data}: {self._last_words()}")
            time.sleep(LOOK_INTERVAL_S)

    def _last_words(self) -> str:
        with (self.data / "redis.log").open("rb") as written:
            written.seek(self.log_start)
            return written.read()[-2000:].decode(errors="replace").strip() or "it says nothing"

    def _publish_address(self) -> None:
        draft = self.address.with_name("address.new")
        draft.write_bytes(os.fsencode(self.socket))
        draft.replace(self.address)

    def _keep_running(self) -> None:
        assert self.server is not None
        pause_s = 0.0
        while True:
            started = time.monotonic()
            code = self.server.wait()
            lasted_s = time.monotonic() - started
            pause_s = 0.0 if lasted_s > _SOUND_LIFE_S else min(2 * pause_s + 0.1, _LONGEST_PAUSE_S)
            if self.stopping.is_set() or (pause_s > 0.1 and self.stopping.wait(pause_s)):
                return
            log(f"the server ended by itself ({code}) after {lasted_s:.0f} s; starting it again")
            self._start()
            self._wait_until_ready()


def log(text: str) -> None:
    """Write a line to the log, which is the standard error."""
    with contextlib.suppress(OSError):
        os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} guardian {os.getpid()}: {text}\n".encode())


def report(line: str) -> None:
    """Tell the opener how it went and let go of the pipe."""
    with contextlib.suppress(OSError):  # the opener may be gone
        os.write(1, line.encode() + b"\n")
    os.dup2(2, 1)


def become_server(guardian: int, command: list[str]) -> None:
    """Turn this process into the server, told to end in an orderly way when the guardian ends.

    SIGTERM and not SIGKILL: what was acknowledged but waits for a slow disk is still written.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == guardian:
        os.execv(command[0], command)  # noqa: S606 - the program the opener chose, no shell


def main(arguments: list[str]) -> None:
    """Run as `guard <arguments of Guardian as JSON>` or as `exec <pid of the guardian> <program> <its arguments>`."""
    os.umask(0o077)
    if arguments[0] == "exec":
        become_server(int(arguments[1]), arguments[2:])
        return
    if os.fork():  # leave the opener's family: it waits for this half and has no zombie later
        os._exit(0)
    # What the opener ignores or blocks is inherited, and the server would inherit it in turn and not hear SIGTERM.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Guardian(**json.loads(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
