"""The asyncio runner: sends operations to Redis and reads the answers.

The runner keeps idle pipelines per event loop. Each call borrows one pipeline.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, LEAST_S, Endpoint
from taskq_core.broker.exchange import Attempts
from taskq_core.broker.failures import CLIENT_ERRORS, translate
from taskq_core.broker.follower import FOLLOW_EVERY_S
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.pipelines import ClusterPipeline, Pipeline, connect
from taskq_core.broker.stream import Changed
from taskq_core.broker.tracking import TrackingPipeline
from taskq_core.errors import BrokerError, BrokerUnavailableError

T = TypeVar("T")

IDLE_S = 10.0
"""Seconds after which an unused connection is closed. It is closed when another connection is used next."""
OPEN_AFTER_S = 0.1
"""Seconds for which a call waits for one of the preferred connections before it opens an additional connection."""


class _Pool:
    """The idle connections of one event loop, and semaphores for the number of calls in progress."""

    __slots__ = ("free", "idle", "preferred")

    def __init__(self, max_connections: int, preferred: int | None) -> None:
        self.idle: deque[tuple[Pipeline, float]] = deque()  # connections, each with the monotonic time of its last use
        self.free = asyncio.Semaphore(max_connections)
        self.preferred = None if preferred is None else asyncio.Semaphore(preferred)


class AsyncRunner:
    """Runs operations against one endpoint from coroutines, on any number of event loops.

    Args:
        endpoint: The server.
        timeout_s: Seconds to wait for an answer.
        max_connections: Maximum number of connections per event loop. They stay open between calls. Further calls wait.
        preferred: Number of connections to use if possible. While all are busy, a call waits `OPEN_AFTER_S` and then
            opens another.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        max_connections: int = 16,
        preferred: int | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._preferred = preferred
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._closers: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    async def run(self, operation: Operation[T], *, patience_s: float | None = None) -> T:
        """Send one operation and return its answer. Like `SyncRunner.run`, for coroutines."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (math.inf if patience_s is None else patience_s)
        attempts: Attempts | None = None
        while True:
            try:
                timeout_s = min(self._timeout_s, max(LEAST_S, deadline - loop.time()))
                return await self._attempt(operation, timeout_s)
            except BrokerError as error:
                attempts = attempts or Attempts(operation)
                pause_s = attempts.pause_s(error, deadline - loop.time(), may_repeat=patience_s is not None)
            # After a failure, the idle connections are probably broken too.
            await self._close_idle(self._pools.get(loop))
            await asyncio.sleep(pause_s)

    async def _attempt(self, operation: Operation[T], timeout_s: float) -> T:
        """Send an operation on a connection of the pool."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = await self._start_on(loop)
        preferred = pool.preferred
        if preferred is None or not await _acquire(preferred, OPEN_AFTER_S):
            return await self._attempt_on(pool, operation, timeout_s)
        try:
            return await self._attempt_on(pool, operation, timeout_s)
        finally:
            preferred.release()

    async def _attempt_on(self, pool: _Pool, operation: Operation[T], timeout_s: float) -> T:
        loop = asyncio.get_running_loop()
        if not await _acquire(pool.free, timeout_s):
            busy = f"all {self._max_connections} connections to {self.endpoint.address} are busy"
            raise BrokerUnavailableError.unchanged(busy)
        try:
            pipeline = pool.idle.pop()[0] if pool.idle else self.new_pipeline()
            try:
                return await pipeline.run(operation, timeout_s=timeout_s)
            finally:
                if pipeline.is_connected and self._pools.get(loop) is pool:  # after `aclose`, `_pools` is empty
                    pool.idle.append((pipeline, loop.time()))
                    while pool.idle and pool.idle[0][1] < loop.time() - IDLE_S:  # the first one was unused for longest
                        await pool.idle.popleft()[0].close()
                else:
                    await pipeline.close()
        finally:
            pool.free.release()

    async def follow_primary(self) -> float:
        """Ask the Sentinels whether another server has become the primary. Return the seconds until the next call.

        After a failover, each connection is replaced at its next use, see `taskq_core.broker.follower`.
        """
        await self.endpoint.follow_primary()
        return FOLLOW_EVERY_S

    def new_pipeline(self) -> Pipeline:
        """Return a pipeline with its own connection. The caller must close it."""
        kind = ClusterPipeline if self.endpoint.is_cluster else Pipeline
        return kind(self.endpoint, timeout_s=self._timeout_s)

    def new_tracking_pipeline(self, changed: Changed) -> Pipeline:
        """Return a separate connection that reports changes of the keys that were read on it.

        In a cluster the pipeline reports nothing, because each node would send messages on another connection.
        """
        if self.endpoint.is_cluster:
            return self.new_pipeline()
        return TrackingPipeline(self.endpoint, changed=changed, timeout_s=self._timeout_s)

    async def _start_on(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        # Drop the pools of closed event loops: an event loop may close without running `_close_with`.
        for other in [each for each in self._pools if each.is_closed()]:
            self._pools.pop(other, None)
            self._closers.pop(other, None)
        pool = self._pools[loop] = _Pool(self._max_connections, self._preferred)
        closer = self._closers[loop] = self._close_with(loop)
        await anext(closer)
        return pool

    async def _close_with(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        """Close the idle connections when the event loop ends.

        This is an asynchronous generator, because a loop that ends closes its open asynchronous generators.
        """
        try:
            yield
        finally:
            self._closers.pop(loop, None)
            await self._close_idle(self._pools.pop(loop, None))
            await asyncio.sleep(0)  # asyncio closes the sockets in the next cycle of the event loop

    async def subscribe(self, *channels: str) -> "Subscription":
        """Listen on channels, on a separate connection."""
        subscription = Subscription(self.endpoint, channels)
        await subscription.open()
        return subscription

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        closer = self._closers.get(asyncio.get_running_loop())
        if closer is not None:
            await closer.aclose()

    async def _close_idle(self, pool: _Pool | None) -> None:
        while pool is not None and pool.idle:
            await pool.idle.pop()[0].close()


async def _acquire(semaphore: asyncio.Semaphore, patience_s: float) -> bool:
    """Acquire a semaphore. Return False if that takes longer than `patience_s`."""
    if not semaphore.locked():
        return await semaphore.acquire()  # needs no timeout, because a free semaphore does not wait
    try:
        async with asyncio.timeout(patience_s):
            return await semaphore.acquire()
    except TimeoutError:
        return False


class Subscription:
    """A subscription to Redis channels, which returns the messages that are published on them."""

    def __init__(self, endpoint: Endpoint, channels: Sequence[str]) -> None:
        self._endpoint = endpoint
        self._channels = channels
        self._connection: Any = None

    async def open(self) -> None:
        """Connect and subscribe. Messages that are published after this method returns are not missed."""
        self._connection = await connect(self._endpoint, CONNECT_TIMEOUT_S + ANSWER_TIMEOUT_S, self._channels)

    async def next(self) -> str:
        """Wait for the next message. A cancelled wait closes the connection."""
        return (await self.next_of_any())[1]

    async def next_of_any(self) -> tuple[str, str]:
        """Wait for the next message and return its channel and text."""
        try:
            reply = await self._connection.read_response()
        except CLIENT_ERRORS as error:
            await self.close()
            raise translate(error, self._endpoint.address) from error
        except BaseException:
            await self.close()
            raise
        return bytes(reply[1]).decode("utf-8", "replace"), bytes(reply[2]).decode("utf-8", "replace")

    async def close(self) -> None:
        """Stop listening."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
