"""Redis's time as this process reckons it, learned from answers that carry it."""

from taskq_core.clock import Clock


class RedisClock:
    """Unix time by Redis's clock, moved on by the monotonic clock of this machine.

    Before the first answer it is the wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.time() - clock.monotonic()

    def learn(self, now_ns: int, received_at: float) -> None:
        """Take Redis's time (Unix ns) from an answer received at a monotonic second."""
        self._offset = now_ns / 1e9 - received_at

    def time(self) -> float:
        """Unix seconds."""
        return self._clock.monotonic() + self._offset
