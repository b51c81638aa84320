"""Run plain functions of tasks in threads.

The threads are daemons, and take runs from one queue. Ended runs are collected, and the event loop is woken once per
burst. Waking a thread takes longer than a short function runs. So functions whose last runs were quick share a thread
that is already awake. If this thread is delayed, other threads are woken a millisecond later. A function that is not
quick always wakes a thread.

If a function must end, `TaskInterrupted` is raised in it. Python delivers it between two bytecodes and not inside a C
call, so this is best effort. The exception can only hit the intended task: it is raised under a lock that the end of
the task also takes, and the end clears an exception that was not delivered yet.

A thread cannot be killed. If its function does not end, it can be abandoned: it leaves the pool, another thread
replaces it, and it ends with its function.
"""

import asyncio
import contextvars
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from time import monotonic, sleep

from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import TaskInterrupted
from taskq_core.service import interruption
from taskq_core.service.interruption import clear_in_thread, raise_in_thread
from taskq_core.service.user_code import readable
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

QUICK_S = 0.0002
"""Average duration in seconds below which a function shares a thread that is already awake."""
RELIEF_S = 0.001
"""Seconds after which functions that wait for a shared thread get separate threads."""
START_AGAIN_S = 0.5
"""Seconds until another attempt to start a thread that the system refused."""

STACK_LINES = 8
"""Number of innermost calls of an abandoned thread that the log shows."""


