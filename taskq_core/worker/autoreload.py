"""Start a worker anew when code changes, without cutting tasks off.

A parent process starts the worker as a child and starts it again when it exits with the status `RELOAD`. In the child
the worker has the main thread, and with it the signals, while another thread watches the files; a change stops the
worker as SIGTERM does, so running tasks finish first. Ctrl-C reaches both processes; the parent only waits. A child
that fails (code in the middle of an edit) is tried again after the next change; one whose worker cannot start (Redis is
not there yet) also a few seconds later.

Which files are watched, and what a child is started with, is said by whoever asks.
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
from typing import Any, NoReturn, Protocol

from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import TaskQError
from taskq_core.worker.worker import Worker

RELOAD = 3
"""Exit status with which a child asks to be started again."""
NOT_STARTED = 4
"""Exit status of a child whose worker could not start, or gave up."""
TRIED_AGAIN_S = 5.0
"""Seconds after which a worker that could not start is tried again."""
EVERY_S = 1.0
"""Seconds between two looks at the files."""
LOADED_SINCE = "_TASKQ_AUTORELOAD_SINCE"
"""Environment variable with the time before a child loads code, in Unix seconds."""
CHILD = "_TASKQ_AUTORELOAD_CHILD"
"""Environment variable that tells a child of `taskq worker --reload` that it is one."""
_NAP_S = 0.1
"""Longest time in which a signal to the waiting parent is not seen, in seconds."""
_STOPPED = (0, RELOAD, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit status of a child that was told to stop: at work, at a change of code, or while it started."""
_NOBODYS = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders whose code is not the project's. Hidden ones and virtual environments are left out as well."""


class Watch(Protocol):
    """Looks at the files of a project."""

    def must_restart(self) -> bool:
        """Whether files have changed since the last look."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloading:
    """How a project is watched and its worker started.

    Attributes:
        watch: Begins to watch. It is given the Unix second since which this process loads code, infinity where it loads
            none: what has changed since then may have been read before, so the first look asks to restart.
        command: Command line of a child.
        child: Environment variable that tells a child that it is one, with the value "true".
    """

    watch: Callable[[float], Watch]
    command: Sequence[str]
    child: str = CHILD

    @property
    def is_child(self) -> bool:
        """Whether this process is the child."""
        return os.environ.get(self.child) == "true"


def run_with_autoreload(make_worker: Callable[[], Worker], reloading: Reloading) -> int:
    """Run a worker, anew after each change of code, and return the exit status of the last one.

    Args:
        make_worker: Loads the code and returns a worker that was not started. Called in the child.
        reloading: How the project is watched and its worker started.

    Raises:
        SystemExit: In the child, when it has ended.
    """
    return _run_child(make_worker, reloading) if reloading.is_child else _supervise(reloading)


def _run_child(make_worker: Callable[[], Worker], reloading: Reloading) -> NoReturn:
    watch = reloading.watch(float(os.environ[LOADED_SINCE]))
    try:
        worker = make_worker()
    except TaskQError:
        raise  # is shown in one line
    except Exception as error:
        sys.stderr.write(project_traceback(error, Path.cwd()))
        sys.exit(1)
    has_changed, has_ended = threading.Event(), threading.Event()

    def look() -> None:
        while not has_ended.wait(EVERY_S):
            if watch.must_restart():
                has_changed.set()
                worker.stop()
                return

    threading.Thread(target=look, name="taskq-autoreload", daemon=True).start()
    status = worker.run()
    has_ended.set()
    if has_changed.is_set():
        sys.exit(RELOAD)
    sys.exit(NOT_STARTED if status else 0)


def project_traceback(error: Exception, folder: Path) -> str:
    """Return the traceback of an error from the first frame in a project's folder on.

    The frames before are those of the command and of Python's import system. An error that has no frame in the folder,
    such as a `SyntaxError`, names its place itself.
    """
    stack = error.__traceback__
    while stack is not None and not Path(stack.tb_frame.f_code.co_filename).is_relative_to(folder):
        stack = stack.tb_next
    return "".join(traceback.format_exception(type(error), error, stack))


def _supervise(reloading: Reloading) -> int:
    with _Child() as child:
        while True:
            watch = reloading.watch(math.inf)  # a change while the child starts counts as well
            since = {reloading.child: "true", LOADED_SINCE: repr(SYSTEM_CLOCK.time())}
            status = child.run(reloading.command, {**os.environ, **since})
            if child.was_told_to_stop and status in _STOPPED:
                return 0
            if status == RELOAD:
                continue
            if status == 0:
                return status
            timeout_s = math.inf
            if status == NOT_STARTED:
                status, timeout_s = 1, TRIED_AGAIN_S
                sys.stderr.write(f"It is tried again in {TRIED_AGAIN_S:g} s, or when code changes.\n")
            else:
                sys.stderr.write(f"The worker ended with status {status}. It starts again when code changes.\n")
            if not _wait_for_change(child, watch, timeout_s):
                return status


class _Child:
    """The process that is running now. SIGTERM to the parent is passed on, SIGINT has reached the child already."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.was_told_to_stop = False
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
        if self._is_terminated:  # told while the process was being made
            self._process.terminate()
        try:
            status = self._process.wait()
            return status if status >= 0 else 128 - status  # ended by a signal: said as shells do
        finally:
            self._process = None

    def wait_to_stop(self, timeout_s: float) -> bool:
        # Not with an Event: its lock may be held by the very code that the signal interrupts.
        until = time.monotonic() + timeout_s
        while not self.was_told_to_stop and (left := until - time.monotonic()) > 0:
            time.sleep(min(_NAP_S, left))
        return self.was_told_to_stop

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.was_told_to_stop = True
        if number == signal.SIGTERM:
            self._is_terminated = True
            if self._process is not None:
                self._process.terminate()


