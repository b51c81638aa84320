"""Ask something that may never answer, and wait no longer than said."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Asking(threading.Thread, Generic[T]):
    def __init__(self, ask: Callable[[], T]) -> None:
        super().__init__(name="taskq asking", daemon=True)
        self._ask = ask
        self.answers: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.answers.append(self._ask())
        except Exception as error:  # raised to who waits
            self.error = error


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Return what a function returns, called in a thread.

    The thread is left behind if it takes too long, and keeps no process from ending: looking up a host's name knows no
    timeout, so that those of connections are not enough.

    Args:
        seconds: Most seconds to wait.
        ask: Called once. What it raises is raised here.

    Raises:
        TimeoutError: It has not returned by then.
    """
    asking = _Asking(ask)
    asking.start()
    asking.join(seconds)
    if asking.error is not None:
        raise asking.error
    if not asking.answers:
        raise TimeoutError(f"there was no answer within {seconds:g} seconds")
    return asking.answers[0]
