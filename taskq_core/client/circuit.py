"""The circuit breaker of the clients. While Redis does not answer, most enqueues fail at once.

::

                +-- an enqueue succeeds (the failure counter is reset)
                v   |
    closed -----+---+
      |  ^
      |  +------------------------------------------+
      |   the probe succeeds                        |
      v                                             |
    open -- the pause is over: one probe is sent --> half open
      ^                                             |
      +---------------------------------------------+
          the probe fails: the pause doubles

An enqueue that does not reach Redis blocks its caller for the whole timeout. After several such failures in a row, the
circuit opens: during a pause, all enqueues fail at once. Then one enqueue is sent as a probe, while the others still
fail at once. Its result decides whether the circuit closes. Any reply of Redis closes it, even a refusal.

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

PROBE_LOST_S = 60.0
"""Seconds after which an unfinished probe counts as lost, for example because its event loop was closed."""


class CircuitState(StrEnum):
    """Whether a client sends requests to Redis."""

    CLOSED = "closed"
    """The client sends requests."""
    OPEN = "open"
    """Redis failed to answer several times in a row. The client sends no requests during a pause."""
    HALF_OPEN = "half_open"
    """One enqueue was sent as a probe. All others fail at once until the probe has ended."""


class Circuit:
    """Counts failures to reach Redis, and decides whether to send requests. Threads and event loops may share it.

    Args:
        settings: Number of failures after which the circuit opens, and the lengths of pauses.
        address: The address of Redis for error messages.
        opened: Called each time the circuit opens.
        consequence: The effect of an open circuit on enqueues, as a clause for the log.
        monotonic: Source of monotonic time.
        jitter: Returns the random factor for the length of a pause.

    Attributes:
        failures: Number of requests in a row that did not reach Redis. The circuit is closed while it is 0.
    """

    def __init__(
        self,
        settings: CircuitSettings,
        *,
        address: str,
        opened: Callable[[], object] = lambda: None,
        consequence: str = "enqueues now fail at once",
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - jitter, no secret
    ) -> None:
        self._most_failures = settings.failures
        self._first_pause_s = seconds("first_pause", settings.first_pause)
        self._max_pause_s = seconds("max_pause", settings.max_pause)
        self._address = address
        self._opened = opened
        self._consequence = consequence
        self._monotonic = monotonic
        self._jitter = jitter
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Close the circuit and forget all failures."""
        self._lock = threading.Lock()
        self.failures = 0
        self._last_failure = ""
        self._pause_s = self._first_pause_s
        self._retry_at: float | None = None  # monotonic time of the next probe; None while the circuit is closed
        self._probe_until: float | None = None  # time at which the running probe counts as lost; None without a probe

    @property
    def state(self) -> CircuitState:
        """The state of the circuit."""
        with self._lock:
            if self._retry_at is None:
                return CircuitState.CLOSED
            return CircuitState.OPEN if self._probe_until is None else CircuitState.HALF_OPEN

    @property
    def _is_closed(self) -> bool:
        return self._retry_at is None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Guard one request: send it to Redis inside this `with` block. Raises the errors of `begin`."""
        is_probe = self.begin()
        try:
            yield
        except BaseException as error:
            self.end(error, is_probe=is_probe)
            raise
        self.end(None, is_probe=is_probe)

    def begin(self) -> bool:
        """Ask for permission to send a request to Redis. Return True if the request is the probe of an open circuit.

        Raises:
            CircuitOpenError: The circuit is open, so the request must not be sent.
        """
        if self._retry_at is None:  # read without the lock: a slightly outdated value does no harm
            return False
        now = self._monotonic()
        with self._lock:
            if self._is_closed:
                return False
            if self._probe_until is not None and now < self._probe_until:
                raise self._error(self._pause_s)  # estimated, because nobody knows when the running probe ends
            if now < self._retry_at:
                raise self._error(self._retry_at - now)
            self._probe_until = now + PROBE_LOST_S
            return True

    def end(self, error: BaseException | None, *, is_probe: bool) -> None:
        """Record the end of a request. Only an unavailable Redis counts as a failure.

        A refusal by Redis shows that it is available. An error of the caller, such as a cancellation, shows nothing.
        """
        if isinstance(error, BrokerUnavailableError):
            self._record_failure(error, is_probe=is_probe)
        elif error is None or isinstance(error, BrokerError):
            if self.failures:
                self._record_answer()
        elif is_probe:
            with self._lock:
                self._probe_until = None  # another request may become the probe

    def _error(self, retry_in_s: float) -> CircuitOpenError:
        return CircuitOpenError(self._address, self.failures, retry_in_s, self._last_failure)

    def _record_answer(self) -> None:
        with self._lock:
            was_open = self._retry_at is not None
            self.failures = 0
            self._pause_s = self._first_pause_s
            self._retry_at = self._probe_until = None
        if was_open:
            logger.info("%s answers again: enqueues are sent again", self._address)

    def _record_failure(self, error: BrokerUnavailableError, *, is_probe: bool) -> None:
        if not self._most_failures:
            return
        with self._lock:
            if self._retry_at is not None and not is_probe:
                return  # the request was sent before the circuit opened, so its failure is not new
            self.failures += 1
            self._last_failure = str(error)
            is_new = self._retry_at is None
            if is_new and self.failures < self._most_failures:
                return
            if not is_new:
                self._pause_s = min(2 * self._pause_s, self._max_pause_s)
            self._probe_until = None
            pause_s = self._jitter() * self._pause_s
            self._retry_at = self._monotonic() + pause_s
            failures = self.failures
        if is_new:
            logger.warning(
                "%s failed to answer%s: %s, next try in %.1f s; last error: %s",
                self._address,
                f" {failures} times in a row" if failures > 1 else "",
                self._consequence,
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
