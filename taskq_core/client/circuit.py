"""The circuit breaker of the clients. While Redis does not answer, most enqueues fail at once.

::

                +-- an enqueue succeeds (the count of failures starts again)
                v   |
    closed -----+---+
      |  ^
      |  +--------------------------------+
      |   a try succeeds                  |
      v                                   |
    open -- the pause is over: one try --> half open
      ^                                   |
      +-----------------------------------+
          it fails: twice the pause

An enqueue that does not reach Redis waits for its whole timeout. After several of them in a row, all enqueues fail at
once during a pause. Then one enqueue tries while the others still fail, and its result decides. Any answer of Redis
closes the circuit, also a refusal.

The blocking and the asyncio client of an application share one circuit. Workers and schedulers do not use it.
"""

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from taskq_core.errors import BrokerError, BrokerUnavailableError, CircuitOpenError
from taskq_core.settings import CircuitSettings, seconds

logger = logging.getLogger("taskq.client")

TRY_LOST_S = 60.0
"""Seconds after which an unfinished try counts as lost, for example because its event loop was closed."""


class CircuitState(StrEnum):
    """Whether a client sends requests to Redis."""

    CLOSED = "closed"
    """Requests are sent."""
    OPEN = "open"
    """Redis failed to answer several times in a row. No requests are sent during a pause."""
    HALF_OPEN = "half_open"
    """One enqueue is sent as a try. All others fail at once until it has ended."""


class Circuit:
    """Counts failures to reach Redis, and decides whether to send requests. Safe to share by threads and event loops.

    Args:
        settings: When the circuit opens, and for how long.
        address: The address of Redis for error messages.
        opened: Called each time the circuit opens.
        monotonic: Source of monotonic time.
        jitter: Returns the random factor for the length of a pause.
    """

    def __init__(
        self,
        settings: CircuitSettings,
        *,
        address: str,
        opened: Callable[[], object] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - jitter, no secret
    ) -> None:
        self._most_failures = settings.failures
        self._first_pause_s = seconds("first_pause", settings.first_pause)
        self._max_pause_s = seconds("max_pause", settings.max_pause)
        self._address = address
        self._opened = opened
        self._monotonic = monotonic
        self._jitter = jitter
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Close the circuit and forget all failures."""
        self._lock = threading.Lock()
        self._failures = 0
        self._last_failure = ""
        self._pause_s = self._first_pause_s
        self._retry_at: float | None = None  # None while the circuit is closed
        self._try_until: float | None = None  # None while no request tries

    @property
    def state(self) -> CircuitState:
        """The state of the circuit."""
        with self._lock:
            if self._retry_at is None:
                return CircuitState.CLOSED
            return CircuitState.OPEN if self._try_until is None else CircuitState.HALF_OPEN

    @property
    def _is_closed(self) -> bool:
        return self._retry_at is None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Send a request to Redis in a `with` block. Raises the errors of `begin`."""
        is_try = self.begin()
        try:
            yield
        except BaseException as error:
            self.end(error, is_try=is_try)
            raise
        self.end(None, is_try=is_try)

    def begin(self) -> bool:
        """Begin a request to Redis. Return True if it is the single try of an open circuit.

        Raises:
            CircuitOpenError: The circuit is open, so the request must not be sent.
        """
        if self._retry_at is None:  # read without the lock, because a slightly outdated value does no harm
            return False
        now = self._monotonic()
        with self._lock:
            if self._is_closed:
                return False
            if self._try_until is not None and now < self._try_until:
                raise self._error(self._pause_s)  # an estimate: the pause ends earlier if the try succeeds
            if now < self._retry_at:
                raise self._error(self._retry_at - now)
            self._try_until = now + TRY_LOST_S
            return True

    def end(self, error: BaseException | None, *, is_try: bool) -> None:
        """Record the end of a request. Only an unavailable Redis counts as a failure.

        A refusal by Redis counts as an answer. An error of the caller, such as a cancellation, is ignored.
        """
        if isinstance(error, BrokerUnavailableError):
            self._note_failure(error, is_try=is_try)
        elif error is None or isinstance(error, BrokerError):
            if self._failures:
                self._note_answer()
        elif is_try:
            with self._lock:
                self._try_until = None  # another request may try

    def _error(self, retry_in_s: float) -> CircuitOpenError:
        return CircuitOpenError(self._address, self._failures, retry_in_s, self._last_failure)

    def _note_answer(self) -> None:
        with self._lock:
            was_open = self._retry_at is not None
            self._failures = 0
            self._pause_s = self._first_pause_s
            self._retry_at = self._try_until = None
        if was_open:
            logger.info("%s answers again: enqueues are sent again", self._address)

    def _note_failure(self, error: BrokerUnavailableError, *, is_try: bool) -> None:
        if not self._most_failures:
            return
        with self._lock:
            if self._retry_at is not None and not is_try:
                return  # the request was sent before the circuit opened
            self._failures += 1
            self._last_failure = str(error)
            is_new = self._retry_at is None
            if is_new and self._failures < self._most_failures:
                return
            if not is_new:
                self._pause_s = min(2 * self._pause_s, self._max_pause_s)
            self._try_until = None
            pause_s = self._jitter() * self._pause_s
            self._retry_at = self._monotonic() + pause_s
            failures = self._failures
        if is_new:
            logger.warning(
                "%s failed to answer %d times in a row: enqueues now fail at once, next try in %.1f s; last error: %s",
                self._address,
                failures,
                pause_s,
                error,
            )
            self._opened()


_all: "weakref.WeakSet[Circuit]" = weakref.WeakSet()


def _reset_all() -> None:
    for circuit in list(_all):
        circuit.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
