"""Run a worker in a thread of another process, for example of a development server.

The worker has a separate event loop and handles no signals. The thread is a daemon, so it never keeps the process from
ending. While Redis is unavailable at the start, the worker waits in its thread. If a worker cannot start or dies, a new
worker starts after a pause that doubles each time.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from taskq_core.errors import TaskQError
from taskq_core.worker.process import complete
from taskq_core.worker.worker import Worker

logger = logging.getLogger("taskq.worker")

FIRST_PAUSE_S = 1.0
"""Seconds until a new worker starts after a worker that failed. Doubled each time."""
LONGEST_PAUSE_S = 60.0
"""Maximum pause in seconds. After a worker that ran for at least this time, the first pause applies again."""
_CHECK_S = 0.05
"""Maximum seconds until the thread notices a stop while no worker runs."""


class BackgroundWorker:
    """Runs a worker in a thread, and starts a new worker if it cannot start or dies.

    Args:
        make: Returns a worker that is not started. Called in the thread.
        may_begin: Waits at most the given seconds, and returns whether a worker may start. Called until it returns
            True.
    """

    def __init__(self, make: Callable[[], Worker], *, may_begin: Callable[[float], bool] = lambda _: True) -> None:
        self._make = make
        self._may_begin = may_begin
        self._worker: Worker | None = None
        self._pause = Pause()
        self._failure = ""
        self._next_at: float | None = None
        # Flags instead of an Event: a signal handler sets them, and may interrupt code that holds the lock of an Event.
        self._is_stopping = False
        self._is_aborting = False
        self._thread = threading.Thread(target=self._live, name="taskq worker", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread.is_alive()

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether a worker runs and is ready, and the body of the health response."""
        body: dict[str, Any] = {}
        next_at, worker = self._next_at, self._worker
        if self._is_stopping:
            body = {"status": "draining", "reason": "no new task is taken"}
        elif self._thread.ident is not None and not self.is_alive:
            body = {"status": "stopped", "reason": self._failure}
        elif next_at is not None:
            left_s = max(0.0, next_at - time.monotonic())
            body = {"status": "restarting", "reason": f"{self._failure}; a new worker starts in {left_s:.0f} s"}
        elif worker is None:
            body = {"status": "starting", "reason": "no task is taken yet"}
        if body:
            return False, {**body, "restarts": self._pause.count}
        assert worker is not None
        is_ready, body = worker.report()
        return is_ready, {**body, "restarts": self._pause.count}

    def start(self) -> None:
        """Start the thread, and return at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop gracefully. Running tasks get the worker's grace period. After that, they return to their queue.

        Args:
            timeout_s: Maximum seconds to wait.

        Returns:
            False if the thread still runs after `timeout_s`.
        """
        self._is_stopping = True
        self._forward_stop()
        if self._thread.ident is not None:  # `join` fails for a thread that was never started
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abort(self) -> None:
        """Stop without waiting for running tasks, and return at once. A signal handler may call this."""
        self._is_stopping = self._is_aborting = True
        self._forward_stop()

    def _forward_stop(self) -> None:
        worker = self._worker
        if worker is not None and self._is_aborting:
            worker.abort()
        elif worker is not None and self._is_stopping:
            worker.stop()

    def _live(self) -> None:
        while not self._is_stopping and not self._may_begin(_CHECK_S):
            pass
        while not self._is_stopping:
            started = time.monotonic()
            try:
                if self._live_once():
                    return
            except BaseException as error:  # the thread must survive every error, so that it can start a new worker
                self._failure = f"the worker failed with {type(error).__name__}"
                logger.exception("the worker failed")
            pause_s = self._pause.after(time.monotonic() - started)
            self._next_at = time.monotonic() + pause_s
            if not self._is_stopping:
                logger.warning("a new worker starts in %g s", pause_s)
            while not self._is_stopping and time.monotonic() < self._next_at:
                time.sleep(_CHECK_S)

    def _live_once(self) -> bool:
        """Run one worker until it ends. Return False if a new worker must be started after it."""
        try:
            self._worker = worker = self._make()
        except TaskQError as error:
            logger.error("the worker cannot start: %s", error)
            self._failure = "the worker cannot start"
            return True
        worker.is_watched = True
        self._next_at = None
        self._forward_stop()  # a stop may have been requested while the worker was created
        self._failure = "the worker could not start, or gave up"
        with asyncio.Runner() as runner:
            return complete(runner.get_loop(), worker.arun()) == 0


class Pause:
    """Computes the pause before a new worker replaces a failed one.

    Attributes:
        count: Number of failed workers.
    """

    def __init__(self) -> None:
        self.count = 0
        self._next_s = FIRST_PAUSE_S

    def after(self, lived_s: float) -> float:
        """Return the seconds to wait after a worker that ran for `lived_s` seconds."""
        if lived_s >= LONGEST_PAUSE_S:
            self._next_s = FIRST_PAUSE_S
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_PAUSE_S)
        self.count += 1
        return pause_s
