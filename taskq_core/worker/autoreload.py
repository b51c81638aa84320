"""Restart a worker when code changes, without interrupting tasks.

A parent process starts the worker as a child process, and restarts it when it exits with the status `RELOAD`. In the
child, the worker runs in the main thread and handles signals, while another thread watches the files. A change stops
the worker as SIGTERM does, so running tasks finish first. Ctrl-C reaches both processes, and the parent only waits. If
a child fails because of broken code, the parent restarts it after the next change. If its worker cannot start, for
example because Redis refuses its password, the parent also retries after a few seconds.

The caller supplies the watched files and the command of the child.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import TaskQError
from taskq_core.telemetry import flush_at_end
from taskq_core.worker.worker import Worker

RELOAD = 3
"""Exit status by which a child requests a restart."""
NOT_STARTED = 4
"""Exit status of a child whose worker could not start, or had to end."""
RETRY_AFTER_S = 5.0
"""Seconds after which a worker that could not start is restarted."""
EVERY_S = 1.0
"""Seconds between two checks whether files have changed."""
LOADED_SINCE = "_TASKQ_AUTORELOAD_SINCE"
"""Environment variable with the Unix time in seconds, taken just before the child loads code."""
CHILD = "_TASKQ_AUTORELOAD_CHILD"
"""Environment variable that marks a process as a child of `taskq worker --reload`."""
_NAP_S = 0.1
"""Seconds between two checks whether the waiting parent process has received a signal."""
_STOPPED = (0, RELOAD, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit statuses of a child that was stopped on request, by a code change, or by a signal during its start."""
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders without code of the project. Hidden folders and virtual environments are skipped as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloading:
    """How autoreload watches a project's files and starts its worker.

    Attributes:
        watch: Creates a watch. The argument is the Unix time at which this process began to load code, or infinity if
            it loads none. The process may have read an older version of files that changed after that time, so the
            first check requests a restart for them.
        command: Command line of the child.
        child: Environment variable with the value "true" that marks a process as the child.
    """

    watch: "Callable[[float], FileWatch]"
    command: Sequence[str]
    child: str = CHILD

    @property
    def is_child(self) -> bool:
        """Whether this process is the child, which runs the worker."""
        return os.environ.get(self.child) == "true"


def run_with_autoreload(make_worker: Callable[[], Worker], reloading: Reloading) -> int:
    """Run a worker, restart it after each change of code, and return the last exit status.

    Args:
        make_worker: Loads the code and returns a worker that is not started. Called in the child.
        reloading: How to watch the project and start its worker.

    Raises:
        SystemExit: In the child, when the worker has ended.
    """
    return _run_child(make_worker, reloading) if reloading.is_child else _supervise(reloading)


def _run_child(make_worker: Callable[[], Worker], reloading: Reloading) -> NoReturn:
    watch = reloading.watch(float(os.environ[LOADED_SINCE]))
    try:
        worker = make_worker()
    except TaskQError:
        raise  # the command line shows this error in one line, without a traceback
    except Exception as error:
        sys.stderr.write(project_traceback(error, Path.cwd()))
        sys.exit(1)
    has_changed, has_ended = threading.Event(), threading.Event()

    def watch_files() -> None:
        while not has_ended.wait(EVERY_S):
            if watch.must_restart():
                has_changed.set()
                worker.stop()
                return

    threading.Thread(target=watch_files, name="taskq-autoreload", daemon=True).start()
    status = worker.run()
    has_ended.set()
    flush_at_end()
    if has_changed.is_set():
        sys.exit(RELOAD)
    sys.exit(NOT_STARTED if status else 0)


def project_traceback(error: Exception, folder: Path) -> str:
    """Return the traceback of an error, starting at the first frame in a project's folder.

    Earlier frames belong to the command and to Python's import system. An error without a frame in the folder, such as
    a `SyntaxError`, contains its location.
    """
    stack = error.__traceback__
    while stack is not None and not Path(stack.tb_frame.f_code.co_filename).is_relative_to(folder):
        stack = stack.tb_next
    return "".join(traceback.format_exception(type(error), error, stack))


