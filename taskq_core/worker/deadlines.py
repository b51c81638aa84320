"""Track the deadlines of all runs with one timer."""

import asyncio
import math
from collections.abc import Callable

from taskq_core.wire.durations import LATEST_S
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.run import Run, ends_at


class Deadlines:
    """Computes when runs must end by their timeout and deadline, and calls back at that time.

    Args:
        context: The worker.
        overdue: Called with an overdue run and the monotonic time. The callback may set `ends_by` of the run, and is
            then called again at that time.
    """

    def __init__(self, context: WorkerContext, overdue: Callable[[Run, float], None]) -> None:
        self._context = context
        self._clock = context.clock
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def begin(self, run: Run, now: float) -> None:
        """Start the timeout of a run at a monotonic time."""
        message = run.message
        timeout_s = message.timeout
        if message.deadline > 0:
            run.ends_by = ends_at(message, now, clock_ahead_s=self._context.redis_clock.time() - now)
        elif timeout_s > 0:  # like `ends_at`, which is slower: most runs take this branch
            run.ends_by = now + timeout_s
        else:
            run.ends_by = ends_at(message, now, clock_ahead_s=0.0)
        if run.ends_by < self._timer_at:
            self._arm(run.ends_by)

    def hold(self, run: Run) -> None:
        """Suspend the timeout of a run while the process for the task starts.

        The deadline of the run stays in force.
        """
        if run.ending is None:
            deadline_s = run.message.deadline
            now = self._clock.monotonic()
            run.ends_by = now + deadline_s - self._context.redis_clock.time() if deadline_s > 0 else math.inf

    def begin_again(self, run: Run) -> None:
        """Start the timeout of a run again after `hold`."""
        if run.ending is None:
            self.begin(run, self._clock.monotonic())

    def shorten(self, run: Run, seconds: float) -> None:
        """Call back for a run after at most `seconds`, even if its timeout ends later."""
        run.ends_by = min(run.ends_by, self._clock.monotonic() + seconds)
        if run.ends_by < self._timer_at:
            self._arm(run.ends_by)

    def unix_s(self, run: Run) -> float:
        """Return the Unix time, by Redis's clock, at which a run must end."""
        return min(self._context.redis_clock.time() + run.ends_by - self._clock.monotonic(), LATEST_S)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock.monotonic()), self._check)

    def _check(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._clock.monotonic()
        upcoming = math.inf
        for run in list(self._context.running.values()):
            # Skip runs whose function has ended: the settler stores their outcome next.
            if run.settlement is None and run.error is None:
                if run.ends_by <= now:
                    self._overdue(run, now)
                if run.ends_by > now:
                    upcoming = min(upcoming, run.ends_by)
        if upcoming < self._timer_at:
            self._arm(upcoming)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
