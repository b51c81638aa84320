"""Raise an exception in another thread. Python delivers the exception between two bytecodes, so not inside a C call.

The first call of `load` imports ctypes, which takes 0.4 MB. So an idle worker, which has no thread to interrupt, does
not import it. Threads call `load` before they run functions, because a process without free file descriptors cannot
import it any more.
"""

from collections.abc import Callable
from functools import cache


@cache
def load() -> tuple[Callable[[int, type[BaseException]], int], Callable[[int, None], int]]:
    """Return the functions that raise an exception in a thread, and cancel it."""
    import ctypes

    address = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
    return (
        ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(address),
        ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(address),
    )


def raise_in_thread(thread_id: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread as soon as it runs its next bytecode."""
    raise_exception, _ = load()
    raise_exception(thread_id, error)


def clear_in_thread(thread_id: int) -> None:
    """Cancel the exception that was raised in a thread, if it was not delivered yet."""
    _, cancel = load()
    cancel(thread_id, None)
