"""Lifespans: functions that open resources before a worker's first task, yield, and close them after its last task.

All functions run in one asyncio task from start to end, because some resources, such as task groups, must be closed in
the asyncio task that opened them.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from contextlib import asynccontextmanager as make_async
from contextlib import contextmanager as make_plain
from typing import Any, TypeVar

from taskq_core.errors import ConfigurationError, TaskDefinitionError
from taskq_core.service.user_code import abandon, contained, unlisted

LifespanFunction = Callable[[], Any]
"""A function that yields once, or that returns a context manager. Plain or asynchronous."""
L = TypeVar("L", bound=LifespanFunction)


def check_lifespan(function: Any) -> None:
    """Check that a function can be a lifespan.

    Raises:
        TaskDefinitionError: The function cannot be called without arguments.
    """
    if not callable(function):
        raise TaskDefinitionError(f"a worker's lifespan must be a function that yields once, got {function!r}")
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise TaskDefinitionError(f"cannot call the lifespan {function!r} without arguments: {error}") from None


CANCELLED_S = 2.0
"""Maximum seconds to wait for the end of a cancelled lifespan."""


class Lifespan:
    """Runs the lifespan functions of a worker. The first function is the outermost.

    Attributes:
        state: The merged mappings that the functions yielded.
    """

    def __init__(self, functions: Sequence[LifespanFunction]) -> None:
        self._functions = tuple(functions)
        self._ending = asyncio.Event()
        self._opened: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def open(self, stopping: asyncio.Event) -> bool:
        """Run all functions up to their `yield`.

        Args:
            stopping: Setting it ends the wait. `open` also sets it if the functions end before `close` is called.

        Returns:
            False if `stopping` was set before all functions yielded. All resources are then closed again.

        Raises:
            Exception: The error of one of the functions. The resources of the others are closed.
            TimeoutError: `stopping` was set first, and the functions did not end after their cancellation.
        """
        if not self._functions:
            return True
        loop = asyncio.get_running_loop()
        self._opened = loop.create_future()
        self._task = unlisted(loop.create_task(contained(self._live), name="taskq lifespan"))
        stopped = loop.create_task(stopping.wait())
        try:
            await asyncio.wait((self._task, self._opened, stopped), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            abandon(self._task)
            raise
        finally:
            stopped.cancel()
        if self._task.done():
            self._task.result()
        if self._opened.done():
            self._task.add_done_callback(lambda _: stopping.set())  # a lifespan that ends early stops the worker
            return True
        await self._cancel(self._task)
        return False

    async def _live(self) -> None:
        assert self._opened is not None
        async with AsyncExitStack() as stack:
            for function in self._functions:
                yielded = await _enter(function, stack)
                if yielded is not None and not isinstance(yielded, Mapping):
                    raise ConfigurationError(
                        f"a worker's lifespan must yield a mapping or nothing, but {function!r} yielded "
                        f"{type(yielded).__name__}"
                    )
                self.state.update(yielded or {})
            self._opened.set_result(None)
            await self._ending.wait()

    async def close(self, timeout_s: float, aborting: asyncio.Event) -> None:
        """Run all functions to their end. Cancel them after the timeout, or once `aborting` is set.

        Raises:
            TimeoutError: The functions did not end in time.
            Exception: The error of one of the functions.
        """
        if self._task is None:
            return
        self._ending.set()
        aborted = asyncio.create_task(aborting.wait())
        try:
            await asyncio.wait((self._task, aborted), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            aborted.cancel()
        if not self._task.done():
            await self._cancel(self._task)
            raise TimeoutError(
                f"the worker's lifespan did not end within {timeout_s:g} s, or the worker had to exit earlier"
            )
        self._task.result()

    async def _cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel the asyncio task of the functions. Wait at most `CANCELLED_S` for its end."""
        abandon(task)
        await asyncio.wait((task,), timeout=CANCELLED_S)
        if not task.done():
            raise TimeoutError(f"the worker's lifespan did not end within {CANCELLED_S:g} s after its cancellation")


async def _enter(function: LifespanFunction, stack: AsyncExitStack) -> Any:
    manager: Any
    if inspect.isasyncgenfunction(function):
        manager = make_async(function)()
    elif inspect.isgeneratorfunction(function):
        manager = make_plain(function)()
    else:
        manager = function()
    if isinstance(manager, AbstractAsyncContextManager):
        return await stack.enter_async_context(manager)
    if isinstance(manager, AbstractContextManager):
        return stack.enter_context(manager)
    raise ConfigurationError(
        f"a worker's lifespan must yield once or return a context manager, but {function!r} returned "
        f"{type(manager).__name__}"
    )
