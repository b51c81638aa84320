"""The only module that reads the wall clock.

Lua scripts compare leases and due times with Redis's clock. Processes measure their own timeouts with a monotonic
clock. In workers and schedulers, this clock also counts the time for which the machine was suspended, because leases
go on. The wall clock is used only for times shown to people and for absolute times that a client sends.
`RedisClock` is for processes that wait until a time by Redis's clock. Tests pass another `Clock`.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

SKEW_VISIBLE_S = 1.0
"""Minimum difference in seconds between this machine's clock and Redis's clock that taskq reports."""


class Clock(Protocol):
    """A source of time."""

    def time(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start. The value never decreases, and counts the time of a suspended machine.

        Do not compare it with `time.monotonic` or with the time of an event loop, which may not count this time.
        """
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block this thread until the event is set, at most `timeout_s` seconds. Return whether the event is set."""
        ...


def _monotonic() -> Callable[[], float]:
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux, where `time.monotonic` stops while the machine is suspended
        with suppress(OSError):
            boot_time = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
            boot_time()
            return boot_time
    return time.monotonic


class SystemClock:
    """The clock of this machine. Its methods are functions of Python in C, for speed."""

    monotonic = staticmethod(_monotonic())
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


def utc_now() -> datetime:
    """Return the current time as an aware `datetime` in UTC."""
    return utc_datetime(SYSTEM_CLOCK.time())


def utc_datetime(unix_s: float) -> datetime:
    """Convert Unix seconds to an aware datetime in UTC."""
    return datetime.fromtimestamp(unix_s, tz=UTC)
