"""The supervisor's side of worker processes: how they start, report their health, and end."""

import contextlib
import math
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from taskq_core.supervisor import channel
from taskq_core.supervisor.config import Pause

STALE_S = 10.0
"""Seconds since the last report of a process after which the process does not count as healthy."""


class Stage(StrEnum):
    """Stage in the life of a worker process."""

    LOADING = "loading"
    """The process imports its code, and does not read messages yet."""
    STARTING = "starting"
    """The worker in the process is starting, and does not take tasks yet."""
    WORKING = "working"
    """The worker in the process takes tasks."""
    RETIRING = "retiring"
    """The process finishes its running tasks, because its successor takes the new tasks."""
    STOPPING = "stopping"
    """The process was asked to stop, or has announced its end."""


class Child:
    """A worker process. Times are monotonic seconds.

    Args:
        place: Number of the process, from 1. Its successor has the same number.
        command: Command line of the process.
        environment: Environment variables of the process.
        now: The current time.

    Attributes:
        stage: Stage in the life of the process.
        since: Time of its start.
        start_by: Time at which the supervisor kills the process if it does not take tasks by then.
        working_since: Time since which it takes tasks, None before.
        last_message_at: Time of its last message.
        kill_at: Time at which the supervisor kills it if it still runs.
        killed_at: Time at which it was killed, None before.
        end_requested: Whether it was asked to end.
        has_closed: Whether it announced its end.
        identity: Facts about its worker: token, server_id, host, queues.
        health: Health that the process last reported: whether it is ready, and the body of `/readyz`.
        tasks: Number of tasks that have ended in it.
        memory: Memory of the process in bytes.
        overdue_checked_at: Time of the last check for overdue tasks, while it sends no messages.
        overran: Queue and id of the overdue tasks because of which the process was killed.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, place: int, command: Sequence[str], environment: Mapping[str, str], now: float) -> None:
        self.place = place
        ours, theirs = socket.socketpair()
        with theirs:
            # Block SIGHUP before the process starts, because SIGHUP would kill it before it has set a handler.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own command line
                    command,
                    env={**environment, channel.VARIABLE: str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # Ctrl-C in a terminal then reaches only the supervisor, which forwards it to its processes.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.setblocking(False)
        self.socket = ours
        self._rest = b""
        self.stage = Stage.LOADING
        self.since = now
        self.start_by = math.inf
        self.working_since: float | None = None
        self.last_message_at = now
        self.kill_at: float | None = None
        self.killed_at: float | None = None
        self.end_requested = self.has_closed = False
        self.identity: dict[str, Any] = {}
        self.health: tuple[bool, dict[str, Any]] = (False, {"status": "starting"})
        self.tasks = 0
        self.memory = 0
        self.overdue_checked_at = now
        self.overran: list[tuple[str, str]] = []

    def receive(self) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
        """Return the kinds and fields of new messages of the process, and whether the connection is still open."""
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            return [], True
        except OSError:
            data = b""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= channel.LONGEST_LINE else b""
        return [channel.decode(line) for line in lines], bool(data)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self.process.pid

    def send(self, kind: str) -> None:
        """Send a message to the process, unless it has ended."""
        with contextlib.suppress(OSError):
            self.socket.send(channel.encode(kind, {}))

    def stop(self, kill_at: float, *, at_once: bool = False) -> None:
        """Ask the process to stop, and set the time at which it is killed."""
        self.end_requested = True
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
        if self.stage is Stage.LOADING:
            self._signal(signal.SIGTERM)  # while a process imports its code, it reads no messages and runs no task
        self.send(channel.ABORT if at_once else channel.STOP)
        self.stage = Stage.STOPPING

    def retire(self) -> None:
        """Ask the process to finish its tasks and end, because its successor takes new tasks.

        The timeouts of its tasks limit how long that takes.
        """
        self.end_requested = True
        self.send(channel.RETIRE)
        self.stage = Stage.RETIRING

    def kill(self, now: float) -> None:
        """Kill the process."""
        self.killed_at = now
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            self.process.send_signal(number)

    @property
    def ends_in_order(self) -> bool:
        """Whether the process exited with status 0, after it was asked to end or announced its end."""
        return self.process.returncode == 0 and (self.has_closed or self.end_requested)

    def store_report(self, fields: Mapping[str, Any]) -> None:
        """Store a report of the process: health, tasks, memory."""
        self.health = (bool(fields["is_ready"]), dict(fields["body"]))
        self.tasks, self.memory = int(fields["tasks"]), int(fields["memory"])

    def extend_deadlines(self, seconds: float) -> None:
        """Extend all deadlines by the time for which the supervisor itself was suspended."""
        self.last_message_at += seconds
        self.overdue_checked_at += seconds
        self.start_by += seconds
        if self.kill_at is not None:
            self.kill_at += seconds

    def is_healthy(self, now: float) -> bool:
        """Return whether the process recently reported that it is healthy."""
        return self.stage is Stage.WORKING and self.health[0] and now - self.last_message_at < STALE_S

    def document(self, now: float) -> dict[str, Any]:
        """Return the state of the process in the form of the health endpoint."""
        _, body = self.health
        return {
            "place": self.place,
            "pid": self.pid,
            "stage": self.stage.value,
            "status": body.get("status"),
            **({"reason": body["reason"]} if "reason" in body else {}),
            "running": body.get("running", 0),
            "tasks": self.tasks,
            "memory": self.memory,
            "age_s": round(now - self.since, 3),
            "last_report_age_s": round(now - self.last_message_at, 3),
        }


class Place:
    """A numbered place for one worker process of a supervisor.

    It holds the current process and, during a replacement, its successor.

    Attributes:
        number: Number of the place, from 1.
        current: The process in this place, or None while no process runs.
        successor: The process that starts to replace it.
        replace_reason: Why the process must be replaced, "" if not.
        next_at: Monotonic second before which no process is started.
        pause: Computes the pause after a death.
        is_done: Whether the process ended in burst mode because no work was left.
        restarts: Number of processes of this place that died and were replaced.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Child | None = None
        self.successor: Child | None = None
        self.replace_reason = ""
        self.next_at = 0.0
        self.pause = Pause()
        self.is_done = False
        self.restarts = 0


def document_of(places: Sequence[Place], children: Sequence[Child], now: float) -> dict[str, Any]:
    """Return the state of all processes in the form of the health endpoint."""
    healthy = [place.current is not None and place.current.is_healthy(now) for place in places]
    body: dict[str, Any] = {
        "status": "ready",
        "processes": len(places),
        "working": sum(healthy),
        "restarts": sum(place.restarts for place in places),
        "running": sum(child.health[1].get("running", 0) for child in children),
        "children": [child.document(now) for child in sorted(children, key=lambda child: child.place)],
    }
    if not all(healthy):
        missing = ", ".join(str(number) for number, is_healthy in enumerate(healthy, 1) if not is_healthy)
        body |= {"status": "degraded", "reason": f"these processes take no tasks or are not healthy: {missing}"}
    return body


def ending_of(status: int, *, is_in_order: bool = True) -> str:
    """Describe how a process ended: its exit status or the signal that killed it."""
    if status == 0 and not is_in_order:
        return "ended with status 0 in the middle of its work, for example by os._exit"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
