"""Start the worker anew when code changes, without cutting tasks off.

A parent process starts the worker as a child and starts it again when it exits with Django's reload status. In the
child the worker has the main thread, and with it the signals, while another thread watches Django's list of files; a
change stops the worker as SIGTERM does, so running tasks finish first. Ctrl-C reaches both processes; the parent only
waits. A child that cannot start (code in the middle of an edit) is tried again after the next change.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from django.utils import autoreload

from taskq_core.worker import Worker

RELOAD = 3
"""Exit status with which a child asks to be started again; Django's own."""
EVERY_S = autoreload.StatReloader.SLEEP_TIME
"""Seconds between two looks at the files; Django's own."""
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


def _run_child(make_worker: Callable[[], Worker]) -> int:
    watch = _Watch()
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
    return status


def _supervise() -> int:
    arguments = autoreload.get_child_arguments()
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    with _Child() as child:
        while True:
            watch = _Watch()  # a change while the child starts counts as well
            status = child.run(arguments, environment)
            if child.was_told_to_stop:
                return 0 if status in _STOPPED else status
            if status == RELOAD:
                continue
            if status == 0:
                return status
            sys.stderr.write(f"The worker ended with status {status}. It starts again when code changes.\n")
            if not _wait_for_change(child, watch):
                return status


class _Child:
    """The process that is running now. SIGTERM to the parent is passed on, SIGINT has reached the child already."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._is_terminated = False
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def was_told_to_stop(self) -> bool:
        return self._stop.is_set()

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
        return self._stop.wait(timeout_s)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
        if number == signal.SIGTERM:
            self._is_terminated = True
            if self._process is not None:
                self._process.terminate()


def _wait_for_change(child: _Child, watch: "_Watch") -> bool:
    """Return True when a file of the project has changed, False when told to stop."""
    while not child.wait_to_stop(EVERY_S):
        if watch.must_restart():
            return True
    return False


class _Watch:
    """The files that Django's reloader watches, and when they changed last."""

    def __init__(self) -> None:
        self._reloader = autoreload.StatReloader()
        autoreload.autoreload_started.send(sender=self._reloader)  # lets apps name further files
        self._seen = dict(self._reloader.snapshot_files())

    def must_restart(self) -> bool:
        """Whether files have changed since the last look, and nobody dealt with the change otherwise."""
        try:
            now = dict(self._reloader.snapshot_files())
        except (RuntimeError, KeyError):
            return False  # another thread imports modules while they are listed; the next look sees all
        must_restart = False
        for path, when in now.items():
            if self._seen.setdefault(path, when) != when:
                self._seen[path] = when
                must_restart = not self._is_dealt_with(path) or must_restart  # every change is told
        return must_restart

    def _is_dealt_with(self, path: Path) -> bool:
        answers = autoreload.file_changed.send(sender=self._reloader, file_path=path)
        return any(answer for _, answer in answers)
