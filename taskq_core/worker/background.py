"""A worker in a thread of a process that does something else, for example a development server.

It has an event loop of its own and handles no signals. The thread is a daemon: whatever becomes of the worker, it never
keeps the process from ending. One that cannot start, for example because Redis is not there yet, is tried again.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from taskq_core.errors import TaskQError
from taskq_core.worker.worker import Worker

logger = logging.getLogger("taskq.worker")

TRIED_AGAIN_S = 5.0
"""Seconds after which a worker that could not start, or gave up, is tried again."""
_NAP_S = 0.05
"""Longest time in which a stop is not seen while no worker runs, in seconds."""


class BackgroundWorker:
    """Runs a worker in a thread, a new one after one that could not start.

    Args:
        make: Returns a worker that was not started. Called in the thread.
        may_begin: Waits at most the seconds given and returns whether work may begin; asked until it may.
    """

    def __init__(self, make: Callable[[], Worker], *, may_begin: Callable[[float], bool] = lambda _: True) -> None:
        self._make = make
        self._may_begin = may_begin
        self._worker: Worker | None = None
        # Plain flags, which a signal handler may set whatever it interrupts: an Event has a lock.
        self._is_stopping = False
        self._is_aborting = False
        self._thread = threading.Thread(target=self._live, name="taskq worker", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to work, and return at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop gracefully: running tasks get the worker's grace, then they are given back.

        Args:
            timeout_s: Most seconds this takes, whatever the worker does.

        Returns:
            False if it has not ended by then.
        """
        self._is_stopping = True
        self._tell()
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abort(self) -> None:
        """Give running tasks back without waiting for them, and return at once. A signal handler may call it."""
        self._is_stopping = self._is_aborting = True
        self._tell()

    def _tell(self) -> None:
        worker = self._worker
        if worker is not None and self._is_aborting:
            worker.abort()
        elif worker is not None and self._is_stopping:
            worker.stop()

    def _live(self) -> None:
        while not self._is_stopping and not self._may_begin(_NAP_S):
            pass
        while not self._is_stopping:
            try:
                self._worker = worker = self._make()
            except TaskQError as error:
                logger.error("the worker cannot start: %s", error)
                return
            self._tell()  # it was told to stop while the worker was made
            if asyncio.run(worker.arun()) == 0:
                return
            tried_again_at = time.monotonic() + TRIED_AGAIN_S
            while not self._is_stopping and time.monotonic() < tried_again_at:
                time.sleep(_NAP_S)
