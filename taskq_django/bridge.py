"""Run coroutines from blocking code, and blocking functions from coroutines, in the thread that has the connections.

Database connections belong to threads. A task that runs inside the code which enqueued it stays in that code's thread,
so it sees that code's transaction.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, sync_to_async

from taskq_core.service.bridge import Bridge
from taskq_django.middleware import close_idle_connections, discard_connections

T = TypeVar("T")


class DjangoBridge(Bridge):
    """Runs blocking functions of coroutines in the thread of their outermost blocking caller, by asgiref's rules.

    So they use the database connections, and the open transaction, of that caller.
    """

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine until it ends. Blocking functions that it passes to `arun` run in this thread."""
        if asyncio._get_running_loop() is not None:
            return super().run(coroutine)

        async def awaited() -> T:
            return await coroutine

        return async_to_sync(awaited)()

    def close_thread(self) -> None:
        """Close the database connections of this thread."""
        discard_connections()

    def close_idle(self) -> None:
        """Close the database connections that tasks have left open."""
        close_idle_connections()

    async def arun(self, function: Callable[[], T]) -> T:
        """Run a blocking function in the thread of the blocking caller of this coroutine."""
        return await sync_to_async(function, thread_sensitive=True)()
