"""Handle signals on an event loop while a process works."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

_TERMINAL_CLOSED = getattr(signal, "SIGHUP", None)


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    """Handle signals on the running event loop. Do nothing outside the main thread and on Windows.

    If SIGHUP is ignored, as under `nohup`, it stays ignored.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    loop = asyncio.get_running_loop()
    handled = [
        number for number in handlers if number != _TERMINAL_CLOSED or signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in handled:
        loop.add_signal_handler(number, handlers[number])
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
