"""One process of a supervisor, as the supervisor sees it: how it was started, what it says, how it ended."""

import contextlib
import math
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from taskq_core.supervisor import channel

STALE_S = 10.0
"""Age of the last report beyond which a process is not taken for well."""


class Stage(StrEnum):
    """Where a process is in its life."""

    LOADING = "loading"
    """It loads its code, and hears nothing yet."""
    STARTING = "starting"
    """Its worker has begun and takes no tasks yet."""
    WORKING = "working"
    """It takes tasks."""
    RETIRING = "retiring"
    """A successor works; it finishes what it runs."""
    STOPPING = "stopping"
    """It was told to stop, or ends by itself."""


class Child:
    """A process.

    Args:
        place: Number of the place that it has among the processes, from 1.
        command: Its command line.
        environment: Its environment.
        now: Monotonic second.

    Attributes:
        stage: Where it is in its life.
        since: When it was started.
        start_by: When it is killed if it takes no tasks by then.
        working_since: When it began to take tasks, None before.
        heard_at: When it last said something.
        kill_at: When it is killed if it still lives.
        killed_at: When it was killed, None before.
        was_told: Whether it was told to end.
        has_closed: Whether it said that it ends.
        who: What it said of itself: token, server_id, host, queues.
        health: What it last said of its health: whether it is ready, and the body that says so.
        tasks: Tasks that have ended in it.
        memory: Bytes of memory that it takes.
        asked_at: When it was last asked in Redis what it holds, while it says nothing.
        overran: Queue and id of runs for which it was killed.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, place: int, command: Sequence[str], environment: Mapping[str, str], now: float) -> None:
        self.place = place
        ours, theirs = socket.socketpair()
        with theirs:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # until it has a handler for it
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own command line
                    command,
                    env={**environment, channel.VARIABLE: str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # what a terminal sends reaches the supervisor alone, which passes it on
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
        self.heard_at = now
        self.kill_at: float | None = None
        self.killed_at: float | None = None
        self.was_told = self.has_closed = False
        self.who: dict[str, Any] = {}
        self.health: tuple[bool, dict[str, Any]] = (False, {"status": "starting"})
        self.tasks = 0
        self.memory = 0
        self.asked_at = now
        self.overran: list[tuple[str, str]] = []

    def hear(self) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
        """Return what it has said since, as words with their facts, and whether it may say more."""
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
        """Its process id."""
        return self.process.pid

    def tell(self, word: str) -> None:
        """Tell it something; one that is gone hears nothing."""
        with contextlib.suppress(OSError):
            self.socket.send(channel.encode(word, {}))

    def stop(self, kill_at: float, *, at_once: bool = False) -> None:
        """Tell it to stop, and when it is killed if it does not."""
        self.was_told = True
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
        if self.stage is Stage.LOADING:
            self._signal(signal.SIGTERM)  # it hears nothing else yet, and has nothing to finish
        self.tell(channel.ABORT if at_once else channel.STOP)
        self.stage = Stage.STOPPING

    def retire(self) -> None:
        """Tell it that a successor works. It is not killed for what it runs: that has a time of its own."""
        self.was_told = True
        self.tell(channel.RETIRE)
        self.stage = Stage.RETIRING

    def kill(self, now: float) -> None:
        """End it."""
        self.killed_at = now
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            self.process.send_signal(number)

    @property
    def ends_in_order(self) -> bool:
        """Whether it has ended as it should, rather than in the midst of its work by whatever status."""
        return self.process.returncode == 0 and (self.has_closed or self.was_told)

    def note_report(self, facts: Mapping[str, Any]) -> None:
        """Take in a report."""
        self.health = (bool(facts["is_ready"]), dict(facts["body"]))
        self.tasks, self.memory = int(facts["tasks"]), int(facts["memory"])

    def put_off(self, seconds: float) -> None:
        """Let time stand still: nobody has heard it meanwhile, whatever it said."""
        self.heard_at += seconds
        self.asked_at += seconds
        self.start_by += seconds
        if self.kill_at is not None:
            self.kill_at += seconds

    def is_well(self, now: float) -> bool:
        """Whether it works, as it last said, and said so lately."""
        return self.stage is Stage.WORKING and self.health[0] and now - self.heard_at < STALE_S

    def document(self, now: float) -> dict[str, Any]:
        """Return how it is, for people and monitors."""
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
            "last_report_age_s": round(now - self.heard_at, 3),
        }


def ending_of(status: int, *, is_in_order: bool = True) -> str:
    """Return how a process ended, in words."""
    if status == 0 and not is_in_order:
        return "ended with status 0 in the midst of its work, as by os._exit"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
