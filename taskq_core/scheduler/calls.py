"""Call what users give a scheduler: hooks and providers. Whatever one of them raises must not end a service."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from taskq_core.service import is_cancelled
from taskq_core.task import is_coroutine_function


async def call(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a thread, or a coroutine function here, and return what it returns.

    Raises:
        Exception: As the function did.
        RuntimeError: It raised what is no `Exception`, or what asyncio cannot hand over (`StopIteration`).
        asyncio.CancelledError: The caller was cancelled.
    """
    try:
        found = function(*arguments) if is_coroutine_function(function) else await _in_thread(function, arguments)
        return await found if inspect.isawaitable(found) else found
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        raise _wrapped(error) from error


async def _in_thread(function: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
    def work() -> Any:
        try:
            return function(*arguments)
        except (StopIteration, SystemExit, KeyboardInterrupt) as error:
            raise _wrapped(error) from error

    return await asyncio.to_thread(work)


def _wrapped(error: BaseException) -> RuntimeError:
    return RuntimeError(f"it raised {type(error).__name__}")
