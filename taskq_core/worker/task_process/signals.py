"""Block and handle signals that a task process must survive: service managers send them to all processes of a unit."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

if sys.platform == "win32":  # not available on Windows, which has no task processes

    @contextlib.contextmanager
    def held_back() -> Iterator[None]:
        """Do nothing."""
        yield

else:
    _HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    @contextlib.contextmanager
    def held_back() -> Iterator[None]:
        """Block signals while a process starts. It inherits the signal mask, and unblocks them when it has handlers."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def handle(handler: Callable[[int, FrameType | None], None]) -> None:
        """Set a handler for these signals.

        The signals are not set to be ignored, because child processes would inherit this.
        """
        for number in _HELD:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)

    def interrupt(thread: int) -> None:
        """Make a thread of this process run the handler, even if it is blocked in a system call."""
        signal.pthread_kill(thread, signal.SIGTERM)
