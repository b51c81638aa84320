"""Open the embedded server of a folder: use the running server, or spawn a guardian that starts it.

The package's docstring describes the protocol. There is no state per process: every call of `open_embedded` has its own
shared lock on `users.lock`, and the kernel counts the locks of all threads and processes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from taskq_core.broker.embedded import guardian
from taskq_core.broker.embedded.binary import find_program, inspect_program
from taskq_core.broker.embedded.folder import choose_socket, prepare_data_folder, prepare_folder
from taskq_core.broker.embedded.guardian import LOOK_INTERVAL_S, Liveness, liveness, open_lock, try_lock
from taskq_core.errors import EmbeddedRedisError

if sys.platform != "win32":
    import fcntl

_LOCK_TIMEOUT_S = 120.0
_PROGRESS_TIMEOUT_S = 60.0
_GUARDIANS_TRIED = 5
"""Number of guardians to spawn before the opener gives up. If the server does not start, each of them ends at once."""


class EmbeddedRedis:
    """A share in the embedded server of a folder, which keeps the server running. It is a context manager.

    The server runs as long as any process has a share. A share lasts until `close` or until the process ends, even if
    the object is not referenced any more. It is thread-safe.

    Attributes:
        socket_path: The unix socket to connect to. It does not change when the server is restarted.
    """

    def __init__(self, *, socket_path: Path, share: int) -> None:
        self.socket_path = socket_path
        self._share = [share]

    def __repr__(self) -> str:
        return f"<EmbeddedRedis at {self.socket_path}{'' if self._share else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The `unix://` URL of the socket."""
        return f"unix://{quote(str(self.socket_path))}"

    def close(self) -> None:
        """Release the share. The server stops soon after the last share is released. Closing twice is allowed."""
        try:
            share = self._share.pop()
        except IndexError:
            return
        # Close the file instead of unlocking it: LOCK_UN would also release the lock of a forked child.
        os.close(share)


def open_embedded(folder: Path, *, redis_server: Path | None = None) -> EmbeddedRedis:
    """Start the embedded redis-server of a folder if it does not run, and return a share in it when it is ready.

    A running server is used even if `redis_server` is another program.

    Args:
        folder: Folder for data, locks and logs. If it is missing, it is created so that only this user can read it.
        redis_server: The program to start. None: the one on PATH, or the one of the `embedded` extra.

    Returns:
        A share in the server. Close it to release the share.

    Raises:
        EmbeddedRedisError: No usable redis-server was found, the server does not start, or the folder cannot be used.
            The message says what to do.
    """
    if sys.platform == "win32":
        raise EmbeddedRedisError("embedded:// needs Linux or macOS; use redis:// with a server that runs elsewhere")
    try:
        folder = prepare_folder(folder)
        with _start_lock(folder):
            share = _take_share(folder)
            try:
                return EmbeddedRedis(socket_path=Path(_ensure_server(folder, redis_server)), share=share)
            except BaseException:
                os.close(share)
                raise
    except OSError as exc:
        raise EmbeddedRedisError(f"the folder {folder} of the embedded redis-server cannot be used: {exc}") from exc


@contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    descriptor = open_lock(folder / "start.lock")
    try:
        _wait_for_lock(descriptor, f"another process is starting the redis-server of {folder}")
        yield
    finally:
        # Unlock before closing. Another thread may have forked a child, which keeps the lock while the file is open
        # there.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _take_share(folder: Path) -> int:
    descriptor = open_lock(folder / "users.lock")
    try:
        _wait_for_lock(descriptor, f"the redis-server of {folder} is stopping", shared=True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_lock(descriptor: int, what: str, *, shared: bool = False) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while not try_lock(descriptor, shared=shared):
        if time.monotonic() > deadline:
            raise EmbeddedRedisError(f"timeout of {_LOCK_TIMEOUT_S:.0f} s: {what}; check for a process that hangs")
        time.sleep(LOOK_INTERVAL_S)


def _ensure_server(folder: Path, redis_server: Path | None) -> str:
    """Make sure that the server has a guardian and answers, and return the path of its socket."""
    deadline = time.monotonic() + _PROGRESS_TIMEOUT_S
    spawned = 0
    while time.monotonic() < deadline:
        if _clear_dead_guardian(folder):
            if spawned == _GUARDIANS_TRIED:
                raise EmbeddedRedisError(
                    f"the redis-server does not start; its folder and the end of its log: {_log_end(folder)}"
                )
            _spawn_guardian(folder, redis_server)
            spawned += 1
        address = _read_address(folder)
        state = liveness(address) if address else Liveness.SILENT
        if state is Liveness.READY:
            return address
        if state is Liveness.LOADING:
            deadline = time.monotonic() + _PROGRESS_TIMEOUT_S
        time.sleep(LOOK_INTERVAL_S)
    raise EmbeddedRedisError(
        f"the redis-server of {folder} has a guardian but does not answer; see the logs there, "
        "and end the processes that use it"
    )


def _clear_dead_guardian(folder: Path) -> bool:
    """Return True if no guardian runs, after deleting the address file of a dead guardian."""
    descriptor = open_lock(folder / "guardian.lock")
    try:
        if not try_lock(descriptor):
            return False
        # The server may survive its dead guardian for a moment. Delete the address, so that no client uses that server.
        (folder / "address").unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return True
    finally:
        os.close(descriptor)


def _read_address(folder: Path) -> str:
    try:
        return os.fsdecode((folder / "address").read_bytes())
    except FileNotFoundError:
        return ""


def _spawn_guardian(folder: Path, redis_server: Path | None) -> None:
    """Spawn a guardian, and return once it holds `guardian.lock`."""
    program = inspect_program(redis_server.absolute()) if redis_server is not None else find_program()
    order = {
        "folder": str(folder),
        "program": str(program.path),
        "data": str(prepare_data_folder(folder, program)),
        "socket": str(choose_socket(folder)),
    }
    with os.fdopen(os.open(folder / "guardian.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        subprocess.run(  # noqa: S603 - this package's own script, no shell
            [_python(), "-I", "-S", str(Path(guardian.__file__).resolve()), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            check=False,
        )


def _log_end(folder: Path) -> str:
    """Return the most recently used data folder and the end of its log."""
    log = max(folder.glob("*/redis.log"), key=lambda each: each.stat().st_mtime, default=folder / "guardian.log")
    return f"{log.parent}: {log.read_bytes()[-2000:].decode(errors='replace').strip() or 'its log is empty'}"


def _python() -> str:
    """Return the Python interpreter for the guardian. In an embedded Python, `sys.executable` is another program."""
    if Path(sys.executable or "").name.startswith(("python", "pypy")):
        return sys.executable
    return str(Path(sys.prefix) / "bin" / "python3")