def _wait_for_change(child: _Child, watch: Watch, timeout_s: float) -> bool:
    """Return True when a file of the project has changed or the time is over, False when told to stop."""
    until = time.monotonic() + timeout_s
    while not child.wait_to_stop(EVERY_S):
        if watch.must_restart() or time.monotonic() >= until:
            return True
    return False


class FileWatch:
    """Looks at files again and again.

    Args:
        loaded_since: When this process began to load code, in Unix seconds. What changed after that may have been read
            before it: the first look asks to restart then. A time in the future is nobody's change.
    """

    counts_files = False
    """Whether a file that is new or gone is a change as well."""

    def __init__(self, loaded_since: float = math.inf) -> None:
        self._seen = self.files() or {}
        now = SYSTEM_CLOCK.time()
        self._is_stale = any(path.suffix == ".py" and loaded_since <= when <= now for path, when in self._seen.items())

    def files(self) -> dict[Path, float] | None:
        """Return the files with their times of change, None if they cannot be listed just now."""
        raise NotImplementedError

    def is_dealt_with(self, path: Path) -> bool:
        """Whether somebody else has dealt with the change of a file."""
        return False

    def must_restart(self) -> bool:
        """Whether files have changed since the last look, and nobody dealt with the change otherwise."""
        now = self.files()
        if now is None:
            return False
        must_restart, self._is_stale = self._is_stale, False
        if self.counts_files and now.keys() != self._seen.keys():
            must_restart = True
            self._seen = {path: when for path, when in self._seen.items() if path in now}
        for path, when in now.items():
            if self._seen.setdefault(path, when) != when:
                self._seen[path] = when
                must_restart = not self.is_dealt_with(path) or must_restart  # every change is told
        return must_restart


class FolderWatch(FileWatch):
    """Looks at the Python files below a folder, those that are not loaded too: code in the middle of an edit is not.

    Args:
        folder: The folder.
        loaded_since: As for `FileWatch`.
    """

    counts_files = True

    def __init__(self, folder: Path, loaded_since: float = math.inf) -> None:
        self._folder = folder
        super().__init__(loaded_since)

    def files(self) -> dict[Path, float]:
        """Return the files below the folder; what goes away meanwhile is left out."""
        found: dict[Path, float] = {}
        for folder, folders, names in os.walk(self._folder):
            folders[:] = [each for each in folders if not _is_nobodys(folder, each)]
            for name in names:
                if name.endswith(".py") and not name.startswith("."):
                    path = Path(folder, name)
                    try:
                        found[path] = path.stat().st_mtime
                    except OSError:  # gone, or a link that leads nowhere
                        continue
        return found


def _is_nobodys(folder: str, name: str) -> bool:
    return name.startswith(".") or name in _NOBODYS or Path(folder, name, "pyvenv.cfg").exists()
