"""The asyncio runner: sends operations and reads their answers.

A `Lane` is one reserved connection that sends several operations in one write and reads their answers in order; the
runner keeps idle lanes per event loop. A connection whose call failed, timed out or was cancelled is closed, never used
again, so no reply can reach another caller.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Endpoint
from taskq_core.broker.failures import CLIENT_ERRORS, as_bytes, is_missing_script, pack, translate, translate_connecting
from taskq_core.broker.operations import Argument, Operation
from taskq_core.broker.stream import ReplyStream
from taskq_core.errors import BrokerError, BrokerUnavailableError

T = TypeVar("T")


class Lane:
    """One reserved connection.

    Args:
        endpoint: Where the store is. On a cluster a lane has a cluster client instead of one connection.
        timeout_s: Seconds to wait for the answers of one exchange.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._connection: Any = None
        self._stream: ReplyStream | None = None

    @property
    def is_connected(self) -> bool:
        """True if the connection stands, as far as this side knows."""
        if self._stream is not None:
            return self._stream.is_open
        return self._connection is not None and (self._endpoint.is_cluster or self._connection.is_connected)

    async def exchange(
        self, operations: Sequence[Operation[Any]], *, timeout_s: float | None = None, spin_s: float = 0.0
    ) -> list[Any]:
        """Send operations in one write and return their answers in order.

        `timeout_s` shortens the lane's own time to wait. For `spin_s` seconds the event loop does not sleep: worth it
        where an answer comes sooner than a sleeping process wakes.

        An operation that the store refused answers with its `BrokerError` in the list, so that the others keep theirs.

        Raises:
            BrokerUnavailableError: The connection failed or the time ran out; any of them may have happened.
        """
        if self._endpoint.is_cluster:
            return [await self._run_on_cluster(operation) for operation in operations]
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s  # connecting and waiting share the time
        await self._connect_if_needed(timeout_s)
        until += max([operation.block_s for operation in operations])
        try:
            commands = [operation.command() for operation in operations]
            replies = await self._send(commands, until - loop.time(), spin_s)
            for index, operation in enumerate(operations):
                if is_missing_script(replies[index]):
                    replies[index] = (await self._send([operation.command_with_text()], until - loop.time()))[0]
        except CLIENT_ERRORS as error:
            await self.close()
            raise translate(error, self._endpoint.address) from error
        except BaseException:
            await self.close()
            raise
        return [await self._answer(operation, reply) for operation, reply in zip(operations, replies, strict=True)]

    async def run(self, operation: Operation[T], *, timeout_s: float | None = None) -> T:
        """Send one operation and return its answer, or raise its error."""
        answer = (await self.exchange((operation,), timeout_s=timeout_s))[0]
        if isinstance(answer, BrokerError):
            raise answer
        return answer  # type: ignore[no-any-return]  # exchange() answers operations of several types

    async def _send(self, commands: list[tuple[Argument, ...]], timeout_s: float, spin_s: float = 0.0) -> list[Any]:
        packed = b"".join([pack(command) for command in commands])
        if self._stream is not None:
            return await self._stream.exchange(packed, len(commands), max(0.0, timeout_s), spin_s=spin_s)
        async with asyncio.timeout(timeout_s):
            await self._connection.send_packed_command([packed], check_health=False)
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(await self._connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            return replies

    async def _answer(self, operation: Operation[Any], reply: Any) -> Any:
        if not isinstance(reply, Exception):
            try:
                return operation.read(reply)
            except BrokerError as error:
                return error
        failure = translate(reply, self._endpoint.address)
        failure.__cause__ = reply
        if isinstance(failure, BrokerUnavailableError):
            await self.close()  # a failover leaves us on the wrong server
        return failure

    async def _connect_if_needed(self, timeout_s: float) -> None:
        if self.is_connected:
            return
        await self.close()
        connection = None
        try:
            async with asyncio.timeout(min(timeout_s, CONNECT_TIMEOUT_S)):
                connection = await self._endpoint.async_connection()
                await connection.connect()
        except BaseException as error:
            if connection is not None:
                await connection.disconnect(nowait=True)
            if isinstance(error, CLIENT_ERRORS):
                raise translate_connecting(error, self._endpoint.address) from error
            raise
        self._connection = connection
        transport: Any = getattr(getattr(connection, "_writer", None), "transport", None)
        if hasattr(transport, "set_protocol"):  # fakeredis has none; uvloop's is no subclass of asyncio.Transport
            self._stream = ReplyStream(transport)

    async def _run_on_cluster(self, operation: Operation[Any]) -> Any:
        if self._connection is None:
            self._connection = await self._joined()
        try:
            async with asyncio.timeout(self._timeout_s + operation.block_s):
                try:
                    reply = await self._connection.execute_command(*as_bytes(operation.command()))
                except NoScriptError:
                    reply = await self._connection.execute_command(*as_bytes(operation.command_with_text()))
        except ResponseError as error:
            return await self._answer(operation, error)
        except CLIENT_ERRORS as error:
            await self.close()
            raise translate(error, self._endpoint.address) from error
        return await self._answer(operation, reply)

    async def _joined(self) -> Any:
        cluster = self._endpoint.async_cluster()
        try:
            async with asyncio.timeout(self._timeout_s):
                await cluster.initialize()
        except CLIENT_ERRORS as error:
            await cluster.aclose()
            raise translate_connecting(error, self._endpoint.address) from error
        except BaseException:
            await cluster.aclose()
            raise
        return cluster

    async def close(self) -> None:
        """Close the connection. The next exchange opens a new one."""
        connection, self._connection = self._connection, None
        stream, self._stream = self._stream, None
        if connection is None:
            return
        if stream is not None:
            stream.abort()
        if self._endpoint.is_cluster:
            await connection.aclose()
        else:
            await connection.disconnect(nowait=True)


class _Pool:
    """The connections of one event loop: those that are idle, and how many may yet be in use."""

    __slots__ = ("free", "idle")

    def __init__(self, size: int) -> None:
        self.idle: deque[Lane] = deque()
        self.free = asyncio.Semaphore(size)


class AsyncRunner:
    """Runs operations against one endpoint from coroutines, on any number of event loops.

    Args:
        endpoint: Where the store is.
        timeout_s: Seconds to wait for an answer.
        max_connections: Connections per event loop; further calls wait their turn. They stay open between calls.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S, max_connections: int = 16) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._closers: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    async def run(self, operation: Operation[T], *, patience_s: float | None = None) -> T:
        """Send one operation and return its answer. As `SyncRunner.run`, for coroutines."""
        clock = asyncio.get_running_loop().time
        deadline = None if patience_s is None else clock() + patience_s
        attempt = 0
        may_have_happened = False
        while True:
            left = None if deadline is None else max(0.001, deadline - clock())
            try:
                async with self._lane(left) as lane:
                    return await lane.run(operation, timeout_s=left)
            except BrokerUnavailableError as error:
                may_have_happened = may_have_happened or error.may_have_happened
                error.may_have_happened = may_have_happened
                pause = random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 1.0)  # noqa: S311 - jitter, no secret
                if not operation.repeatable or deadline is None or clock() + pause >= deadline:
                    raise
                # Whatever ended this connection has likely ended the idle ones.
                await self._close_idle(self._pools.get(asyncio.get_running_loop()))
                attempt += 1
                await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _lane(self, patience_s: float | None) -> AsyncIterator[Lane]:
        """Lend a connection for the time of a `with` block."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = await self._start_on(loop)
        await self._take_turn(pool, patience_s)
        try:
            lane = pool.idle.pop() if pool.idle else self.new_lane()
            try:
                yield lane
            finally:
                if lane.is_connected and self._pools.get(loop) is pool:  # `aclose` may have been called meanwhile
                    pool.idle.append(lane)
                else:
                    await lane.close()
        finally:
            pool.free.release()

    async def _take_turn(self, pool: _Pool, patience_s: float | None) -> None:
        if not pool.free.locked():
            await pool.free.acquire()  # at once
            return
        try:
            async with asyncio.timeout(patience_s):
                await pool.free.acquire()
        except TimeoutError:
            busy = f"all {self._max_connections} connections to {self.endpoint.address} are busy"
            raise BrokerUnavailableError.unchanged(busy) from None

    def new_lane(self) -> Lane:
        """Return a reserved connection, which the caller closes."""
        return Lane(self.endpoint, timeout_s=self._timeout_s)

    async def _start_on(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        for other in [each for each in self._pools if each.is_closed()]:  # closed without a word to us
            self._pools.pop(other, None)
            self._closers.pop(other, None)
        pool = self._pools[loop] = _Pool(self._max_connections)
        closer = self._closers[loop] = self._close_with(loop)
        await anext(closer)
        return pool

    async def _close_with(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        """Close the idle connections when the loop ends: it finishes asynchronous generators before it closes."""
        try:
            yield
        finally:
            self._closers.pop(loop, None)
            await self._close_idle(self._pools.pop(loop, None))
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn

    async def subscribe(self, channel: str) -> "Subscription":
        """Listen on a channel, on a connection of its own."""
        subscription = Subscription(self.endpoint, channel)
        await subscription.open()
        return subscription

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        closer = self._closers.get(asyncio.get_running_loop())
        if closer is not None:
            await closer.aclose()

    async def _close_idle(self, pool: _Pool | None) -> None:
        while pool is not None and pool.idle:
            await pool.idle.pop().close()


class Subscription:
    """Messages published on one channel."""

    def __init__(self, endpoint: Endpoint, channel: str) -> None:
        self._endpoint = endpoint
        self._channel = channel
        self._connection: Any = None

    async def open(self) -> None:
        """Connect and subscribe; when it returns nothing published afterwards is missed."""
        connection = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S + ANSWER_TIMEOUT_S):
                connection = await self._endpoint.async_connection()
                await connection.connect()
                await connection.send_packed_command([pack(("SUBSCRIBE", self._channel))], check_health=False)
                await connection.read_response()
        except BaseException as error:
            if connection is not None:
                await connection.disconnect(nowait=True)
            if isinstance(error, CLIENT_ERRORS):
                raise translate(error, self._endpoint.address) from error
            raise
        self._connection = connection

    async def next(self) -> str:
        """Wait for the next message. A cancelled wait closes the connection."""
        try:
            reply = await self._connection.read_response()
        except CLIENT_ERRORS as error:
            await self.close()
            raise translate(error, self._endpoint.address) from error
        except BaseException:
            await self.close()
            raise
        return bytes(reply[2]).decode("utf-8", "replace")

    async def close(self) -> None:
        """Stop listening."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
