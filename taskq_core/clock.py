"""The only module that reads the wall clock.

Lua scripts compare leases and due times with Redis's clock. Processes measure their own timeouts with the monotonic
clock. The wall clock is used only for times shown to people and for absolute times that a client sends. `RedisClock` is
for processes that wait until a time by Redis's clock. Tests pass another `Clock`.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

SKEW_VISIBLE_S = 1.0
"""Minimum difference in seconds between this machine's clock and Redis's clock that taskq reports."""


class Clock(Protocol):
    """A source of time."""

    def time(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start. The value never decreases."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block this thread until the event is set, at most `timeout_s` seconds. Return whether the event is set."""
        ...


class SystemClock:
    """The clock of this machine. Its methods are Python's own functions without a wrapper, for speed."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    wait = staticmethod(threading.Event.wait)


SYSTEM_CLOCK = SystemClock()


class RedisClock:
    """Computes Unix time by Redis's clock: the time in the last response of Redis, plus the monotonic time since then.

    Before the first response of Redis, it returns the wall clock's time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.time() - clock.monotonic()

    def learn(self, now_ns: int, received_at: float) -> None:
        """Set the clock from a response of Redis: the time in it (Unix ns), and when it arrived (monotonic seconds)."""
        self._offset = now_ns / 1e9 - received_at

    def time(self) -> float:
        """Unix time in seconds by Redis's clock."""
        return self._clock.monotonic() + self._offset


def utc_datetime(unix_s: float) -> datetime:
    """Convert Unix seconds to an aware datetime in UTC."""
    return datetime.fromtimestamp(unix_s, tz=UTC)
