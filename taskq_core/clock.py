"""The only module that reads the wall clock.

Scripts compare leases and due times with Redis's clock. Processes measure their own timeouts with the monotonic clock.
The wall clock serves texts for people, and absolute times that a client must send. `RedisClock` serves processes that
wait for a second of Redis's clock. Tests replace `Clock`.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

SKEW_VISIBLE_S = 1.0
"""Seconds between this machine's clock and Redis's from which times given by this machine are visibly off."""


class Clock(Protocol):
    """A source of time."""

    def time(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backward, from an arbitrary start."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block this thread until the event is set or so many seconds have passed; return whether it is set."""
        ...


class SystemClock:
    """The clock of this machine. Its methods are those of the interpreter, because workers call them often."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    wait = staticmethod(threading.Event.wait)


SYSTEM_CLOCK = SystemClock()


class RedisClock:
    """Unix time by Redis's clock, advanced by the monotonic clock of this machine.

    Before the first response of Redis, it returns the wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.time() - clock.monotonic()

    def learn(self, now_ns: int, received_at: float) -> None:
        """Set the time to Redis's time (Unix ns) from a response that was received at `received_at` (monotonic)."""
        self._offset = now_ns / 1e9 - received_at

    def time(self) -> float:
        """Unix seconds."""
        return self._clock.monotonic() + self._offset


def utc_datetime(unix_s: float) -> datetime:
    """Return the aware UTC datetime of a Unix time."""
    return datetime.fromtimestamp(unix_s, tz=UTC)
