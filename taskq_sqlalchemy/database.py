"""Run functions in short transactions, from any thread, on a blocking or an asynchronous engine."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

T = TypeVar("T")


class Database:
    """Runs functions on a blocking engine, with connections of the pool that the application uses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call a function in a new transaction, commit it, and return the function's result."""
        with self._engine.begin() as connection:
            return work(connection)

    def close(self) -> None:
        """Do nothing, because the pool belongs to the application."""


class AsyncDatabase:
    """Runs functions on an asynchronous engine, for blocking code.

    Its connections belong to the event loop that opened them. So this class runs its own loop in a thread, with a pool
    like the engine's. Both start at the first use, and again after a fork.

    Args:
        engine: The engine of the application.
        prepare: Called with each new engine, for example to add listeners of events.
    """

    def __init__(self, engine: AsyncEngine, prepare: Callable[[Engine], None]) -> None:
        self._source = engine
        self._prepare = prepare
        self._lock = threading.Lock()
        self._opened: tuple[asyncio.AbstractEventLoop, AsyncEngine] | None = None
        self._pid = 0

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call a function in a new transaction, commit it, and return the function's result."""
        with self._lock:  # `close` must not stop the loop before the call is submitted
            loop, engine = self._open()
            future = asyncio.run_coroutine_threadsafe(_call(engine, work), loop)
        return future.result()

    def _open(self) -> tuple[asyncio.AbstractEventLoop, AsyncEngine]:
        if self._opened is None or self._pid != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="taskq-outbox", daemon=True).start()
            engine = create_async_engine(self._source.url, pool=self._source.sync_engine.pool.recreate())
            engine = engine.execution_options(**self._source.get_execution_options())
            self._prepare(engine.sync_engine)
            self._opened, self._pid = (loop, engine), os.getpid()
        return self._opened

    def close(self) -> None:
        """Wait for running calls, close the connections and end the thread. The next call starts it again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and self._pid == os.getpid():
            loop, engine = opened
            asyncio.run_coroutine_threadsafe(_end(engine), loop).result()
            loop.call_soon_threadsafe(loop.stop)


async def _call(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


async def _end(engine: AsyncEngine) -> None:
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*calls, return_exceptions=True)
    await engine.dispose()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
