"""Signals that a process of a task does not heed: who stops a whole unit sends them to every process of it."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

if sys.platform == "win32":  # where no task has a process of its own

    @contextlib.contextmanager
    def held_back() -> Iterator[None]:
        """Do nothing."""
        yield

else:
    _HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    @contextlib.contextmanager
    def held_back() -> Iterator[None]:
        """Start a process with these signals held back, until it has a handler for them."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def handle(handler: Callable[[int, FrameType | None], None]) -> None:
        """Handle these signals from now on. They are not ignored: what a task starts would inherit that."""
        for number in _HELD:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)

    def interrupt(thread: int) -> None:
        """Let a thread of this process run the handler, also where it waits for the system."""
        signal.pthread_kill(thread, signal.SIGTERM)
