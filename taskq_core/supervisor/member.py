"""A worker process with a supervisor: it reports its health and follows the supervisor's messages.

One thread reads messages and one sends a report every second, so that a blocked event loop or a slow supervisor does
not stop them. If reports stop, a function holds the interpreter's lock, and the supervisor kills the process. If the
supervisor has ended too, a watchdog written in C ends the process.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

with contextlib.suppress(ImportError):  # Windows has no supervisor
    import resource

from taskq_core.supervisor import channel
from taskq_core.supervisor.channel import Channel
from taskq_core.supervisor.config import MEMBER_SHARE, Limits
from taskq_core.telemetry import flush_at_end
from taskq_core.worker import Worker
from taskq_core.worker.process import run_as_process

logger = logging.getLogger("taskq.supervisor")

REPORT_EVERY_S = 1.0
"""Seconds between two reports to the supervisor."""
READY_AFTER_S = 3.0
"""Seconds after which a worker that takes tasks counts as started, even if it is not healthy."""
CLOSING_S = 1.0
"""Maximum seconds to wait until the supervisor reads the last message of this process."""
_START_CHECK_EVERY_S = 0.05
"""Seconds between two checks whether the worker has started."""
_WATCHDOG_MARGIN_S = 15.0
"""The watchdog waits this many seconds longer than the supervisor before it ends this process."""
_STATM = Path("/proc/self/statm")


class Member:
    """Connects a worker process with its supervisor: sends reports and follows messages.

    Args:
        descriptor: File descriptor of its end of the channel.
        supervisor: Name that the supervisor holds.
    """

    def __init__(self, descriptor: int, supervisor: str) -> None:
        self._channel = Channel(descriptor)
        self._supervisor = supervisor
        self._is_over = threading.Event()
        self._replace_reason = ""
        self._active_since: float | None = None

    @classmethod
    def from_environment(cls) -> "Member | None":
        """Return the member that the environment describes, or None if this process has no supervisor.

        Remove the description from the environment, because child processes of this process have no supervisor.
        """
        text, supervisor = os.environ.pop(channel.VARIABLE, ""), os.environ.pop(channel.NAME_VARIABLE, "")
        return cls(int(text), supervisor) if text.isdigit() else None

    def run(self, worker: Worker, limits: Limits) -> int:
        """Run a worker until it is stopped, and return the exit status.

        Args:
            worker: A worker that was not started.
            limits: Limits at which it asks to be replaced.
        """
        worker.is_watched = True
        worker.supervisor = self._supervisor
        worker.on_exhausted = self._request_replacement
        worker.on_stop_requested = partial(self._channel.send, channel.LEAVE)
        self._channel.send(
            channel.HELLO,
            token=worker.token,
            server_id=worker.id,
            host=worker.host,
            queues=list(worker.config.queues),
        )
        threading.Thread(
            target=self._receive_messages, args=(worker,), name="taskq-supervisor-messages", daemon=True
        ).start()
        threading.Thread(
            target=self._send_reports, args=(worker, limits), name="taskq-supervisor-reports", daemon=True
        ).start()
        try:
            return run_as_process(worker, has_supervisor=True)
        finally:
            self._channel.send(channel.CLOSING, within_s=CLOSING_S)
            flush_at_end(MEMBER_SHARE)
            self._is_over.set()
            faulthandler.cancel_dump_traceback_later()

    # --- messages from the supervisor ---------------------------------------------------------------------------------

    def _receive_messages(self, worker: Worker) -> None:
        for kind in self._channel.receive():
            if kind == channel.STOP:
                worker.stop()
            elif kind == channel.ABORT:
                worker.abort()
            elif kind == channel.PAUSE:
                worker.on_loop(worker.pause)
            elif kind == channel.RETIRE:
                worker.retire()
        if not self._is_over.is_set():
            logger.error("the supervisor has ended; this process stops")
            worker.stop()

    # --- messages to the supervisor -----------------------------------------------------------------------------------

    def _request_replacement(self, problem: str) -> None:
        """Request a replacement of this process, because only its end stops abandoned functions.

        The process takes tasks until its successor is ready.
        """
        self._replace_reason = problem

    def _send_reports(self, worker: Worker, limits: Limits) -> None:
        pause_s = _START_CHECK_EVERY_S
        while not self._is_over.is_set():
            self._is_over.wait(pause_s)
            is_ready = pause_s < REPORT_EVERY_S and self._is_ready(worker)
            try:
                self._report(worker, limits)
            except Exception:  # continue: the supervisor kills a process that sends no reports
                logger.exception("a report to the supervisor failed")
            if is_ready:  # the first health report must be sent before the message `ready`
                pause_s = REPORT_EVERY_S
                self._channel.send(channel.READY)

    def _is_ready(self, worker: Worker) -> bool:
        """Return whether the worker is healthy, or has been active for `READY_AFTER_S`."""
        if worker.status != "active":
            return False
        if self._active_since is None:
            self._active_since = time.monotonic()
        return worker.report()[0] or time.monotonic() - self._active_since > READY_AFTER_S

    def _report(self, worker: Worker, limits: Limits) -> None:
        patience_s = worker.config.span("lease") + worker.config.span("lease_grace") + _WATCHDOG_MARGIN_S
        # `dump_traceback_later` writes to standard error and fails if that is closed.
        with contextlib.suppress(RuntimeError, ValueError, AttributeError, OSError):
            faulthandler.dump_traceback_later(patience_s, exit=True)
        memory = resident_memory()
        tasks = worker.ended_count
        # Ask for a replacement in each report, because the supervisor may not be able to replace the process at once.
        reason = self._replace_reason or limits.reached(tasks, memory)
        is_healthy, body = worker.report()
        self._channel.send_update(
            channel.REPORT, is_ready=is_healthy, body=body, tasks=tasks, memory=memory, wish=reason
        )


def resident_memory() -> int:
    """Return the resident memory of this process in bytes, or its peak if the system reports only that."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
