"""The processes of a soak. Each process has a place with a relay to Redis. A process that died is replaced there."""

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
        module: Python module that the process runs.
        arguments: Arguments of the process, passed as JSON.
        url: URL of Redis for the process.
        own_relay: Relay between the process and Redis; None for Sentinel and Cluster, where clients learn addresses.
        process: The current process, None if it ended or was not started.
        is_ready: Whether the process has connected to Redis.
        health_port: Port of a worker's health endpoint, 0 until the worker is ready.
        is_frozen: Whether the process got SIGSTOP and not yet SIGCONT.
        wanted: Whether to start a new process when this one has ended.
        start_at: Time of the monotonic clock before which no new process is started.
        starts: Number of processes that were started here.
        is_replicated: Whether producers wait until a replica has stored each task.
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
        """The relay, used by faults of the network."""
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
        """Start a process in this place."""
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
        resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (0, 0))  # no core files of the task `poison`
        self.is_ready = self.is_frozen = False
        self.health_port = 0
        self.starts += 1

    def check_ready(self) -> None:
        """Check whether the process has become ready."""
        if self.process is None or self.is_ready:
            return
        ready_file = self.folder / f"{self.name}-{self.pid}.ready"
        if ready_file.exists():
            self.health_port = int(ready_file.read_text() or 0)
            self.is_ready = True

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.process is not None:
            self.process.send_signal(number)

    def take_exit(self) -> int | None:
        """If the process has ended, free the place and return the exit status. Return None otherwise."""
        status = None if self.process is None else self.process.poll()
        if status is not None:
            self.process = None
            self.is_ready = self.is_frozen = False
            self.health_port = 0
        return status

    def end(self) -> None:
        """Kill the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def until(condition: Callable[[], bool], what: str, *, timeout_s: float) -> None:
    """Wait until a condition is true. `what` describes it in the error.

    Raises:
        TimeoutError: The condition was not true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"timeout after {timeout_s:g} s: expected that {what}")
        time.sleep(0.02)
