"""Connections that send several operations in one write and read their answers in order, for asyncio.

A `Pipeline` is one connection to one server. A `ClusterPipeline` has one connection to each cluster node that it has
used. A connection is closed when its call fails, times out or is cancelled, so that no reply can reach another caller.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from taskq_core.broker.cluster import NodeRequest, Server, cluster_exchange
from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Endpoint
from taskq_core.broker.exchange import CLOSING, exchange, pack
from taskq_core.broker.failures import CLIENT_ERRORS, translate, translate_connecting
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import arun_plan
from taskq_core.broker.stream import ReplyStream
from taskq_core.errors import BrokerError
from taskq_core.service.user_code import cancellations

T = TypeVar("T")


async def connect(endpoint: Endpoint, timeout_s: float, channels: Sequence[str] = ()) -> Any:
    """Return an open connection of redis-py that has subscribed to the channels."""
    connection = None
    cancelled = cancellations()
    try:
        async with asyncio.timeout(timeout_s):
            connection = await endpoint.async_connection()
            await connection.connect()
            if channels:
                await connection.send_packed_command([pack(("SUBSCRIBE", *channels))], check_health=False)
            for _ in channels:
                await connection.read_response()
            # redis-py uses `asyncio.wait_for`, which can swallow a cancellation on Python 3.11.
            if cancellations() > cancelled:
                raise asyncio.CancelledError
    except BaseException as error:
        if connection is not None:
            await connection.disconnect(nowait=True)
        if isinstance(error, CLIENT_ERRORS):
            raise translate_connecting(error, endpoint.address) from error
        raise
    return connection


class Pipeline:
    """One connection that one caller uses at a time.

    Args:
        endpoint: The server.
        timeout_s: Seconds to wait for the answers of one exchange.

    Attributes:
        is_tracking: Whether the server sends messages when keys change that were read on the current connection, see
            `taskq_core.broker.tracking`.
    """

    is_tracking = False

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._connection: Any = None
        self._stream: ReplyStream | None = None
        self._takeovers = 0

    @property
    def is_connected(self) -> bool:
        """True while the connection seems to be open and no other server has become the primary."""
        if self._takeovers != self._endpoint.takeovers:
            return False
        if self._stream is not None:
            return not self._stream.transport.is_closing()
        return self._connection is not None and self._connection.is_connected

    async def exchange(
        self,
        operations: Sequence[Operation[Any]],
        *,
        timeout_s: float | None = None,
        spin_s: float = 0.0,
        is_asking: bool = False,
    ) -> list[Any]:
        """Send operations in one write and return their answers in order.

        Args:
            operations: The operations.
            timeout_s: Shortens the pipeline's own timeout.
            spin_s: Seconds for which the event loop polls without sleeping. This is faster if the answer arrives before
                a sleeping process would wake up.
            is_asking: Send `ASKING` before each operation, see `taskq_core.broker.cluster`.

        Returns:
            One answer per operation. The answer of a refused operation is its `BrokerError`.

        Raises:
            BrokerUnavailableError: The connection failed or timed out. Any of the operations may have been carried out.
        """
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_s  # connecting and the round trips share one timeout
        if self._endpoint.follower is not None:
            self._endpoint.follower.keep()
        if not self.is_connected:
            await self._connect(timeout_s)
        plan = exchange(self._endpoint, operations, lambda: until - clock(), is_asking=is_asking, spin_s=spin_s)
        try:
            write = next(plan)
            while True:
                packed = [pack(command) for command in write.commands]
                left_s = max(0.0, until + write.block_s - clock())
                try:
                    if self._stream is None:
                        replies = await self._send_alone(packed, left_s)
                    else:
                        count = len(packed)
                        replies = await self._stream.exchange(b"".join(packed), count, left_s, spin_s=write.spin_s)
                except CLIENT_ERRORS as error:
                    await self.close()
                    failure = translate(error, self._endpoint.address)
                    failure.__cause__ = error
                    write = plan.throw(failure)
                else:
                    write = plan.send(replies)
        except StopIteration as done:
            answers: list[Any] = done.value
        except BaseException:
            await self.close()
            raise
        if not CLOSING.isdisjoint(map(type, answers)):
            await self.close()
        return answers

    async def run(self, operation: Operation[T], *, timeout_s: float | None = None) -> T:
        """Send one operation and return its answer, or raise its error."""
        answer = (await self.exchange((operation,), timeout_s=timeout_s))[0]
        if isinstance(answer, BrokerError):
            raise answer
        return answer  # type: ignore[no-any-return]  # exchange() answers operations of several types

    async def _send_alone(self, commands: Sequence[bytes], timeout_s: float) -> list[Any]:
        """Send commands one by one, because fakeredis may reply to several commands in another order."""
        if self._connection is None:
            raise ConnectionError("the connection is closed")
        replies: list[Any] = []
        async with asyncio.timeout(timeout_s):
            for packed in commands:
                await self._connection.send_packed_command([packed], check_health=False)
                try:
                    replies.append(await self._connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        return replies

    async def _connect(self, timeout_s: float) -> None:
        await self.close()
        takeovers = self._endpoint.takeovers
        connection = await connect(self._endpoint, min(timeout_s, CONNECT_TIMEOUT_S))
        self._connection, self._takeovers = connection, takeovers
        transport: Any = getattr(getattr(connection, "_writer", None), "transport", None)
        if hasattr(transport, "set_protocol"):  # fakeredis has no transport, and uvloop has its own class
            self._stream = self._stream_on(transport)

    def _stream_on(self, transport: Any) -> ReplyStream:
        """Return a new stream that reads and writes a connected transport. Subclasses add options."""
        return ReplyStream(transport)

    def abort(self) -> None:
        """Close the connection at once, so that the current exchange fails. The next exchange opens a new connection.

        Does nothing while the connection is being opened, or if the connection leads to a fake server.
        """
        if self._stream is not None:
            self._stream.abort()

    async def close(self) -> None:
        """Close the connection. The next exchange opens a new one."""
        connection, self._connection = self._connection, None
        self.abort()
        self._stream = None
        if connection is not None:
            await connection.disconnect(nowait=True)


class ClusterPipeline(Pipeline):
    """A pipeline for a cluster: it opens one connection to each node that receives a request.

    Requests of one exchange to different nodes are sent concurrently.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        super().__init__(endpoint, timeout_s=timeout_s)
        self._pipelines: dict[Server, Pipeline] = {}

    @property
    def is_connected(self) -> bool:
        """True while a connection to any node seems to be open."""
        return any(pipeline.is_connected for pipeline in self._pipelines.values())

    async def exchange(
        self,
        operations: Sequence[Operation[Any]],
        *,
        timeout_s: float | None = None,
        spin_s: float = 0.0,
        is_asking: bool = False,
    ) -> list[Any]:
        """Send operations, each to the node of its keys, and return their answers in order.

        Like `Pipeline.exchange`.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + (self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s))
        plan = cluster_exchange(self._endpoint.slots, self._endpoint.address, operations, lambda: until - clock())
        return await arun_plan(plan, self._ask_nodes)

    async def _ask_nodes(self, requests: Sequence[NodeRequest]) -> list[list[Any] | BrokerError]:
        if len(requests) == 1:
            return [await self._ask_node(requests[0])]
        return await asyncio.gather(*map(self._ask_node, requests))

    async def _ask_node(self, request: NodeRequest) -> list[Any] | BrokerError:
        server = request.server
        pipeline = self._pipelines.get(server)
        if pipeline is None:
            pipeline = self._pipelines[server] = Pipeline(self._endpoint.node(*server), timeout_s=self._timeout_s)
        try:
            return await pipeline.exchange(request.operations, timeout_s=request.left_s, is_asking=request.is_asking)
        except BrokerError as error:
            return error

    def abort(self) -> None:
        """Close the connections at once. Like `Pipeline.abort`."""
        for pipeline in self._pipelines.values():
            pipeline.abort()

    async def close(self) -> None:
        """Close the connections. The next exchange opens new ones."""
        pipelines, self._pipelines = self._pipelines, {}
        for pipeline in pipelines.values():
            await pipeline.close()
