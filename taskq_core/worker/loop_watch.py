"""Detect from another thread that the event loop is blocked, and log which task blocks it.

A coroutine that blocks stops the whole worker: no task is started, settled or timed out. Another thread extends the
leases, so no task is lost. But without this log, the cause of the slow worker would stay hidden.
"""

import asyncio
import contextlib
import inspect
import math
import sys
import threading
import traceback
from collections.abc import Iterable
from types import CodeType, FrameType

from taskq_core.tasks.task import Task
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.run import Run
from taskq_core.worker.run_log import warn_with_stack

BLOCKED_S = 1.0
"""Seconds after which an unresponsive loop counts as blocked. Also the seconds between two checks."""
AGAIN_S = 600.0
"""Minimum seconds between two warnings about the same task."""
_FRAMES = 8


class LoopWatch:
    """Checks that the loop responds while tasks run. Create it on the loop's thread; call `check` on another thread.

    Args:
        loop: The loop.
        context: The worker.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: WorkerContext) -> None:
        self._loop = loop
        self._clock = context.clock
        self._running = context.running
        self._thread_id = threading.get_ident()
        self._callback_sent_at: float | None = None
        self._warned_at: dict[str, float] = {}

    def check(self) -> float:
        """Check whether the loop has run the callback of the last check, and schedule a new callback.

        Returns:
            Seconds until the next check; infinity while no task runs.
        """
        runs = list(self._running.values())
        now = self._clock.monotonic()
        if self._callback_sent_at is not None:
            if now - self._callback_sent_at >= BLOCKED_S:
                self._warn(runs, now - self._callback_sent_at, now)
        elif runs:
            self._callback_sent_at = now
            with contextlib.suppress(RuntimeError):  # the loop is closed, because the worker has ended
                self._loop.call_soon_threadsafe(self._answer)
        return BLOCKED_S if runs else math.inf

    def _answer(self) -> None:
        self._callback_sent_at = None

    def _warn(self, runs: list[Run], blocked_s: float, now: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None or self._callback_sent_at is None:  # the event loop has responded in the meantime
            return
        name, held_by = _holder(frame, runs)
        # If no task blocks the event loop, the machine is overloaded, and no task is to blame.
        if not name or now - self._warned_at.get(name, -math.inf) < AGAIN_S:
            return
        self._warned_at[name] = now
        where = f"{held_by.f_code.co_filename}:{held_by.f_lineno}"
        warn_with_stack(
            "task %r has blocked the event loop for %.1f s, at %s, so the worker cannot start or settle tasks; "
            "make it a plain function, or call blocking code with asyncio.to_thread [loop-blocked]",
            name,
            blocked_s,
            where,
            stack="".join(traceback.format_stack(frame)[-_FRAMES:]).rstrip(),
        )


def _holder(frame: FrameType, runs: Iterable[Run]) -> tuple[str, FrameType]:
    """Find the task whose coroutine is in a stack. Return its name and frame, or "" if the stack has no task."""
    names: dict[CodeType, str] = {}
    for run in runs:
        function = run.task.function if isinstance(run.task, Task) else None
        code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
        if code is not None:
            names[code] = run.name
    each: FrameType | None = frame
    while each is not None:
        if each.f_code in names:
            return names[each.f_code], each
        each = each.f_back
    return "", frame