class TaskThreads:
    """A pool of threads that runs plain functions of tasks.

    Args:
        size: Maximum number of threads. They start on demand.
        call: Runs the function of a run and returns its result. Called in the thread, in a copy of its context.
        ended: Called on the event loop for each run whose function has ended, with `result` or `error` set.
        close_thread: Called in an abandoned thread before it ends.
    """

    def __init__(
        self,
        size: int,
        *,
        call: Callable[[Run], object],
        ended: Callable[[Run], None],
        close_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self._size = size
        self.close_thread = close_thread
        self._call = call
        self._ended = ended
        self._inbox: deque[Run] = deque()
        self._outbox: deque[Run] = deque()
        self._loop = asyncio.get_running_loop()
        self._is_signalled = False
        self._threads: list[_TaskThread] = []
        self._idle: deque[_TaskThread] = deque()
        self._usual_s: dict[str, float] = {}
        self._relief: asyncio.TimerHandle | None = None
        self._another_try: asyncio.TimerHandle | None = None
        self.is_closed = False

    def submit(self, run: Run) -> None:
        """Run a function as soon as a thread is free. Call this on the event loop."""
        self._inbox.append(run)
        if self._usual_s.get(run.kind, 1.0) < QUICK_S and len(self._idle) < len(self._threads):
            if self._relief is None:
                self._relief = self._loop.call_later(RELIEF_S, self._relieve)
        else:
            self._wake_one()

    def resize(self, size: int) -> None:
        """Set the maximum number of threads. Call this on the event loop."""
        self._size = size

    def _wake_one(self) -> None:
        try:
            thread = self._idle.pop()
        except IndexError:
            if len(self._threads) < self._size:
                self._start_one()
        else:
            thread.wake()

    def _start_one(self) -> None:
        thread = _TaskThread(self, len(self._threads))
        try:
            interruption.load()
            thread.start()
        except (RuntimeError, MemoryError, OSError) as error:
            # The run waits until a thread is free, or until the system can start another thread.
            if self._another_try is None:
                logger.error(
                    "the system starts no further thread: %s; %d threads run, trying again", error, len(self._threads)
                )
                self._another_try = self._loop.call_later(START_AGAIN_S, self._try_again)
        else:
            self._threads.append(thread)

    def _try_again(self) -> None:
        self._another_try = None
        for _ in range(len(self._inbox)):
            self._wake_one()

    def _relieve(self) -> None:
        """Wake a thread for each waiting function if the first has waited long, because awake threads are delayed."""
        self._relief = None
        try:
            waited_s = SYSTEM_CLOCK.monotonic() - self._inbox[0].started
        except IndexError:
            return
        if waited_s >= RELIEF_S:
            for _ in range(len(self._inbox)):
                self._wake_one()
            waited_s = 0.0
        self._relief = self._loop.call_later(RELIEF_S - waited_s, self._relieve)

    def interrupt(self, run: Run, *, again: bool = False) -> bool:
        """Raise `TaskInterrupted` in a run's function, only once unless `again` is True.

        Return False if it was not raised.

        The exception is lost where Python swallows exceptions: in a finalizer, or in a callback of the garbage
        collector.
        """
        thread: _TaskThread | None = run.thread
        return thread is not None and thread.interrupt(run, again=again)

    def abandon(self, run: Run) -> bool:
        """Remove the thread of a run's function from the pool. Return False if the function has just ended."""
        thread: _TaskThread | None = run.thread
        if thread is None or not thread.abandon(run):
            return False
        self._threads.remove(thread)
        return True

    def close(self) -> None:
        """Let idle threads end. Busy threads end with their function, or with the process."""
        self.is_closed = True
        for timer in (self._relief, self._another_try):
            if timer is not None:
                timer.cancel()
        while self._idle:
            self._idle.pop().wake()

    def next_for(self, thread: "_TaskThread") -> Run | None:
        """Wait for the next run and return it, or None when the thread has to end. Called on the thread."""
        while True:
            try:
                return self._inbox.popleft()
            except IndexError:
                if self.is_closed:
                    return None
            self._idle.append(thread)
            if self._inbox or self.is_closed:  # a run may have arrived after `popleft` failed
                try:
                    self._idle.remove(thread)
                    continue
                except ValueError:
                    pass  # another thread has already woken this thread, so `sleep` returns at once
            thread.sleep()

    def perform(self, run: Run) -> object:
        """Run the function, and update its average duration. Called on a thread."""
        started = monotonic()
        result = contextvars.copy_context().run(self._call, run)
        usual_s = self._usual_s.get(run.kind, 1.0)
        self._usual_s[run.kind] = usual_s + 0.2 * (monotonic() - started - usual_s)
        return result

    def _finished(self, run: Run) -> None:
        self._outbox.append(run)
        while not self._is_signalled:
            self._is_signalled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the event loop is closed: the worker has already requeued this run
                return
            except MemoryError:  # try again: the worker extends the lease of a run until it receives its end
                self._is_signalled = False
                sleep(0.01)

    def _drain(self) -> None:
        self._is_signalled = False  # reset first: a run that ends during the loop below must signal again
        while self._outbox:
            self._ended(self._outbox.popleft())


class _TaskThread(threading.Thread):
    def __init__(self, threads: TaskThreads, number: int) -> None:
        super().__init__(name=f"taskq-{number}", daemon=True)
        self._threads_ = threads
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._gate.acquire()
        self._current: Run | None = None
        self._is_abandoned = False

    def run(self) -> None:
        while True:
            run = self._threads_.next_for(self)
            if run is None:
                return
            self._perform(run)
            if self._is_abandoned:  # no other task will use the resources of this thread, so close them
                self._threads_.close_thread()
            self._threads_._finished(run)
            if self._is_abandoned:
                return
            del run  # an idle thread must not keep the objects of its last task alive

    def sleep(self) -> None:
        self._gate.acquire()

    def wake(self) -> None:
        self._gate.release()

    def interrupt(self, run: Run, *, again: bool) -> bool:
        with self._lock:
            if self._current is not run or (run.is_interrupted and not again):
                return False
            run.is_interrupted = True
            assert self.ident is not None
            raise_in_thread(self.ident, TaskInterrupted)
            return True

    def abandon(self, run: Run) -> bool:
        with self._lock:
            self._is_abandoned = self._current is run
            return self._is_abandoned

    def stack(self) -> str:
        """Return the current calls of the thread's function, as lines of a traceback."""
        frame = None if self.ident is None else sys._current_frames().get(self.ident)
        if frame is None:
            return ""
        frames = takewhile(lambda each: each[0].f_globals is not globals(), traceback.walk_stack(frame))
        stack = traceback.StackSummary.extract(frames, limit=STACK_LINES)
        return "".join(reversed(stack.format())).rstrip()

    def _perform(self, run: Run) -> None:
        try:
            try:
                run.thread = self
                with self._lock:
                    self._current = run
                    if run.ending is not None:  # the run had to end before this thread could be interrupted
                        raise TaskInterrupted
                run.result = self._threads_.perform(run)
            except BaseException as raised:
                if issubclass(type(raised), MemoryError):
                    # Free the local variables of the failed function, because storing the outcome needs memory.
                    traceback.clear_frames(raised.__traceback__)
                run.error = readable(raised)
        # An interruption may arrive in the except block above, and must not end this thread.
        except TaskInterrupted as error:
            run.error = error
        while True:
            try:
                with self._lock:
                    self._current = None
                    if run.is_interrupted:  # a late interruption must not hit the next task
                        assert self.ident is not None
                        clear_in_thread(self.ident)
                return
            except TaskInterrupted:  # the interruption arrived after the function had ended
                continue