def _supervise(reloading: Reloading) -> int:
    with _Child() as child:
        while True:
            # Watch the files before the child process starts, so that a change during its start is noticed.
            watch = reloading.watch(math.inf)
            since = {reloading.child: "true", LOADED_SINCE: repr(SYSTEM_CLOCK.time())}
            status = child.run(reloading.command, {**os.environ, **since})
            if child.is_stop_requested and status in _STOPPED:
                return 0
            if status == RELOAD:
                continue
            if status == 0:
                return status
            timeout_s = math.inf
            if status == NOT_STARTED:
                status, timeout_s = 1, RETRY_AFTER_S
                sys.stderr.write(f"The worker starts again in {RETRY_AFTER_S:g} s, or when code changes.\n")
            else:
                sys.stderr.write(f"The worker ended with status {status}. It starts again when code changes.\n")
            if not _wait_for_change(child, watch, timeout_s):
                return status


class _Child:
    """The running child process. It receives SIGTERM from the parent, and SIGINT directly from the terminal."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.is_stop_requested = False
        self._is_terminated = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Child":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        self._process = subprocess.Popen(command, env=environment, close_fds=False)  # noqa: S603 - our own
        if self._is_terminated:  # SIGTERM arrived while the process was being created
            self._process.terminate()
        try:
            status = self._process.wait()
            # For a child that was killed by a signal, return the status that a shell returns.
            return status if status >= 0 else 128 - status
        finally:
            self._process = None

    def wait_to_stop(self, timeout_s: float) -> bool:
        # Poll instead of waiting for an Event: a signal handler that sets an Event may interrupt code that holds the
        # Event's lock.
        until = time.monotonic() + timeout_s
        while not self.is_stop_requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(_NAP_S, left))
        return self.is_stop_requested

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.is_stop_requested = True
        if number == signal.SIGTERM:
            self._is_terminated = True
            if self._process is not None:
                self._process.terminate()


def _wait_for_change(child: _Child, watch: "FileWatch", timeout_s: float) -> bool:
    """Return True when a file has changed or the timeout is over, False when the parent was stopped."""
    until = time.monotonic() + timeout_s
    while not child.wait_to_stop(EVERY_S):
        if watch.must_restart() or time.monotonic() >= until:
            return True
    return False


class FileWatch:
    """Base class of watches, which check files for changes.

    Args:
        loaded_since: When this process began to load code, in Unix seconds. The process may have read an older version
            of files that changed later, so the first check requests a restart for them. Future times are ignored.
    """

    counts_files = False
    """Whether new and deleted files count as changes."""

    def __init__(self, loaded_since: float = math.inf) -> None:
        self._known = self.files() or {}
        now = SYSTEM_CLOCK.time()
        self._is_stale = any(path.suffix == ".py" and loaded_since <= when <= now for path, when in self._known.items())

    def files(self) -> dict[Path, float] | None:
        """Return the files with their modification times, or None if they cannot be listed now."""
        raise NotImplementedError

    def is_handled(self, path: Path) -> bool:
        """Return whether other code has already handled the change of a file.

        No restart is then needed for this file.
        """
        return False

    def must_restart(self) -> bool:
        """Return whether files have changed since the last check, except for changes that other code has handled."""
        now = self.files()
        if now is None:
            return False
        must_restart, self._is_stale = self._is_stale, False
        if self.counts_files and now.keys() != self._known.keys():
            must_restart = True
            self._known = {path: when for path, when in self._known.items() if path in now}
        for path, when in now.items():
            if self._known.setdefault(path, when) != when:
                self._known[path] = when
                # Call `is_handled` for every changed file, because the call may reset caches.
                must_restart = not self.is_handled(path) or must_restart
        return must_restart


class FolderWatch(FileWatch):
    """Watches all Python files below a folder, even if they are not loaded: broken code cannot be loaded.

    Args:
        folder: The folder.
        loaded_since: See `FileWatch`.
    """

    counts_files = True

    def __init__(self, folder: Path, loaded_since: float = math.inf) -> None:
        self._folder = folder
        super().__init__(loaded_since)

    def files(self) -> dict[Path, float]:
        """Return the files below the folder. Skip files that are deleted during the search."""
        found: dict[Path, float] = {}
        for folder, folders, names in os.walk(self._folder):
            folders[:] = [each for each in folders if not _is_skipped(folder, each)]
            for name in names:
                if name.endswith(".py") and not name.startswith("."):
                    path = Path(folder, name)
                    try:
                        found[path] = path.stat().st_mtime
                    except OSError:  # the file was deleted, or is a broken link
                        continue
        return found


def _is_skipped(folder: str, name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED_FOLDERS or Path(folder, name, "pyvenv.cfg").exists()
