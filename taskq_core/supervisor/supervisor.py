"""The parent of worker processes: it starts and replaces them, forwards signals, and returns tasks of dead processes.

::

    place 1   child --dies--> (pause) --> child --asks to be replaced--> child and its successor
                                                                           |          |
                                              successor works: the old one retires    child ...
"""

import asyncio
import logging
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taskq_core.app import TaskQ
from taskq_core.broker.waiting import WAITING, RedisWait
from taskq_core.errors import ConfigurationError, TaskQError
from taskq_core.service.blocking import run_service
from taskq_core.service.health import open_health_server
from taskq_core.service.loop import Signal
from taskq_core.service.outage import start_problem
from taskq_core.service.signals import signal_handlers
from taskq_core.supervisor import channel, orphans
from taskq_core.supervisor.child import Child, Place, Stage, document_of, ending_of
from taskq_core.supervisor.config import MEMBER_SHARE, START_TRIES, TAKE_BACK_S, TICK_S, SupervisorConfig
from taskq_core.supervisor.returns import Returns
from taskq_core.telemetry import flush_at_end, launched
from taskq_core.wire.tokens import new_token
from taskq_core.worker.context import Background
from taskq_core.worker.liveness import hold
from taskq_core.worker.process import has_terminal

if TYPE_CHECKING:
    from taskq_core.service.health_server import HealthServer

logger = logging.getLogger("taskq.supervisor")

UNKILLABLE_S = 10.0
"""Seconds after which the supervisor no longer waits for a killed process, for example in uninterruptible I/O."""
LATE_S = 5.0
"""If a regular check is late by this many seconds, the supervisor itself must have been suspended."""
SILENT_S = 5.0
"""Seconds without a message after which a process with an overdue task is killed."""


