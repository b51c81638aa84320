"""The processes of a soak: each has a place with a relay of its own, in which it is started again when it has died."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.redis_server import DIE_WITH_PARENT
from tests.relay import Relay

ROOT = Path(__file__).parents[2]


@dataclass(slots=True, kw_only=True)
class Place:
    """A place for one process.

    Attributes:
        name: `worker-0`, `scheduler-1`, `producer-2`.
        module: What is run in it.
        arguments: What the process is given.
        url: Where it finds Redis.
        own_relay: Stands between it and Redis; None where the store's addresses are not ours to give.
        process: What runs there, None while nothing does.
        is_ready: Whether that has connected.
        health_port: Where a worker tells its health, 0 while it does not.
        is_frozen: Stopped by a signal, until it is continued.
        wanted: Whether a process that has died is started again.
        start_at: Monotonic second before which it is not started.
        starts: Processes that were started here.
    """

    name: str
    module: str
    arguments: Mapping[str, Any]
    url: str
    own_relay: Relay | None
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    is_ready: bool = False
    health_port: int = 0
    is_frozen: bool = False
    wanted: bool = True
    start_at: float = 0.0
    starts: int = 0
    is_replicated: bool = False

    @property
    def relay(self) -> Relay:
        """The relay, for faults of the network."""
        assert self.own_relay is not None, "this store has no relays"
        return self.own_relay

    @property
    def role(self) -> str:
        return self.name.partition("-")[0]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start a process here."""
        assert self.process is None
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "SOAK_URL": self.url}
        environment["SOAK_REPLICATED"] = "1" if self.is_replicated else ""
        with (self.folder / "logs" / f"{self.name}.log").open("ab") as log:
            command = [sys.executable, "-m", self.module, json.dumps({"who": self.name, **self.arguments})]
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (0, 0))  # poison would leave large files behind
        self.is_ready = self.is_frozen = False
        self.health_port = 0
        self.starts += 1

    def look(self) -> None:
        """See whether the process has connected by now."""
        if self.process is None or self.is_ready:
            return
        note = self.folder / f"{self.name}-{self.pid}.ready"
        if note.exists():
            self.health_port = int(note.read_text() or 0)
            self.is_ready = True

    def send(self, number: signal.Signals) -> None:
        """Send a signal. One that has just died is left alone."""
        if self.process is not None:
            self.process.send_signal(number)  # of a process that was waited for, Popen sends nothing

    def take_exit(self) -> int | None:
        """Return the exit status of a process that has ended and clear the place; None while it runs."""
        status = None if self.process is None else self.process.poll()
        if status is not None:
            self.process = None
            self.is_ready = self.is_frozen = False
            self.health_port = 0
        return status

    def end(self) -> None:
        """Kill what runs here."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def until(condition: Callable[[], bool], what: str, *, timeout_s: float) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It is not, in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)
