"""The processes of the demo: started, watched, and stopped whatever happens."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from example_project.demo.errors import DemoError

ROOT = Path(__file__).resolve().parents[2]
STOPPING_S = 10.0
HEARING_S = 2.0
"""Ctrl-C reaches every process of a terminal; one may have ended so many seconds before this one hears of it."""


class Process:
    """Run one Python program. Read its output as it arrives, and keep the last lines."""

    def __init__(
        self, name: str, *arguments: str, environment: Mapping[str, str], an_end: threading.Event | None = None
    ) -> None:
        self.name = name
        self._an_end = an_end or threading.Event()
        self._lines: deque[str] = deque(maxlen=200)
        self._news = threading.Condition()
        self._has_ended = False
        self._popen = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._news:
                self._lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._has_ended = True
            self._news.notify_all()
        self._an_end.set()

    def tail(self) -> str:
        """Return the last lines it printed, indented."""
        with self._news:
            lines = list(self._lines)[-20:] or ["(nothing)"]
        return "\n".join(f"    {line}" for line in lines)

    def wait_for(self, pattern: str, timeout_s: float) -> str:
        """Wait until it prints a line with this pattern, and return the pattern's first group."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for line in self._lines:
                    if match := re.search(pattern, line):
                        return match[1]
                if self._has_ended:
                    break
                if (left := deadline - time.monotonic()) <= 0:
                    raise DemoError(f"{self.name} was not ready after {timeout_s:.0f} s; it printed:\n{self.tail()}")
                self._news.wait(left)
        raise self._ended()

    def check(self) -> None:
        """Raise `DemoError` if it has ended."""
        if self._popen.poll() is not None:
            raise self._ended()

    def _ended(self) -> DemoError:
        self._popen.wait()
        self._reader.join(timeout=1)
        return DemoError(f"{self.name} ended with status {self._popen.returncode}; it printed:\n{self.tail()}")

    def finish(self, timeout_s: float) -> None:
        """Wait for it to end by itself, with success."""
        try:
            status = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{self.name} did not end after {timeout_s:.0f} s; it printed:\n{self.tail()}") from None
        if status != 0:
            raise self._ended()

    def terminate(self) -> None:
        """Ask it to stop."""
        if self._popen.poll() is None:
            self._popen.terminate()

    def reap(self) -> None:
        """Wait until it is gone; what does not stop in time is killed."""
        try:
            self._popen.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._reader.join(timeout=1)
        if self._popen.stdout is not None:
            self._popen.stdout.close()


class Processes:
    """All of them; a context manager that stops them at its end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._running: list[Process] = []
        self._an_end = threading.Event()

    def start(self, name: str, *arguments: str) -> Process:
        """Start a process that runs until the demo ends."""
        process = Process(name, *arguments, environment=self._environment, an_end=self._an_end)
        self._running.append(process)
        return process

    def run(self, name: str, *arguments: str, timeout_s: float = 60) -> None:
        """Run one to its end."""
        process = Process(name, *arguments, environment=self._environment)
        try:
            process.finish(timeout_s)
        finally:
            process.terminate()
            process.reap()

    def check(self) -> None:
        """Raise `DemoError` if one of them has ended."""
        for process in self._running:
            process.check()

    def wait_for_an_end(self) -> None:
        """Wait until one of them has ended, and raise `DemoError`."""
        self._an_end.wait()
        time.sleep(HEARING_S)
        self.check()

    def tails(self) -> str:
        """Return the last lines that each printed."""
        return "\n".join(f"  {process.name} printed last:\n{process.tail()}" for process in self._running)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            process.reap()


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would change the example.

    `OTEL_PROPAGATORS` stays: it says in which headers a trace travels.
    """
    ours = ("DJANGO_", "OTEL_", "STUDIO_", "TASKQ_")
    return {
        name: value for name, value in os.environ.items() if not name.startswith(ours) or name == "OTEL_PROPAGATORS"
    }
