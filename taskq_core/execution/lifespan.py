"""Lifespans of a worker: functions that open resources before its first task, yield, and close them after its last.

They run in one asyncio task from start to end, because some resources, such as task groups, must be closed in the task
that opened them.
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
"""Yields once, or returns a context manager; plain or asynchronous."""
L = TypeVar("L", bound=LifespanFunction)


def check_lifespan(function: Any) -> None:
    """Check that a function can be a lifespan.

    Raises:
        TaskDefinitionError: It cannot be called without arguments.
    """
    if not callable(function):
        raise TaskDefinitionError(f"a worker's lifespan must be a function that yields once, got {function!r}")
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise TaskDefinitionError(f"a worker's lifespan takes no arguments, which {function!r} does: {error}") from None


CANCELLED_S = 2.0
"""Seconds that a cancelled lifespan has to end."""


class Lifespan:
    """Runs lifespan functions, the first of them outermost.

    Attributes:
        state: The values that they yielded.
    """

    def __init__(self, functions: Sequence[LifespanFunction]) -> None:
        self._functions = tuple(functions)
        self._ending = asyncio.Event()
        self._opened: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def open(self, stopping: asyncio.Event) -> bool:
        """Run them up to their yield.

        Args:
            stopping: Ends the wait. This method arranges that it is set if the lifespans end before `close`.

        Returns:
            False if `stopping` was set first; then everything is closed again.

        Raises:
            Exception: The error of one of the functions. The resources of the others are closed.
            TimeoutError: `stopping` was set first, and the functions did not end.
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
                        f"a worker's lifespan yields a mapping or nothing, and {function!r} yielded "
                        f"{type(yielded).__name__}"
                    )
                self.state.update(yielded or {})
            self._opened.set_result(None)
            await self._ending.wait()

    async def close(self, timeout_s: float, aborting: asyncio.Event) -> None:
        """Run them to their end. They are cancelled after the timeout, or once `aborting` is set.

        Raises:
            TimeoutError: They did not end in time.
            Exception: The error of one of them.
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
            raise TimeoutError(f"it did not end within {timeout_s:g} s, or before the worker had to end at once")
        self._task.result()

    async def _cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel the task. If it does not end within `CANCELLED_S`, leave it behind."""
        abandon(task)
        await asyncio.wait((task,), timeout=CANCELLED_S)
        if not task.done():
            raise TimeoutError(f"it has not ended {CANCELLED_S:g} s after it was cancelled")


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
        f"a worker's lifespan yields once or returns a context manager, and {function!r} returned "
        f"{type(manager).__name__}"
    )
