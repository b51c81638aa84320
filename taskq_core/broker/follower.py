"""Follow the primary that Sentinels name, in a thread of a process that uses connections to it.

After a planned failover, the old primary accepts writes for about ten seconds, until it becomes a replica and discards
them. A client with an open connection would not notice that. So the thread asks the Sentinels every second. Once more
than half of them name another primary, each connection is replaced at its next use.
"""

import logging
import os
import threading
import time
import weakref
from typing import Protocol

logger = logging.getLogger("taskq.client")

FOLLOW_EVERY_S = 1.0
"""Seconds between two requests that ask the Sentinels for the current primary."""
UNUSED_S = 60.0
"""Seconds without a request after which the thread ends. The next request starts another one."""


class Followed(Protocol):
    """The part of an endpoint that the thread uses."""

    address: str
    takeovers: int

    def follow_primary_blocking(self, *, unless_within_s: float) -> None:
        """Ask the Sentinels, and increase `takeovers` if another server has become the primary."""


class Follower:
    """Starts the thread when it is needed: at the first request, after a fork, and after a pause.

    Args:
        endpoint: An endpoint with Sentinels. The thread ends when the endpoint is no longer used.
    """

    def __init__(self, endpoint: Followed) -> None:
        self._endpoint = weakref.ref(endpoint)
        self._lock = threading.Lock()
        self._used_at = 0.0
        self._process = 0
        self._is_running = False

    def keep(self) -> None:
        """Record a use of the endpoint, and start the thread if it does not run."""
        self._used_at = time.monotonic()
        if not self._is_running or self._process != os.getpid():
            self._start()

    def _start(self) -> None:
        if self._process != os.getpid():
            self._lock = threading.Lock()  # another thread may have held the lock during the fork
        with self._lock:
            if self._is_running and self._process == os.getpid():
                return
            self._is_running, self._process = True, os.getpid()
            threading.Thread(target=self._follow, name="taskq-follower", daemon=True).start()

    def _follow(self) -> None:
        has_failed = False
        while True:
            time.sleep(FOLLOW_EVERY_S)
            endpoint = self._endpoint()
            with self._lock:
                if endpoint is None or time.monotonic() - self._used_at > UNUSED_S:
                    self._is_running = False
                    if endpoint is not None:
                        endpoint.takeovers += 1  # a later failover will not be noticed, so distrust all connections
                    return
            try:
                endpoint.follow_primary_blocking(unless_within_s=FOLLOW_EVERY_S / 2)
                has_failed = False
            except Exception:
                if not has_failed:  # one line until the Sentinels can be asked again
                    logger.exception("cannot ask the Sentinels for the primary of %s", endpoint.address)
                has_failed = True
            del endpoint
