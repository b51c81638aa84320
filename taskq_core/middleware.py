"""Wrap the run of every task: the extension point for adapters and users.

A middleware sees each run with its `TaskContext` and calls on. The first in a `TaskQ`'s list is the outermost. What it
raises counts as raised by the task. Plain functions go through `around`, in the thread that runs them; coroutines
through `aaround`, in the task's own asyncio task.
"""

from collections.abc import Awaitable, Callable

from taskq_core.context import TaskContext


class Middleware:
    """Base that only calls on. Override one method or both."""

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        """Run a plain function: call `call()` and return what it returns."""
        return call()

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        """Run a coroutine: await `call()` and return what it returns."""
        return await call()
