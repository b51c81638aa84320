"""How blocking code runs a coroutine, and how a coroutine runs blocking code, in one process without a worker.

A framework has its own rules for it, for example in which thread its database connections are; its adapter puts a
`Bridge` of its own on the queue application.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Bridge:
    """The rules of plain Python: an event loop of its own, and any thread."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end from blocking code, also from blocking code that a coroutine called."""
        if asyncio._get_running_loop() is None:
            return asyncio.run(coroutine)
        answer: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                answer.append(context.run(asyncio.run, coroutine))
            except BaseException as error:
                failure.append(error)

        context = contextvars.copy_context()
        thread = threading.Thread(target=work, name="taskq-bridge")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return answer[0]

    async def arun(self, function: Callable[[], T]) -> T:
        """Run a blocking function from a coroutine."""
        return await asyncio.to_thread(function)

    def close_thread(self) -> None:
        """Close what this thread has left open, such as database connections, because it is about to end."""

    def close_idle(self) -> None:
        """Close what runs have left open for later ones, such as database connections. A worker calls it at its end."""
