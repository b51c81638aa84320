"""Start the worker anew when code changes, without cutting tasks off.

A parent process starts the worker as a child and starts it again when it exits with Django's reload status. In the
child the worker has the main thread, and with it the signals, while Django's reloader watches from another thread; a
change stops the worker as SIGTERM does, so running tasks finish first. Ctrl-C reaches both processes; the parent only
waits. A child that cannot start (code in the middle of an edit) is tried again after the next change.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from django.utils import autoreload

from taskq_core.worker import Worker

RELOAD = 3
"""Exit status with which a child asks to be started again; Django's own."""


def run_with_autoreload(make_worker: Callable[[], Worker]) -> int:
    """Run a worker, anew after each change of code, and return the exit status of the last one.

    Raises:
        SystemExit: In the child, when code has changed.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        return _supervise()
    return _run_child(make_worker())


def _run_child(worker: Worker) -> int:
    reloader = autoreload.get_reloader()
    has_changed = threading.Event()

    def stop(**_: Any) -> bool:
        has_changed.set()
        worker.stop()
        return True  # keeps Django from ending the process at once

    def watch() -> None:
        while not reloader.should_stop:
            reloader.run(threading.main_thread())

    autoreload.file_changed.connect(stop, weak=False, dispatch_uid="taskq_django.autoreload")
    threading.Thread(target=watch, name="taskq-autoreload", daemon=True).start()
    status = worker.run()
    if has_changed.is_set():
        sys.exit(RELOAD)
    return status


def _supervise() -> int:
    arguments = autoreload.get_child_arguments()
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    with _Child() as child:
        while True:
            status = child.run(arguments, environment)
            if status == RELOAD:
                continue
            if status == 0 or child.was_told_to_stop:
                return status
            sys.stderr.write(f"The worker ended with status {status}. It starts again when code changes.\n")
            if not _wait_for_change(child):
                return status


class _Child:
    """The process that is running now. SIGTERM to the parent is passed on, SIGINT has reached the child already."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
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
        try:
            status = self._process.wait()
            return status if status >= 0 else 128 - status  # ended by a signal: said as shells do
        finally:
            self._process = None

    def wait_to_stop(self, timeout_s: float) -> bool:
        return self._stop.wait(timeout_s)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
        if number == signal.SIGTERM and self._process is not None:
            self._process.terminate()


def _wait_for_change(child: _Child) -> bool:
    """Return True when a file of the project has changed, False when told to stop."""
    reloader = autoreload.StatReloader()
    seen = dict(reloader.snapshot_files())
    while not child.wait_to_stop(reloader.SLEEP_TIME):
        if dict(reloader.snapshot_files()) != seen:
            return True
    return False
