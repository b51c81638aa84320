"""Raise an exception in another thread. Python delivers the exception between two bytecodes, so not inside a C call."""

import ctypes

_set_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)
_clear_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def raise_in_thread(thread_id: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread as soon as it runs its next bytecode."""
    _set_exception(thread_id, error)


def clear_in_thread(thread_id: int) -> None:
    """Cancel the exception that was raised in a thread, if it was not delivered yet."""
    _clear_exception(thread_id, None)