class Supervisor:
    """Runs a worker as several processes.

    Args:
        app: The queue application, to return tasks.
        config: The configuration.
        command: Command line of a process.
        write_line: Writes a line to the user's terminal.

    Raises:
        ConfigurationError: The system has no signals.
    """

    def __init__(
        self, app: TaskQ, config: SupervisorConfig, command: Sequence[str], *, write_line: Callable[[str], None]
    ) -> None:
        if sys.platform == "win32":
            raise ConfigurationError(
                "several worker processes need a system with signals, such as Linux or macOS; use one process"
            )
        self.config = config
        self._command = list(command)
        self._write_line = write_line
        # A random name, because containers that share a network namespace may have processes with the same PID.
        self._name = f"supervisor-{new_token()}"
        self._environment = {**launched(os.environ), channel.NAME_VARIABLE: self._name}
        self._places = [Place(number + 1) for number in range(config.processes)]
        self._children: list[Child] = []
        self._rolling: deque[Place] = deque()
        self._rolled: Place | None = None
        self._background = Background()
        self._has_worked = self._has_reported_ready = self._has_warned_memory = False
        self._is_paused = self._is_rolling_from_pause = False
        self._status, self._checked_at = 0, math.inf
        self._had_terminal = has_terminal()
        self._health_server: HealthServer | None = None
        self._returns, self._stopping = Returns(app), asyncio.Event()
        self._wait = RedisWait(self._returns.runner, "worker", self._stopping, is_enabled=config.wait_for_redis)

    @property
    def health_port(self) -> int | None:
        """Port of the health endpoint, None if there is no health endpoint."""
        return None if self._health_server is None else self._health_server.port

    def run(self) -> int:
        """Run until it is stopped.

        Returns:
            0 if it was stopped, or the work is done in burst mode; 1 if no process ever worked.
        """
        # Other workers take back the tasks of dead processes of this supervisor only after it has released its name.
        name = hold(self._name)
        try:
            return run_service(self._live())
        finally:
            if name is not None:
                name.close()
            flush_at_end(1 - MEMBER_SHARE)

    async def _live(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._wake = Signal()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGTSTP: self._on_pause,
            signal.SIGHUP: self._on_hang_up,
            signal.SIGCHLD: self._wake.set,
        }
        config = self.config
        try:
            self._health_server = await open_health_server("worker", self, config.health_host, config.health_port)
        except OSError:
            return 1
        try:
            with signal_handlers(handlers):
                await self._wait.run()  # once for all processes, which would otherwise each log that they wait
                await self._returns.close()  # no connection is needed until a process ends
                while not self._is_over:
                    self._check()
                    await self._wake.wait_for(TICK_S)
                    self._wake.clear()
                await self._background.close(TAKE_BACK_S)
        except TaskQError as error:
            logger.error("the worker cannot start: %s", start_problem(error))
            self._status = 1
        finally:
            for child in self._children:  # processes still run only if the main loop has failed
                child.kill(time.monotonic())
                self._loop.remove_reader(child.socket)
            await self._background.close(0.0)
            if self._health_server is not None:
                await self._health_server.close()
            await self._returns.close()
        return self._status

    @property
    def _is_over(self) -> bool:
        return not self._children and (self._stopping.is_set() or all(place.is_done for place in self._places))

    # --- signals ------------------------------------------------------------------------------------------------------

    def _on_stop(self) -> None:
        if self._stopping.is_set():
            self.stop(at_once=True)
        else:
            logger.info("stopping; a second signal stops all processes at once")
            self.stop()

    def stop(self, *, at_once: bool = False) -> None:
        """Ask all processes to stop, and start no new processes. Call this on the event loop."""
        self._stopping.set()
        kill_at = time.monotonic() + self.config.span("aborting" if at_once else "ending")
        for child in self._children:
            child.stop(kill_at, at_once=at_once)
        self._wake.set()

    def _on_pause(self) -> None:
        if self._stopping.is_set():
            return
        logger.info("paused: no new tasks are taken")
        self._is_paused = True
        if self._rolled is not None:
            self._rolled.replace_reason = ""  # a rolling restart is cancelled, so the process needs no successor
        self._rolled = None
        self._rolling.clear()
        for place in self._places:
            if place.successor is not None:
                self._cancel_successor(place)
            if place.current is not None and place.current.stage in (Stage.LOADING, Stage.STARTING):
                place.current.stop(time.monotonic() + self.config.span("aborting"), at_once=True)
                place.current = None  # the new process might take tasks before it reads the message PAUSE
        for child in self._children:
            child.send(channel.PAUSE)
        self._wake.set()

    def _cancel_successor(self, place: Place) -> None:
        """Stop the successor of a process before it takes tasks."""
        assert place.successor is not None
        place.successor.stop(time.monotonic() + self.config.span("aborting"), at_once=True)
        place.successor = None

    def _on_hang_up(self) -> None:
        if self._had_terminal and not has_terminal():
            logger.info("the terminal was closed; stopping")
            self.stop()
        elif not self._stopping.is_set():
            self.roll()

    def roll(self) -> None:
        """Replace all processes, one after the other, by new ones. Call this on the event loop."""
        logger.info("rolling restart: %d processes are replaced one after the other", len(self._places))
        self._is_rolling_from_pause, self._is_paused = self._is_rolling_from_pause or self._is_paused, False
        for place in self._places:
            if place.successor is not None:
                self._cancel_successor(place)  # this successor may run older code
        self._rolled = None
        self._rolling = deque(self._places)
        self._wake.set()

    # --- the regular check --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        now = time.monotonic()
        late_s, self._checked_at = now - self._checked_at - TICK_S, now
        if late_s > LATE_S:
            logger.warning(
                "the supervisor was suspended for %.0f s; the timeouts of its processes are extended by that time",
                late_s,
            )
            for child in self._children:
                child.extend_deadlines(late_s)
        for child in list(self._children):
            status = child.process.poll()
            if status is not None:
                self._ended(child, status, now)
        orphans.reap([child.pid for child in self._children])
        for child in list(self._children):
            self._check_child(child, now)
        if self._stopping.is_set():
            return
        if not self._has_worked and all(place.pause.deaths >= START_TRIES for place in self._places):
            logger.error(
                "no process could start in %d tries each; giving up. The processes have printed the reason",
                START_TRIES,
            )
            self._status = 1
            self.stop()
            return
        self._continue_rolling()
        for place in self._places:
            if self._is_paused:
                self._empty(place)
            else:
                self._fill(place, now)

    def _check_child(self, child: Child, now: float) -> None:
        """Kill a process that does not end, start or send messages within the configured time."""
        if child.killed_at is not None:
            if now - child.killed_at > UNKILLABLE_S:
                self._abandon(child, now)
            return
        silent_s = now - child.last_message_at
        why = ""
        if child.kill_at is not None and now >= child.kill_at:
            why = "the process did not end in time"
        elif child.stage is Stage.LOADING and silent_s > self.config.span("loading"):
            why = f"the process has not imported its code in {silent_s:.0f} s"
        elif child.stage is Stage.STARTING and now > child.start_by:
            why = f"the process takes no tasks {self.config.span('starting'):g} s after it imported its code"
        elif child.stage is not Stage.LOADING and silent_s > self.config.span("silence"):
            why = f"the process has sent no message for {silent_s:.0f} s"
        elif child.stage is not Stage.LOADING and silent_s > SILENT_S and now - child.overdue_checked_at > SILENT_S:
            child.overdue_checked_at = now
            self._background.start(self._check_overdue(child))
        if why:
            self._kill(child, why)

    def _kill(self, child: Child, why: str) -> None:
        if child.killed_at is not None:
            return
        logger.error("process %d (pid %d) is killed: %s", child.place, child.pid, why)
        child.kill(time.monotonic())

    def _abandon(self, child: Child, now: float) -> None:
        """Stop waiting for a killed process that does not end. The kernel runs no more of its code."""
        logger.error(
            "process %d (pid %d) has not ended %.0f s after it was killed; it is replaced. Its disk may hang",
            child.place,
            child.pid,
            UNKILLABLE_S,
        )
        self._remove(child, now)

    async def _check_overdue(self, child: Child) -> None:
        """Kill a silent process if one of its tasks is overdue: the task blocks the whole process."""
        overran = await self._returns.list_overrun(child)
        if overran and time.monotonic() - child.last_message_at > SILENT_S:
            child.overran = overran
            ids = ", ".join(task_id for _, task_id in overran)
            self._kill(child, f"an overdue task blocks the process: {ids}")

    def _fill(self, place: Place, now: float) -> None:
        """Start a missing process, or the successor of a process that must be replaced."""
        if place.is_done or now < place.next_at or place.successor is not None:
            return
        if place.current is None:
            place.current = self._start(place, now)
        elif place.replace_reason:
            place.successor = self._start(place, now)

    def _empty(self, place: Place) -> None:
        """End a process that must be replaced without starting a successor, because the supervisor is paused."""
        child = place.current
        if child is not None and place.replace_reason:
            logger.info(
                "process %d (pid %d) finishes its tasks; no successor starts while the supervisor is paused",
                child.place,
                child.pid,
            )
            place.current, place.replace_reason = None, ""
            child.retire()

    def _start(self, place: Place, now: float) -> Child | None:
        try:
            child = Child(place.number, self._command, self._environment, now)
        except OSError as error:
            place.next_at = now + max(1.0, place.pause.after(0.0))
            logger.error("process %d cannot be started: %s", place.number, error)
            return None
        logger.debug("process %d (pid %d) starts", place.number, child.pid)
        self._children.append(child)
        self._loop.add_reader(child.socket, self._receive, child)
        return child

    # --- messages of processes ----------------------------------------------------------------------------------------

    def _receive(self, child: Child) -> None:
        messages, is_open = child.receive()
        for kind, fields in messages:
            try:
                self._handle(child, kind, fields)
            except (KeyError, TypeError, ValueError):
                logger.error("process %d (pid %d) sent an invalid message", child.place, child.pid)
        if not is_open:
            self._loop.remove_reader(child.socket)
            self._wake.set()

    def _receive_rest(self, child: Child) -> None:
        """Read the last messages of an ended process. They contain its identity, and whether it announced its end."""
        while messages := child.receive()[0]:
            for kind, fields in messages:
                if kind in (channel.HELLO, channel.CLOSING):
                    self._handle(child, kind, fields)

    def _handle(self, child: Child, kind: str, fields: dict[str, Any]) -> None:
        child.last_message_at = time.monotonic()
        if kind == channel.REPORT:
            child.store_report(fields)
            if child.stage is Stage.STARTING and child.health[1].get("status") == WAITING:
                child.start_by = child.last_message_at + self.config.span("starting")
            if fields["wish"] and child.stage is Stage.WORKING:
                self._request_replacement(child, str(fields["wish"]))
            self._check_memory(child)
            return
        if kind == channel.LEAVE:
            if not self._stopping.is_set():
                logger.info("stopping: an operator requested it from process %d (pid %d)", child.place, child.pid)
                self.stop()
        elif kind == channel.HELLO:
            child.identity = fields
            if child.stage is Stage.LOADING:
                child.stage = Stage.STARTING
                child.start_by = child.last_message_at + self.config.span("starting")
        elif kind == channel.READY:
            self._on_ready(child)
        elif kind == channel.CLOSING:
            child.has_closed = True
            if child.kill_at is None:
                child.stage = Stage.STOPPING
                child.kill_at = child.last_message_at + self.config.span("aborting")
        self._wake.set()

    def _on_ready(self, child: Child) -> None:
        if child.stage is not Stage.STARTING:
            return
        child.stage = Stage.WORKING
        child.working_since = child.last_message_at
        self._has_worked = True
        logger.info("process %d (pid %d) takes tasks", child.place, child.pid)
        place = self._places[child.place - 1]
        if child is place.successor:
            old, place.current, place.successor, place.replace_reason = place.current, child, None, ""
            if old is not None:
                self._retire(old, child)
        working = [each.current is not None and each.current.stage is Stage.WORKING for each in self._places]
        if not self._has_reported_ready and all(working):
            self._has_reported_ready = True
            self._write_line("ready")

    def _retire(self, old: Child, child: Child) -> None:
        if old.stage is Stage.WORKING:
            logger.info("process %d (pid %d) finishes its tasks; successor: pid %d", old.place, old.pid, child.pid)
            old.retire()
        else:
            old.stop(time.monotonic() + self.config.span("ending"))

    def _request_replacement(self, child: Child, why: str) -> None:
        place = self._places[child.place - 1]
        if child is place.current and not place.replace_reason:
            logger.info("process %d (pid %d) is replaced: %s", child.place, child.pid, why)
            place.replace_reason = why
            self._wake.set()

    def _check_memory(self, child: Child) -> None:
        """Log once if a process exceeds the memory limit before its first task."""
        most = self.config.max_memory
        if most is not None and child.memory > most and not child.tasks and not self._has_warned_memory:
            self._has_warned_memory = True
            logger.error(
                "process %d (pid %d) uses %.0f MB before its first task, and max-memory is %.0f MB: each process is "
                "replaced after its first tasks; raise max-memory",
                child.place,
                child.pid,
                child.memory / 1e6,
                most / 1e6,
            )

    def _continue_rolling(self) -> None:
        if self._rolled is not None and self._rolled.replace_reason:
            return
        self._rolled = None
        while self._rolling:
            place = self._rolling.popleft()
            place.pause.forget()
            place.next_at = 0.0
            if place.current is not None:
                place.replace_reason = "a rolling restart"
                self._rolled = place
                return
        self._is_rolling_from_pause = False

    # --- the end of processes -----------------------------------------------------------------------------------------

    def _ended(self, child: Child, status: int, now: float) -> None:
        self._receive_rest(child)
        was_stopped = child.ends_in_order or (child.stage is Stage.STOPPING and status == -signal.SIGTERM)
        logger.log(
            logging.INFO if was_stopped else logging.ERROR,
            "process %d (pid %d) %s",
            child.place,
            child.pid,
            ending_of(status, is_in_order=child.ends_in_order),
        )
        self._remove(child, now)

    def _remove(self, child: Child, now: float) -> None:
        """Return the tasks of an ended process, and decide whether and when a new one starts."""
        self._children.remove(child)
        self._loop.remove_reader(child.socket)
        child.socket.close()
        place = self._places[child.place - 1]
        is_needed = child in (place.current, place.successor)
        if child.identity:
            patience_s = self.config.span("silence")  # after this time, the leases of the tasks have expired
            self._background.start(self._returns.return_tasks(child, patience_s=patience_s))
        if self._stopping.is_set() or not is_needed:
            return
        lived_s = 0.0 if child.working_since is None else now - child.working_since
        if child is place.successor:
            place.successor = None
            if place is self._rolled:
                then = (
                    "no process takes tasks until the next SIGHUP"
                    if self._is_rolling_from_pause
                    else "the other processes are not replaced"
                )
                logger.error("the rolling restart failed, because a new process ended before it took tasks; %s", then)
                place.replace_reason = ""
                self._rolling.clear()
                self._rolled = None
                if self._is_rolling_from_pause:  # old processes are still paused, so pause the new ones too
                    self._on_pause()
                return
        else:
            place.current, place.successor = place.successor, None
            place.replace_reason = ""
            if place.current is not None:
                return
            if self.config.burst and child.ends_in_order:
                place.is_done = True
                return
            place.restarts += 1
        pause_s = place.pause.after(lived_s)
        place.next_at = now + pause_s
        if pause_s:
            logger.warning("process %d starts again in %.1f s", place.number, pause_s)
            self._loop.call_later(pause_s, self._wake.set)

    # --- health -------------------------------------------------------------------------------------------------------

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all processes work, and the body of the health endpoint."""
        now = time.monotonic()
        body = document_of(self._places, self._children, now)
        if self._stopping.is_set() or self._is_paused:
            body |= {"status": "draining", "reason": "the processes take no new tasks"}
        elif self._wait.reason:
            body |= {"status": WAITING, "reason": self._wait.reason}
        elif not self._has_worked:
            body |= {"status": "starting", "reason": "no process takes tasks yet"}
        return body["status"] == "ready", body
