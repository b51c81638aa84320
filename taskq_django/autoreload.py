"""Start the worker anew when code changes, without cutting tasks off.

A parent process starts the worker as a child and starts it again when it exits with Django's reload status. In the
child the worker has the main thread, and with it the signals, while another thread watches Django's list of files; a
change stops the worker as SIGTERM does, so running tasks finish first. Ctrl-C reaches both processes; the parent only
waits. A child that fails (code in the middle of an edit) is tried again after the next change; one whose worker cannot
start (Redis is not there yet) also a few seconds later.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django.utils import autoreload

from taskq_core.worker import Worker

RELOAD = 3
"""Exit status with which a child asks to be started again; Django's own."""
NOT_STARTED = 4
"""Exit status of a child whose worker could not start, or gave up."""
TRIED_AGAIN_S = 5.0
"""Seconds after which a worker that could not start is tried again."""
EVERY_S = autoreload.StatReloader.SLEEP_TIME
"""Seconds between two looks at the files; Django's own."""
LOADED_SINCE = "_TASKQ_AUTORELOAD_SINCE"
"""Environment variable with the time before a child loads code, in Unix seconds."""
_NAP_S = 0.1
"""Longest time in which a signal to the waiting parent is not seen, in seconds."""
_STOPPED = (0, RELOAD, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit status of a child that was told to stop: at work, at a change of code, or while it started."""


def run_with_autoreload(make_worker: Callable[[], Worker]) -> int:
    """Run a worker, anew after each change of code, and return the exit status of the last one.

    Raises:
        SystemExit: In the child, when code has changed.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        return _supervise()
    return _run_child(make_worker)


def _run_child(make_worker: Callable[[], Worker]) -> NoReturn:
    watch = _Watch(loaded_since=float(os.environ[LOADED_SINCE]))
    worker = make_worker()
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


def _supervise() -> int:
    arguments = autoreload.get_child_arguments()
    with _Child() as child:
        while True:
            watch = _Watch()  # a change while the child starts counts as well
            since = {autoreload.DJANGO_AUTORELOAD_ENV: "true", LOADED_SINCE: repr(time.time())}
            status = child.run(arguments, {**os.environ, **since})
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

    def run(self, arguments: list[str], environment: dict[str, str]) -> int:
        self._process = subprocess.Popen(arguments, env=environment, close_fds=False)  # noqa: S603 - our own command line
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


def _wait_for_change(child: _Child, watch: "_Watch", timeout_s: float) -> bool:
    """Return True when a file of the project has changed or the time is over, False when told to stop."""
    until = time.monotonic() + timeout_s
    while not child.wait_to_stop(EVERY_S):
        if watch.must_restart() or time.monotonic() >= until:
            return True
    return False


class _Watch:
    """The files that Django's reloader watches, and when they changed last.

    Args:
        loaded_since: When this process began to load code, in Unix seconds. What changed after that may have been read
            before it: the first look asks to restart then. A time in the future is nobody's change.
    """

    def __init__(self, loaded_since: float = math.inf) -> None:
        self._reloader = autoreload.StatReloader()
        autoreload.autoreload_started.send(sender=self._reloader)  # lets apps name further files
        self._seen = self._files() or {}
        now = time.time()
        self._is_stale = any(path.suffix == ".py" and loaded_since <= when <= now for path, when in self._seen.items())

    def must_restart(self) -> bool:
        """Whether files have changed since the last look, and nobody dealt with the change otherwise."""
        now = self._files()
        if now is None:
            return False
        must_restart, self._is_stale = self._is_stale, False
        for path, when in now.items():
            if self._seen.setdefault(path, when) != when:
                self._seen[path] = when
                must_restart = not self._is_dealt_with(path) or must_restart  # every change is told
        return must_restart

    def _files(self) -> dict[Path, float] | None:
        try:
            return dict(self._reloader.snapshot_files())
        except (RuntimeError, KeyError):  # another thread imports modules while they are listed
            return None
        except OSError:  # a folder went away while it was searched
            return None

    def _is_dealt_with(self, path: Path) -> bool:
        answers = autoreload.file_changed.send(sender=self._reloader, file_path=path)
        return any(answer for _, answer in answers)
