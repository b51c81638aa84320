"""Start, watch and stop the processes of the demo."""

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
INTERRUPT_DELAY_S = 2.0
"""Seconds by which another process may end before this one notices Ctrl-C, which interrupts all of them."""


class Process:
    """A Python program that runs in a child process. A thread reads its output and stores the last lines."""

    def __init__(
        self, name: str, *arguments: str, environment: Mapping[str, str], any_ended: threading.Event | None = None
    ) -> None:
        self.name = name
        self._any_ended = any_ended or threading.Event()
        self._lines: deque[str] = deque(maxlen=200)
        self._output_changed = threading.Condition()
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
            with self._output_changed:
                self._lines.append(line.rstrip())
                self._output_changed.notify_all()
        with self._output_changed:
            self._has_ended = True
            self._output_changed.notify_all()
        self._any_ended.set()

    def tail(self) -> str:
        """Return the last lines that the process printed, indented."""
        with self._output_changed:
            lines = list(self._lines)[-20:] or ["(nothing)"]
        return "\n".join(f"    {line}" for line in lines)

    def wait_for(self, pattern: str, timeout_s: float) -> str:
        """Wait until the process prints a line that matches a pattern. Return the first group of the match."""
        deadline = time.monotonic() + timeout_s
        with self._output_changed:
            while True:
                for line in self._lines:
                    if match := re.search(pattern, line):
                        return match[1]
                if self._has_ended:
                    break
                if (left := deadline - time.monotonic()) <= 0:
                    raise DemoError(f"{self.name} was not ready after {timeout_s:.0f} s; it printed:\n{self.tail()}")
                self._output_changed.wait(left)
        raise self._ended()

    def check(self) -> None:
        """Raise `DemoError` if the process has ended."""
        if self._popen.poll() is not None:
            raise self._ended()

    def _ended(self) -> DemoError:
        self._popen.wait()
        self._reader.join(timeout=1)
        return DemoError(f"{self.name} ended with status {self._popen.returncode}; it printed:\n{self.tail()}")

    def finish(self, timeout_s: float) -> None:
        """Wait until the process ends. Raise `DemoError` if it fails or does not end in time."""
        try:
            status = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{self.name} did not end after {timeout_s:.0f} s; it printed:\n{self.tail()}") from None
        if status != 0:
            raise self._ended()

    def terminate(self) -> None:
        """Send SIGTERM, if the process still runs."""
        if self._popen.poll() is None:
            self._popen.terminate()

    def reap(self) -> None:
        """Wait until the process has ended. Kill it if it does not end in time."""
        try:
            self._popen.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._reader.join(timeout=1)
        if self._popen.stdout is not None:
            self._popen.stdout.close()


class Processes:
    """All processes of the demo. A context manager that stops them at its end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._running: list[Process] = []
        self._any_ended = threading.Event()

    def start(self, name: str, *arguments: str) -> Process:
        """Start a process that runs until the demo ends."""
        process = Process(name, *arguments, environment=self._environment, any_ended=self._any_ended)
        self._running.append(process)
        return process

    def run(self, name: str, *arguments: str, timeout_s: float = 60) -> None:
        """Run a process to its end. Raise `DemoError` if it fails."""
        process = Process(name, *arguments, environment=self._environment)
        try:
            process.finish(timeout_s)
        finally:
            process.terminate()
            process.reap()

    def check(self) -> None:
        """Raise `DemoError` if a process has ended."""
        for process in self._running:
            process.check()

    def wait_for_an_end(self) -> None:
        """Wait until a process has ended, and raise `DemoError`."""
        self._any_ended.wait()
        time.sleep(INTERRUPT_DELAY_S)
        self.check()

    def tails(self) -> str:
        """Return the last lines of the output of each process."""
        return "\n".join(f"  {process.name} printed last:\n{process.tail()}" for process in self._running)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            process.reap()


def clean_environment() -> dict[str, str]:
    """Return the environment of this process without variables that would change the example.

    `OTEL_PROPAGATORS` is kept. It names the headers that propagate a trace.
    """
    ours = ("DJANGO_", "OTEL_", "STUDIO_", "TASKQ_")
    return {
        name: value for name, value in os.environ.items() if not name.startswith(ours) or name == "OTEL_PROPAGATORS"
    }
