"""Run a worker as the main code of a process: with a new event loop, signal handlers, and fewer garbage collections.

The loop is uvloop's if that is installed. Signals are handled only on the main thread, where Python delivers them.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from taskq_core.service.blocking import DaemonThreads
from taskq_core.service.signals import signal_handlers
from taskq_core.service.user_code import unlisted

if TYPE_CHECKING:
    from taskq_core.worker.worker import Worker

logger = logging.getLogger("taskq.worker")

T = TypeVar("T")

GARBAGE_THRESHOLD = 10_000
"""Allocations before a collection of young objects. Python's own threshold of 700 to 2000 is reached every few hundred
tasks."""
CLOSING_S = 2.0
"""Seconds that remaining asyncio tasks and threads get to end when the process ends."""


def run_as_process(worker: "Worker", *, has_supervisor: bool = False) -> int:
    """Run a worker until it is stopped, on a new event loop. Handle signals if this is the main thread.

    SIGTERM and SIGINT stop the worker, and a second signal ends the grace period. SIGTSTP pauses it. SIGHUP, sent when
    the terminal closes, stops it too. If SIGHUP is ignored at the start, as under `nohup`, it stays ignored.

    Args:
        worker: A worker that is not started.
        has_supervisor: Whether a parent process forwards signals. This process may then receive a signal twice, so a
            second one does not end the grace period, and only the parent handles SIGHUP.

    Returns:
        0 when it was stopped, 1 when it could not start.
    """
    loop = (_loop_factory() or asyncio.new_event_loop)()
    threads = DaemonThreads()
    loop.set_default_executor(threads)
    try:
        with rarer_garbage_collection():
            return complete(loop, _run_with_signals(worker, has_supervisor=has_supervisor))
    finally:
        _close(loop)
        threads.wait(CLOSING_S)


def complete(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the worker until it completes, and return its result.

    Code of a task may stop the loop early: with `loop.stop()`, or with `SystemExit` or `KeyboardInterrupt` in an
    asyncio task or callback. Log this and continue. Ctrl-C without a signal handler ends the loop.
    """
    main = unlisted(loop.create_task(work))
    while True:
        try:
            return loop.run_until_complete(main)
        except (RuntimeError, SystemExit, KeyboardInterrupt) as error:
            if main.done():
                return main.result()
            if loop.is_closed() or (isinstance(error, KeyboardInterrupt) and _is_interrupted_by_user()):
                raise
            did = "stopped the event loop" if isinstance(error, RuntimeError) else f"raised {type(error).__name__}"
            logger.error("code of a task %s; the worker continues", did, exc_info=error)


def _is_interrupted_by_user() -> bool:
    """Return whether Ctrl-C may have caused a `KeyboardInterrupt`, and not the code of a task."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def _run_with_signals(worker: "Worker", *, has_supervisor: bool) -> int:
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        return await worker.arun()
    is_signalled = False

    def on_signal() -> None:
        nonlocal is_signalled
        if not has_supervisor and (is_signalled or worker.is_stopping):
            worker.abort()
        is_signalled = True
        worker.stop()

    handlers: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGTERM: on_signal,
        signal.SIGINT: on_signal,
        signal.SIGTSTP: worker.pause,
        signal.SIGHUP: _do_nothing if has_supervisor else worker.stop,
    }
    with signal_handlers(handlers):
        if has_supervisor:
            # Unblock SIGHUP, which the supervisor has blocked until this handler exists.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        return await worker.arun()


def _do_nothing() -> None:
    """Do nothing. A handler is used instead of SIG_IGN, because task processes would inherit an ignored signal."""


def has_terminal() -> bool:
    """Return whether this process has a terminal that is not closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def rarer_garbage_collection() -> Iterator[None]:
    """Collect garbage less often while a worker runs, and exclude objects that were loaded before.

    Runs leave no reference cycles, so there is little to collect. The usual collection before a freeze is left out: of
    106,000 objects of a Django project only 19 were garbage, and the worker would start later.
    """
    before = gc.get_threshold()
    gc.freeze()
    if before[0]:  # a threshold of 0 turns garbage collection off
        gc.set_threshold(max(before[0], GARBAGE_THRESHOLD), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # uvloop does not exist for Windows and PyPy
        return None
    return uvloop.new_event_loop


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop. Leave asyncio tasks behind that ignore their cancellation: the process ends anyway."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            complete(loop, asyncio.wait(left, timeout=CLOSING_S))
        with contextlib.suppress(TimeoutError):  # the generator of an abandoned task may never end
            complete(loop, asyncio.wait_for(loop.shutdown_asyncgens(), CLOSING_S))
    finally:
        loop.close()
