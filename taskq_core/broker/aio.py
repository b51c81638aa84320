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

    __slots__ = ("free", "idle", "is_closed", "preferred")

    def __init__(self, max_connections: int, preferred: int | None) -> None:
        self.idle: deque[tuple[Pipeline, float]] = deque()  # connections, each with the monotonic time of its last use
        self.free = asyncio.Semaphore(max_connections)
        self.preferred = None if preferred is None else asyncio.Semaphore(preferred)
        self.is_closed = False

    async def close_idle(self, since: float = math.inf) -> None:
        """Close the connections that no call has used since a time."""
        while self.idle and self.idle[0][1] < since:  # the first one was unused for longest
            await self.idle.popleft()[0].close()


class AsyncRunner:
    """Runs operations against one endpoint from coroutines, on any number of event loops.

    Args:
        endpoint: The server.
        timeout_s: Seconds to wait for an answer.
        max_connections: Maximum number of connections per event loop. They stay open between calls. Further calls wait.
        preferred: Number of connections to use if possible. While all are busy, a call waits `OPEN_AFTER_S` and then
            opens another.

    Attributes:
        sends_together: Whether callers may use `try_together`.
    """

    sends_together = True

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

    async def run(
        self, operation: Operation[T], *, patience_s: float | None = None, failure: BrokerError | None = None
    ) -> T:
        """Send one operation and return its answer. Like `SyncRunner.run`, for coroutines.

        Args:
            operation: The operation.
            patience_s: As for `SyncRunner.run`.
            failure: The error of an earlier attempt (`try_together`).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (math.inf if patience_s is None else patience_s)
        attempts: Attempts | None = None
        while True:
            pool = self._pools.get(loop) or await self._start_on(loop)
            timeout_s = min(self._timeout_s, max(LEAST_S, deadline - loop.time()))
            held: list[asyncio.Semaphore] = []
            try:
                if failure is not None:
                    failed, failure = failure, None
                    raise failed
                if (preferred := pool.preferred) is not None and await _acquire(preferred, OPEN_AFTER_S):
                    held.append(preferred)
                # A free semaphore does not wait, so it needs no timeout.
                waiting = _acquire(pool.free, timeout_s) if pool.free.locked() else pool.free.acquire()
                if not await waiting:
                    raise self._busy()
                held.append(pool.free)
                pipeline = pool.idle.pop()[0] if pool.idle else self.new_pipeline()
                try:
                    (answer,) = await pipeline.exchange((operation,), timeout_s=timeout_s)
                except BaseException:
                    await pipeline.close()
                    raise
                now = loop.time()
                pool.idle.append((pipeline, now))
                if pool.is_closed or pool.idle[0][1] < now - IDLE_S:
                    await pool.close_idle(math.inf if pool.is_closed else now - IDLE_S)
                if isinstance(answer, BrokerError):
                    raise answer
                return answer  # type: ignore[no-any-return]  # exchange() answers operations of several types
            except BrokerError as error:
                attempts = attempts or Attempts(operation)
                pause_s = attempts.pause_s(error, deadline - loop.time(), may_repeat=patience_s is not None)
            finally:
                for semaphore in held:
                    semaphore.release()
            # After a failure, the idle connections are probably broken too.
            await pool.close_idle()
            await asyncio.sleep(pause_s)

    async def try_together(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Send operations once, in one write, and return their answers. The answer of a failed one is its error."""
        pool = self._pools.get(loop := asyncio.get_running_loop()) or await self._start_on(loop)
        if not await _acquire(pool.free, self._timeout_s):
            return [self._busy()] * len(operations)
        try:
            pipeline = pool.idle.pop()[0] if pool.idle else self.new_pipeline()
            try:
                answers = await pipeline.exchange(operations)
            except BaseException:
                await pipeline.close()
                raise
            pool.idle.append((pipeline, loop.time()))
            if pool.is_closed:
                await pool.close_idle()
            return answers
        except BrokerError as error:
            return [error] * len(operations)
        finally:
            pool.free.release()

    def _busy(self) -> BrokerError:
        return BrokerUnavailableError.unchanged(
            f"all {self._max_connections} connections to {self.endpoint.address} are busy"
        )

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
            pool = self._pools.pop(loop, None)
            if pool is not None:
                pool.is_closed = True
                await pool.close_idle()
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


async def _acquire(semaphore: asyncio.Semaphore, patience_s: float) -> bool:
    """Acquire a semaphore. Return False if that takes longer than `patience_s`."""
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
