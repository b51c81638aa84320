"""The circuit breaker of the clients: a Redis that does not answer is not asked by every enqueue.

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

Each enqueue that does not reach Redis waits for the whole of its timeout. After some of those in a row all others fail
at once, for a pause; then one of them tries while the others still fail, and its end decides. What counts is that Redis
answered: a refusal closes the circuit as a success does.

One circuit belongs to one endpoint and is shared by the blocking and the asyncio client. Workers and schedulers have
their own way of waiting and do not ask it.
"""

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType

from taskq_core.errors import BrokerError, BrokerUnavailableError, CircuitOpenError
from taskq_core.settings import CircuitSettings, seconds

logger = logging.getLogger("taskq.client")

TRY_LOST_S = 60.0
"""Seconds after which a try that has not ended is taken for lost, as when its event loop was dropped."""


class CircuitState(StrEnum):
    """Whether a client asks Redis."""

    CLOSED = "closed"
    """It does."""
    OPEN = "open"
    """It failed too often: nothing is sent for a while."""
    HALF_OPEN = "half_open"
    """One enqueue tries again; nothing else is sent until it has ended."""


class Circuit:
    """Knows whether Redis answered lately. Safe to share between threads and event loops.

    Args:
        settings: When it opens, and how long for.
        address: Where Redis is, for errors.
        opened: Called each time it opens.
        monotonic: Source of monotonic time.
        jitter: Returns the share of a pause that is kept.
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
        self._usual_call = Call(self, is_try=False)  # it holds nothing, so all share one
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Close it and forget all failures."""
        self._lock = threading.Lock()
        self._failures = 0
        self._last_failure = ""
        self._pause_s = self._first_pause_s
        self._retry_at: float | None = None  # None while it is closed
        self._try_until: float | None = None  # None while nobody tries

    @property
    def state(self) -> CircuitState:
        """Whether Redis is asked."""
        with self._lock:
            if self._retry_at is None:
                return CircuitState.CLOSED
            return CircuitState.OPEN if self._try_until is None else CircuitState.HALF_OPEN

    def call(self) -> "Call":
        """Return the `with` block in which a request to Redis is made.

        Raises:
            CircuitOpenError: Redis is not asked just now.
        """
        retry_at = self._retry_at
        if retry_at is None:  # a moment ago, which is soon enough
            return self._usual_call
        with self._lock:
            retry_at = self._retry_at
            if retry_at is None:
                return self._usual_call
            now = self._monotonic()
            if self._try_until is not None and now < self._try_until:
                raise self._error(self._pause_s)  # about: unless it succeeds
            if now < retry_at:
                raise self._error(retry_at - now)
            self._try_until = now + TRY_LOST_S
            return Call(self, is_try=True)

    def _error(self, retry_in_s: float) -> CircuitOpenError:
        return CircuitOpenError(self._address, self._failures, retry_in_s, self._last_failure)

    def note_answer(self) -> None:
        """Note that Redis answered."""
        if not self._failures:
            return
        with self._lock:
            was_open = self._retry_at is not None
            self._failures = 0
            self._pause_s = self._first_pause_s
            self._retry_at = self._try_until = None
        if was_open:
            logger.info("%s answers again: enqueueing goes on", self._address)

    def note_failure(self, error: BrokerUnavailableError, *, is_try: bool) -> None:
        """Note that Redis did not answer."""
        if not self._most_failures:
            return
        with self._lock:
            if self._retry_at is not None and not is_try:
                return  # sent before it opened
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
                "%s failed %d times in a row: enqueues fail at once, and one tries again in %.1f s; the last time: %s",
                self._address,
                failures,
                pause_s,
                error,
            )
            self._opened()

    def note_nothing(self, *, is_try: bool) -> None:
        """Note that a request was given up before its end: if it was the one that tries, another may."""
        if is_try:
            with self._lock:
                self._try_until = None


class Call:
    """One request to Redis, whose end the circuit notes."""

    __slots__ = ("_circuit", "_is_try")

    def __init__(self, circuit: Circuit, *, is_try: bool) -> None:
        self._circuit = circuit
        self._is_try = is_try

    def __enter__(self) -> "Call":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Note how it ended: None if there was an answer."""
        if error is None or (isinstance(error, BrokerError) and not isinstance(error, BrokerUnavailableError)):
            self._circuit.note_answer()
        elif isinstance(error, BrokerUnavailableError):
            self._circuit.note_failure(error, is_try=self._is_try)
        else:
            self._circuit.note_nothing(is_try=self._is_try)


_all: "weakref.WeakSet[Circuit]" = weakref.WeakSet()


def _reset_all() -> None:
    for circuit in list(_all):
        circuit.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
