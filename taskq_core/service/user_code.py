"""Run user code so that its errors cannot harm the worker.

User code may raise any `BaseException`, and reading an exception may run code of its class. `readable` returns an
exception that is safe to read. `contained` awaits user code and raises only `Exception`. `unlisted` hides asyncio tasks
of the worker from code that cancels all tasks.
"""

import asyncio
import functools
import inspect
from asyncio.tasks import _register_task, _unregister_task
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
Work = TypeVar("Work", bound=asyncio.Task[Any])

_TRACEBACK: Any = vars(BaseException)["__traceback__"]  # reading this descriptor runs no code of a subclass
_NAME: Any = vars(type)["__name__"]  # reading this descriptor runs no code of a metaclass
UNREADABLE = "(its text cannot be read)"
"""Text of an object whose `__str__` fails."""


def text_of(value: object) -> str:
    """Return `str(value)`. Never raises: if `__str__` fails, return `UNREADABLE`."""
    try:
        # Make an exact `str`, because `__str__` may return an object of a subclass whose methods fail.
        return "".join((str(value),))
    except BaseException:
        return UNREADABLE


def class_name(kind: type) -> str:
    """Return the name of a class. Runs no code of its metaclass."""
    name: str = _NAME.__get__(kind)
    return name


def describe(error: BaseException) -> str:
    """Return the class and the text of an exception in the form that is stored with a task. Never raises."""
    text = text_of(error)
    name = class_name(type(error))
    return f"{name}: {text}" if text else name


def readable(error: BaseException) -> BaseException:
    """Return an exception that `isinstance`, `traceback` and `logging` can read. Never raises.

    Returns:
        The exception itself. If its class, its causes or the members of its group cannot be read, a plain exception
        with the same class name, text and traceback.
    """
    try:
        _read_all(error)
    except BaseException:
        try:
            kind: Any = type(error)  # annotated with Any, because mypy considers exception classes unhashable
            stand_in: BaseException = namesake(kind, Exception)(text_of(error))
        except BaseException:
            # Reading the class may run code of its metaclass, and this code may raise any exception.
            stand_in = RuntimeError(describe(error))
        return stand_in.with_traceback(_TRACEBACK.__get__(error))
    return error


def _read_all(error: BaseException) -> None:
    """Read every attribute of an exception, its causes and its members that handlers and loggers will read."""
    left, found = [error], {id(error)}
    while left:
        each = left.pop()
        # `isinstance` reads `__class__`, which may be a property and so run code of the exception.
        members = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        kind: Any = type(each)
        _ = hash(kind), kind.__module__, kind.__qualname__, kind.__name__, getattr(each, "__notes__", None)
        _ = each.__traceback__, each.__suppress_context__
        for other in (each.__cause__, each.__context__, *members):
            if other is not None and id(other) not in found:
                found.add(id(other))
                left.append(other)


@functools.lru_cache(maxsize=256)
def namesake(kind: type[BaseException], base: type[Exception]) -> Any:
    """Return a subclass of `base` that tracebacks show under the name of `kind`."""
    return type(kind.__name__, (base,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})


def as_exception(error: BaseException) -> Exception:
    """Return an error of user code as an `Exception` that is safe to read.

    `StopIteration` is wrapped too, because asyncio cannot propagate it.
    """
    error = readable(error)
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"user code raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def is_coroutine_function(function: Any) -> bool:
    """Return whether a call returns a coroutine, also for partials and for objects with an async `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return callable(function) and inspect.iscoroutinefunction(type(function).__call__)


async def contained(call: Callable[[], Awaitable[T]]) -> T:
    """Call a coroutine function of the user and return its result.

    Raises:
        Exception: The error of the code, as `as_exception` returns it.
        asyncio.CancelledError: The running asyncio task was cancelled. A `CancelledError` that the code raised itself
            counts as an error of the code.
    """
    try:
        return await call()
    except BaseException as raised:
        if issubclass(type(raised), asyncio.CancelledError) and is_cancelled():
            raise
        error = as_exception(raised)
    raise error


def is_cancelled() -> bool:
    """Return whether the running asyncio task is being cancelled. If not, user code raised the `CancelledError`."""
    return cancellations() > 0


def cancellations() -> int:
    """Return how often the running asyncio task was cancelled.

    If the number grows during an await, the asyncio task has to end.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def unlisted(task: Work) -> Work:
    """Remove an asyncio task of the worker from `asyncio.all_tasks()`, and return the asyncio task.

    User code may cancel every asyncio task in that set. The caller has to keep a reference to the removed task and to
    end it, because no other code can find it. This function and `abandon` use asyncio's documented functions for
    extensions.
    """
    _unregister_task(task)
    return task


def abandon(task: asyncio.Task[Any]) -> None:
    """Cancel an `unlisted` asyncio task, and list it again, so that closing the event loop waits for its end."""
    _register_task(task)
    task.cancel()
