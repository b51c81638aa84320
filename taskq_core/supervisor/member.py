"""A worker whose process has a supervisor: it tells how it is, and does what it is told.

Two threads do so, so that neither a blocked event loop nor a slow supervisor holds up the other: one hears, one tells
every second. A process of which nothing is heard any more has an interpreter that is held up as a whole, by a function
that never lets go of its lock; the supervisor ends it. If that one is gone too, a watchdog in C does.
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

with contextlib.suppress(ImportError):  # Windows, where there is no supervisor
    import resource

from taskq_core.supervisor import channel
from taskq_core.supervisor.channel import Channel
from taskq_core.supervisor.config import MEMBER_SHARE, Limits
from taskq_core.telemetry import flush_at_end
from taskq_core.worker import Worker
from taskq_core.worker.process import run_as_process

logger = logging.getLogger("taskq.supervisor")

REPORT_EVERY_S = 1.0
"""Seconds between two reports."""
LOOKED_AT_S = 3.0
"""Seconds after which a worker that takes tasks counts as working though it is not well: its predecessor may not be."""
CLOSING_S = 1.0
"""Most seconds to wait for a supervisor that does not read, to tell it that the process ends."""
_LOOK_EVERY_S = 0.05
"""Seconds between two looks whether the worker has started."""
_WATCHDOG_MARGIN_S = 15.0
"""Seconds by which the watchdog is later than a supervisor that lives."""
_STATM = Path("/proc/self/statm")


class Member:
    """This process, as one of those of a supervisor.

    Args:
        descriptor: Of its end of the channel.
    """

    def __init__(self, descriptor: int) -> None:
        self._channel = Channel(descriptor)
        self._is_over = threading.Event()
        self._wish = ""
        self._active_since: float | None = None

    @classmethod
    def from_environment(cls) -> "Member | None":
        """Return this process as a member, None if it has no supervisor. Processes started from here have none."""
        text = os.environ.pop(channel.VARIABLE, "")
        return cls(int(text)) if text.isdigit() else None

    def run(self, worker: Worker, limits: Limits) -> int:
        """Run a worker until it is told to end, and return the exit status.

        Args:
            worker: A worker that was not started.
            limits: When it asks to be replaced.
        """
        worker.is_watched = worker.has_supervisor = True
        worker.on_worn_out = self._worn_out
        worker.on_stop_asked = partial(self._channel.tell, channel.LEAVE)
        self._channel.tell(
            channel.HELLO,
            token=worker.token,
            server_id=worker.id,
            host=worker.host,
            queues=list(worker.config.queues),
        )
        threading.Thread(target=self._hear, args=(worker,), name="taskq-hear", daemon=True).start()
        threading.Thread(target=self._tell, args=(worker, limits), name="taskq-tell", daemon=True).start()
        try:
            return run_as_process(worker, has_supervisor=True)
        finally:
            self._channel.tell(channel.CLOSING, within_s=CLOSING_S)
            flush_at_end(MEMBER_SHARE)
            self._is_over.set()
            faulthandler.cancel_dump_traceback_later()

    # --- told by the supervisor ---------------------------------------------------------------------------------------

    def _hear(self, worker: Worker) -> None:
        for word in self._channel.hear():
            if word == channel.STOP:
                worker.stop()
            elif word == channel.ABORT:
                worker.abort()
            elif word == channel.PAUSE:
                worker.on_loop(worker.pause)
            elif word == channel.RETIRE:
                worker.retire()
        if not self._is_over.is_set():
            logger.error("the supervisor is gone; this process stops")
            worker.stop()

    # --- told to the supervisor ---------------------------------------------------------------------------------------

    def _worn_out(self) -> None:
        """Request a replacement process, because only its end stops abandoned functions. It works until then."""
        self._wish = "too many of its functions did not end after they were interrupted"

    def _tell(self, worker: Worker, limits: Limits) -> None:
        pause_s = _LOOK_EVERY_S
        while not self._is_over.is_set():
            self._is_over.wait(pause_s)
            takes_over = pause_s < REPORT_EVERY_S and self._takes_over(worker)
            try:
                self._report(worker, limits)
            except Exception:  # without its reports the process would be taken for held up
                logger.exception("a report to the supervisor failed")
            if takes_over:  # told last: it is known to be well once it counts instead of its predecessor
                pause_s = REPORT_EVERY_S
                self._channel.tell(channel.READY)

    def _takes_over(self, worker: Worker) -> bool:
        """Whether it works as well as one that it takes over from: its queues were looked at, or it has waited."""
        if worker.status != "active":
            return False
        if self._active_since is None:
            self._active_since = time.monotonic()
        return worker.report()[0] or time.monotonic() - self._active_since > LOOKED_AT_S

    def _report(self, worker: Worker, limits: Limits) -> None:
        patience_s = worker.config.span("lease") + worker.config.span("lease_grace") + _WATCHDOG_MARGIN_S
        with contextlib.suppress(RuntimeError, ValueError, AttributeError, OSError):  # no standard error to write to
            faulthandler.dump_traceback_later(patience_s, exit=True)
        memory = resident_memory()
        tasks = worker.ended_count
        wish = self._wish or limits.reached(tasks, memory)  # each time: it may not be granted at once
        is_well, body = worker.report()
        self._channel.tell_if_heard(channel.REPORT, is_ready=is_well, body=body, tasks=tasks, memory=memory, wish=wish)


def resident_memory() -> int:
    """Return the bytes of memory that this process takes; where the system does not tell, the most it ever took."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
