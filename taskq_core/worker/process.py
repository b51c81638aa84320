"""Run a worker as the main thing of a process: an event loop of its own, signals, and fewer garbage collections.

uvloop's loop where it is installed. Signals are handled only on the main thread, where Python delivers them.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

GARBAGE_THRESHOLD = 10_000
"""Objects made before young ones are collected. Python's 700 to 2000 come round every few hundred tasks."""
CLOSING_S = 2.0
"""Seconds that what is left on the loop gets to end."""


class Runnable(Protocol):
    """A worker, as far as this module looks at it."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        ...

    async def arun(self) -> int:
        """Run on the running event loop until it is stopped, and return the exit status."""
        ...

    def stop(self) -> None:
        """Stop gracefully."""
        ...

    def abort(self) -> None:
        """Stop at once."""
        ...

    def pause(self) -> None:
        """Take no new tasks."""
        ...


def run_as_process(worker: Runnable, *, has_supervisor: bool = False) -> int:
    """Run a worker until it is stopped, on an event loop of its own, with signals handled if this is the main thread.

    SIGTERM and SIGINT stop it, and a second one ends the grace; SIGTSTP pauses it. SIGHUP stops it, too, as when its
    terminal is closed; one that was ignored at the start, as `nohup` has it, stays so.

    Args:
        worker: A worker that was not started.
        has_supervisor: Whether a parent passes signals on, which this process may get from elsewhere as well: a second
            one ends no grace then, and SIGHUP is for the parent alone.

    Returns:
        0 when it was stopped, 1 when it could not start.
    """
    loop = (_loop_factory() or asyncio.new_event_loop)()
    threads = LoopThreads()
    loop.set_default_executor(threads)
    try:
        with rarer_garbage_collection():
            return loop.run_until_complete(_run_with_signals(worker, has_supervisor=has_supervisor))
    finally:
        _close(loop)
        threads.wait(CLOSING_S)


async def _run_with_signals(worker: Runnable, *, has_supervisor: bool) -> int:
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        return await worker.arun()
    loop = asyncio.get_running_loop()
    was_told = False

    def on_signal() -> None:
        nonlocal was_told
        if not has_supervisor and (was_told or worker.is_stopping):
            worker.abort()
        was_told = True
        worker.stop()

    handlers: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGTERM: on_signal,
        signal.SIGINT: on_signal,
        signal.SIGTSTP: worker.pause,
    }
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = _heed_nothing if has_supervisor else worker.stop
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    if has_supervisor:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # held back since it was started
    try:
        return await worker.arun()
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _heed_nothing() -> None:
    """Take a signal and do nothing. It is not ignored: what tasks start would inherit that."""


def has_terminal() -> bool:
    """Return whether this process has a terminal that is not closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def rarer_garbage_collection() -> Iterator[None]:
    """Collect less often while a worker has the process, and leave what was loaded before it out of it.

    A run leaves no cycles of its own behind, so there is little to find. What was loaded is not looked through before,
    as is usual: of the 106,000 objects of a Django project 19 were garbage, and the worker would begin later for them.
    """
    before = gc.get_threshold()
    gc.freeze()
    if before[0]:  # 0 means that somebody turned it off
        gc.set_threshold(max(before[0], GARBAGE_THRESHOLD), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class LoopThreads(ThreadPoolExecutor):
    """Threads for what coroutines call with `asyncio.to_thread`. Python does not wait for them when the process ends.

    It does for those of the class that this one derives from, because an event loop takes no other: one call that hangs
    would keep the process from ending, while another worker runs its task. Nothing else of that class is used.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._is_shut = False
        self._open: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function as soon as a thread is free."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("the event loop is closed, and its threads take no more calls")
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            self._calls.put(partial(_call, future, partial(fn, *args, **kwargs)))  # first: a new thread finds it
            if not self._idle.acquire(blocking=False) and self._count < self._max_workers:
                try:
                    threading.Thread(target=self._serve, name=f"asyncio_{self._count}", daemon=True).start()
                    self._count += 1
                except RuntimeError:  # the system has none: it waits for one of those that there are
                    if not self._count:
                        future.cancel()
                        raise
        return future

    def _serve(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                self._idle.release()
                call = self._calls.get()
            if call is None:
                return
            call()
            del call  # an idle thread keeps nothing of its last call alive

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Threads end as soon as nothing is left to do."""
        with self._lock:
            self._is_shut = True
            for _ in range(self._count):
                self._calls.put(None)

    def wait(self, timeout_s: float) -> None:
        """Wait for what is being called, at most so long."""
        wait(set(self._open), timeout_s)


def _call(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows, PyPy: the loop of the standard library
        return None
    return uvloop.new_event_loop


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop. What swallows its cancellation is left behind: its task was given back, the process ends."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CLOSING_S))
        with contextlib.suppress(TimeoutError):  # a generator that a task has left behind does not end, either
            loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), CLOSING_S))
    finally:
        loop.close()
