"""A clock for a test. It controls Redis's time, the wall clock, monotonic time and the timers of workers together.

    async def test_a_failed_task_runs_again_after_its_delay(start, clock):
        ...
        await clock.advance(3600)

Time passes as usual, and `advance` skips some of it. Everything that becomes due in that time happens in its order:
timers of the event loop, keys that expire in Redis, commands that block there, and threads that wait on a `Clock`.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import redis
from msgspec.structs import replace

from taskq_core.broker import exchange
from taskq_core.broker.operations import replies
from taskq_core.broker.operations.diagnosis import read_time
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.pipelines import Pipeline
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SystemClock

MOST_AT_ONCE_S = 5.0
"""Maximum seconds of one step. With longer steps, clients would time out on commands that block in Redis."""
_QUIET_ROUNDS = 3
_ROUND_S = 0.0005

_AGE_KEYS = """
local passed = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > passed then
    redis.call('PEXPIRE', key, left - passed)
  elseif left > 0 then
    redis.call('DEL', key)
  end
end
"""


T = TypeVar("T")


def at_time(now_ns: int | None, operation: Operation[T]) -> Operation[T]:
    """Return the script call with the time `now_ns` instead of Redis's time. None keeps Redis's time."""
    if now_ns is not None:
        args = list(operation.args)
        args[_TIME_AT.get(operation.name, 0)] = str(now_ns)
        operation.args, operation.deadline_at = args, None
    return operation


_TIME_AT = {"check_listed": 6}
"""Index of the time in the arguments of a script, for scripts in which it is not the first argument."""


class _Now(str):
    """Placeholder for the time in the arguments of a script. It is replaced by the current time at each request."""


class Clock:
    """The time of one test. Use the fixture `clock`.

    Args:
        patch: Replaces the real clocks until the test ends.
        server: The Redis of the test's workers; None for tests without Redis.
    """

    def __init__(self, patch: pytest.MonkeyPatch, server: redis.Redis | None = None) -> None:
        self._server = server
        self._skipped_ns = 0
        self._requests = 0
        self._patch = patch
        self._lock = threading.Lock()
        self._sleepers: dict[threading.Event, float] = {}
        self._real_wall_ns, self._real_monotonic_ns = time.time_ns, time.monotonic_ns
        self._real_now_ms = replies.time_ms
        self._put_in_place(patch)

    def time_ns(self) -> int:
        """Unix time in nanoseconds, the same for hosts and Redis."""
        return self._real_wall_ns() + self._skipped_ns

    def time(self) -> float:
        """Unix time in seconds."""
        return self.time_ns() / 1e9

    def monotonic_ns(self) -> int:
        return self._real_monotonic_ns() + self._skipped_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9

    async def advance(self, seconds: float) -> None:
        """Skip some seconds. Return when the workers of this process have done everything that became due.

        Timers that end within 1/200 of that time end together. Skipping a minute takes half a second, an hour three.
        """
        until = self.monotonic() + seconds
        least_s = seconds / 200
        await self.settle()
        while (left_s := until - self.monotonic()) > 0:
            due_s = self._next_due() - self.monotonic()
            self.skip(min(left_s, max(due_s + _ROUND_S, least_s), MOST_AT_ONCE_S))
            await self.settle()

    def skip(self, seconds: float) -> None:
        """Skip some seconds at once, without waiting for what becomes due. May be called from any thread."""
        self._skipped_ns += int(seconds * 1e9)
        if self._server is not None:
            self._server.eval(_AGE_KEYS, 0, int(seconds * 1000))
            for client in self._server.client_list():
                if "b" in client["flags"]:
                    self._server.client_unblock(int(client["id"]))
        with self._lock:
            sleepers = list(self._sleepers)
        for event in sleepers:
            with event._cond:  # type: ignore[attr-defined]
                event._cond.notify_all()  # type: ignore[attr-defined]

    async def settle(self) -> None:
        """Wait until nothing in this process waits for a response from Redis, and the event loop is idle."""
        loop: Any = asyncio.get_running_loop()
        quiet = 0
        while quiet < _QUIET_ROUNDS:
            await asyncio.sleep(_ROUND_S)
            is_busy = self._requests or loop._ready or self._a_sleeper_is_due()
            quiet = 0 if is_busy else quiet + 1

    def settle_waits_for(self, owner: Any, name: str) -> None:
        """Make `settle` wait for each call of a coroutine function as well, for example one that uses a thread."""
        function = getattr(owner, name)

        async def counted(*args: Any, **options: Any) -> Any:
            self._count(1)
            try:
                return await function(*args, **options)
            finally:
                self._count(-1)

        self._patch.setattr(owner, name, counted)

    def _next_due(self) -> float:
        loop: Any = asyncio.get_running_loop()
        timers = [timer.when() for timer in loop._scheduled if not timer.cancelled()]
        with self._lock:
            return min([*timers, *self._sleepers.values()], default=float("inf"))

    def _a_sleeper_is_due(self) -> bool:
        now = self.monotonic()
        with self._lock:
            return any(until <= now for until in self._sleepers.values())

    def _wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for an event in a thread. Replaces `SystemClock.wait` and `time.sleep`."""
        until = self.monotonic() + timeout_s
        with self._lock:
            self._sleepers[event] = until
        try:
            while (left_s := until - self.monotonic()) > 0 and not event.wait(min(left_s, threading.TIMEOUT_MAX)):
                pass
        finally:
            with self._lock:
                del self._sleepers[event]
        return event.is_set()

    def _sleep(self, seconds: float) -> None:
        self._wait(threading.Event(), seconds)

    def _put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        real_monotonic = time.monotonic
        for name in ("time", "time_ns", "monotonic", "monotonic_ns"):
            patch.setattr(time, name, getattr(self, name))
        patch.setattr(time, "sleep", self._sleep)
        patch.setattr(SystemClock, "time", staticmethod(self.time))
        patch.setattr(SystemClock, "monotonic", staticmethod(self.monotonic))
        patch.setattr(SystemClock, "wait", staticmethod(self._wait))
        for module in [each for name, each in sys.modules.items() if name.startswith("taskq_core.")]:
            if getattr(module, "monotonic", None) is real_monotonic:
                patch.setattr(module, "monotonic", self.monotonic)
            if module.__name__.startswith("taskq_core.broker.operations.") and hasattr(module, "NOW"):
                patch.setattr(module, "NOW", _Now())
            if getattr(module, "time_ms", None) is self._real_now_ms:
                patch.setattr(module, "time_ms", self._time_ms)
            if getattr(module, "read_time", None) is read_time:
                patch.setattr(module, "read_time", self._read_time)
        patch.setattr(exchange, "words_of", self._at_this_time(exchange.words_of))
        patch.setattr(Pipeline, "exchange", self._counted(Pipeline.exchange))
        patch.setattr(SyncRunner, "_attempt", self._counted_call(SyncRunner._attempt))

    def _at_this_time(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def written(*args: Any, **options: Any) -> tuple[Any, ...]:
            return tuple([str(self.time_ns()) if type(word) is _Now else word for word in write(*args, **options)])

        return written

    def _time_ms(self, reply: Any) -> int:
        return self._real_now_ms(reply) + self._skipped_ns // 1_000_000

    def _read_time(self) -> Operation[float]:
        asked = read_time()
        return replace(asked, read=lambda reply: asked.read(reply) + self._skipped_ns / 1e9)

    def _counted(self, send: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(this: Any, sent: Any, *args: Any, **options: Any) -> Any:
            is_blocking = any(each.block_s for each in (sent if isinstance(sent, (list, tuple)) else (sent,)))
            self._count(0 if is_blocking else 1)
            try:
                return await send(this, sent, *args, **options)
            finally:
                self._count(0 if is_blocking else -1)

        return counted

    def _counted_call(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def counted(this: Any, sent: Any, *args: Any, **options: Any) -> Any:
            self._count(1)
            try:
                return send(this, sent, *args, **options)
            finally:
                self._count(-1)

        return counted

    def _count(self, requests: int) -> None:
        with self._lock:
            self._requests += requests
