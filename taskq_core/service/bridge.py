"""Run coroutines from blocking code, and blocking code from coroutines, in a process without a worker.

A framework may have special rules, for example for the threads of its database connections. Its adapter sets a subclass
of `Bridge` on the queue application.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from taskq_core.service.blocking import DaemonThreads

T = TypeVar("T")


class Bridge:
    """Runs each coroutine on a new event loop, and blocking code in any thread. Adapters override these rules."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end from blocking code, even if this thread already runs an event loop."""
        if asyncio._get_running_loop() is None:
            return asyncio.run(coroutine)
        threads = DaemonThreads(1)
        try:
            return threads.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
        finally:
            threads.shutdown()

    async def arun(self, function: Callable[[], T]) -> T:
        """Run a blocking function from a coroutine."""
        return await asyncio.to_thread(function)

    def close_thread(self) -> None:
        """Close resources that this thread has opened, such as database connections. Called before the thread ends."""

    def close_idle(self) -> None:
        """Close resources that runs left open for reuse, such as database connections. Called when a worker ends."""
