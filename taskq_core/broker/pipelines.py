"""Connections that send several operations in one write and read their answers in order, for asyncio.

A `Pipeline` is one connection to one server. A `ClusterPipeline` is one connection to each cluster node that it has
talked to. A connection whose call failed, timed out or was cancelled is closed, so no reply can reach another caller.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from taskq_core.broker.cluster import ASKING, REDIRECTIONS_MAX, Server, absent_key, slot_of
from taskq_core.broker.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Endpoint
from taskq_core.broker.failures import (
    CLIENT_ERRORS,
    RedirectedError,
    is_late,
    is_missing_script,
    pack,
    translate,
    translate_connecting,
)
from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations import presence
from taskq_core.broker.operations.operation import Argument, Operation
from taskq_core.broker.replication import HOW_MANY, Shortfall, forget_command, is_due, shortfall, wait_command
from taskq_core.broker.stream import ReplyStream
from taskq_core.errors import BrokerAuthenticationError, BrokerError, BrokerUnavailableError
from taskq_core.service.user_code import cancellations

T = TypeVar("T")


class Pipeline:
    """One reserved connection.

    Args:
        endpoint: Where the server is.
        timeout_s: Seconds to wait for the answers of one exchange.

    Attributes:
        is_told: Whether the server tells of changes to keys that were read on the connection that stands, see
            `taskq_core.broker.tracking`.
    """

    is_told = False

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._connection: Any = None
        self._stream: ReplyStream | None = None
        self._takeovers = 0

    @property
    def is_connected(self) -> bool:
        """True if the connection stands, as far as this side knows, and no other server has become the primary."""
        if self._takeovers != self._endpoint.takeovers:
            return False
        if self._stream is not None:
            return self._stream.is_open
        return self._connection is not None and self._connection.is_connected

    async def exchange(
        self, operations: Sequence[Operation[Any]], *, timeout_s: float | None = None, spin_s: float = 0.0
    ) -> list[Any]:
        """Send operations in one write and return their answers in order.

        `timeout_s` shortens the pipeline's own timeout. For `spin_s` seconds the event loop does not sleep: worth it
        where an answer comes sooner than a sleeping process wakes.

        An operation that the store refused answers with its `BrokerError` in the list, so that the others keep theirs.

        Raises:
            BrokerUnavailableError: The connection failed or the time ran out; any of them may have happened.
        """
        return await self._exchange(operations, timeout_s, spin_s)

    async def _exchange(
        self,
        operations: Sequence[Operation[Any]],
        timeout_s: float | None,
        spin_s: float = 0.0,
        *,
        more_keys: tuple[str, ...] = (),
        is_asking: bool = False,
    ) -> list[Any]:
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s  # connecting and waiting share the time
        await self._connect_if_needed(timeout_s)
        block_until = until + max([operation.block_s for operation in operations])
        try:
            await self._set_deadlines(operations, until)
            commands = [operation.command(*more_keys) for operation in operations]
            if is_asking:
                commands.insert(0, ASKING)
            replies = (await self._send(commands, block_until - loop.time(), spin_s))[-len(operations) :]
            for index, operation in enumerate(operations):
                must_correct = is_late(replies[index]) and operation.takes_deadline
                if must_correct:
                    self._endpoint.forget_time()
                    await self._set_deadlines((operation,), until)
                if must_correct or is_missing_script(replies[index]):
                    again: list[tuple[Argument, ...]] = [operation.command_with_text(*more_keys)]
                    if is_asking:
                        again.insert(0, ASKING)
                    replies[index] = (await self._send(again, block_until - loop.time()))[-1]
        except CLIENT_ERRORS as error:
            await self.close()
            raise translate(error, self._endpoint.address) from error
        except BaseException:
            await self.close()
            raise
        return [
            await self._answer(operation, reply, until) for operation, reply in zip(operations, replies, strict=True)
        ]

    async def _set_deadlines(self, operations: Sequence[Operation[Any]], until: float) -> None:
        """Set the deadlines of operations that have one. The server's clock is read first if it is not known."""
        for operation in operations:
            if not operation.takes_deadline:
                continue
            sent_at = time.monotonic()
            deadline_ms = self._endpoint.deadline_ms(sent_at)
            if deadline_ms is None:
                left_s = until - asyncio.get_running_loop().time()
                try:
                    reply = (await self._send([("TIME",)], left_s))[0]
                except CLIENT_ERRORS as error:
                    raise translate_connecting(error, self._endpoint.address) from error  # nothing else was sent
                if isinstance(reply, Exception):
                    raise reply
                self._endpoint.learn_time(operation_ops.time_ms(reply), sent_at)
                deadline_ms = self._endpoint.deadline_ms(sent_at)
            operation.args[operation.deadline_at] = deadline_ms  # type: ignore[index]  # a list, as it has one

    async def run(self, operation: Operation[T], *, timeout_s: float | None = None) -> T:
        """Send one operation and return its answer, or raise its error."""
        answer = (await self.exchange((operation,), timeout_s=timeout_s))[0]
        if isinstance(answer, BrokerError):
            raise answer
        return answer  # type: ignore[no-any-return]  # exchange() answers operations of several types

    async def _send(self, commands: list[tuple[Argument, ...]], timeout_s: float, spin_s: float = 0.0) -> list[Any]:
        if self._stream is not None:
            packed = b"".join([pack(command) for command in commands])
            return await self._stream.exchange(packed, len(commands), max(0.0, timeout_s), spin_s=spin_s)
        async with asyncio.timeout(timeout_s):
            replies: list[Any] = []
            for (
                command
            ) in commands:  # one after the other: a stand-in may answer what comes behind a blocking one first
                await self._connection.send_packed_command([pack(command)], check_health=False)
                try:
                    replies.append(await self._connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            return replies

    async def _answer(self, operation: Operation[Any], reply: Any, until: float) -> Any:
        if not isinstance(reply, Exception):
            try:
                if operation.confirm is not None and is_due(operation, reply):
                    await self._confirm(operation, reply, until)
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
        told = cancellations()
        try:
            async with asyncio.timeout(min(timeout_s, CONNECT_TIMEOUT_S)):
                connection = await self._endpoint.async_connection()
                takeovers = self._endpoint.takeovers
                await connection.connect()
                if cancellations() > told:  # swallowed on Python 3.11 by `asyncio.wait_for`, which redis-py uses
                    raise asyncio.CancelledError
        except BaseException as error:
            if connection is not None:
                await connection.disconnect(nowait=True)
            if isinstance(error, CLIENT_ERRORS):
                raise translate_connecting(error, self._endpoint.address) from error
            raise
        self._connection, self._takeovers = connection, takeovers
        transport: Any = getattr(getattr(connection, "_writer", None), "transport", None)
        if hasattr(transport, "set_protocol"):  # fakeredis has none; uvloop's is no subclass of asyncio.Transport
            self._stream = self._stream_on(transport)

    def _stream_on(self, transport: Any) -> ReplyStream:
        """Take over a connected transport."""
        return ReplyStream(transport)

    async def _confirm(self, operation: Operation[Any], reply: Any, until: float) -> None:
        """Wait until what was written on this connection is confirmed, or raise."""
        assert operation.confirm is not None
        now = asyncio.get_running_loop().time
        address = self._endpoint.address
        try:
            missing = None
            if not self._endpoint.is_memory:
                command = wait_command(operation.confirm, until - now())
                missing = shortfall(operation.confirm, (await self._send([command], until - now()))[0])
            if missing is None and operation.receipts:
                said = (await self._send([forget_command(operation, reply)], until - now()))[0]
                if isinstance(said, Exception):
                    missing = Shortfall(operation.confirm.replicas, str(said))
        except CLIENT_ERRORS as error:
            await self.close()
            missing = Shortfall(0, str(translate(error, address)))
            raise missing.error(operation, reply, address) from error
        except BaseException:
            await self.close()
            raise
        if missing is None:
            return
        info = None
        try:
            info = (await self._send([HOW_MANY], until - now()))[0]
        except CLIENT_ERRORS:
            pass  # it was only to say more
        finally:
            await self.close()
        raise missing.error(operation, reply, address, info)

    def abort(self) -> None:
        """Break the connection at once, so that the exchange on its way fails. The next one opens a new one.

        Nothing happens while it connects, or if it leads to a stand-in.
        """
        if self._stream is not None:
            self._stream.abort()

    async def close(self) -> None:
        """Close the connection. The next exchange opens a new one."""
        connection, self._connection = self._connection, None
        stream, self._stream = self._stream, None
        if connection is None:
            return
        if stream is not None:
            stream.abort()
        await connection.disconnect(nowait=True)


class ClusterPipeline(Pipeline):
    """One reserved connection to each node of a cluster that it has talked to.

    What one exchange sends to different nodes goes at the same time.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        super().__init__(endpoint, timeout_s=timeout_s)
        self._pipelines: dict[Server, Pipeline] = {}

    @property
    def is_connected(self) -> bool:
        """True if a connection to any node stands, as far as this side knows."""
        return any(pipeline.is_connected for pipeline in self._pipelines.values())

    async def exchange(
        self, operations: Sequence[Operation[Any]], *, timeout_s: float | None = None, spin_s: float = 0.0
    ) -> list[Any]:
        """Send operations, each to the node of its keys, and return their answers in order. As `Pipeline.exchange`."""
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        until = asyncio.get_running_loop().time() + timeout_s
        slots = self._endpoint.slots
        if not slots.is_known:
            await self._learn_slots(until)
        by_slot: dict[int | None, list[int]] = {}
        for index, operation in enumerate(operations):
            by_slot.setdefault(slot_of(operation), []).append(index)
        by_server: dict[Server, list[tuple[int | None, list[int]]]] = {}
        for slot, places in by_slot.items():
            server = slots.owner(slot)
            if server is None:
                slots.forget()
                raise BrokerUnavailableError.unchanged(f"no node of {self._endpoint.address} serves slot {slot}")
            by_server.setdefault(server, []).append((slot, places))
        answers: list[Any] = [None] * len(operations)

        async def ask(server: Server, parts: list[tuple[int | None, list[int]]]) -> None:
            for slot, places in parts:  # one connection, one exchange at a time
                some = [operations[place] for place in places]
                for place, answer in zip(places, await self._ask(server, slot, some, until), strict=True):
                    answers[place] = answer

        asked = [ask(server, parts) for server, parts in by_server.items()]
        if len(asked) == 1:
            await asked[0]
        else:
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        return answers

    async def _ask(
        self, server: Server, slot: int | None, operations: Sequence[Operation[Any]], until: float
    ) -> list[Any]:
        """Send operations of one slot to a node, and those that it sends on to where it says."""
        answers = await self._ask_node(server, operations, until)
        for index, operation in enumerate(operations):
            asked = server
            for _ in range(REDIRECTIONS_MAX):
                answer = answers[index]
                if not isinstance(answer, RedirectedError):
                    break
                asked = (answer.server[0] or asked[0], answer.server[1])
                if not answer.is_ask:
                    self._endpoint.slots.move(answer.slot, asked)
                answers[index] = (await self._ask_node(asked, (operation,), until, is_asking=answer.is_ask))[0]
            else:
                self._endpoint.slots.forget()
                round_and_round = f"the nodes of {self._endpoint.address} send slot {slot} round and round"
                answers[index] = BrokerUnavailableError.unchanged(round_and_round)
        return answers

    async def _ask_node(
        self, server: Server, operations: Sequence[Operation[Any]], until: float, *, is_asking: bool = False
    ) -> list[Any]:
        left_s = max(0.001, until - asyncio.get_running_loop().time())
        more_keys = next((keys for keys in map(absent_key, operations) if keys), ())  # commands do without
        try:
            answers = await self._pipeline(server)._exchange(
                operations, left_s, more_keys=more_keys, is_asking=is_asking
            )
        except BrokerUnavailableError:
            self._endpoint.slots.forget()
            raise
        if any(isinstance(answer, BrokerUnavailableError) for answer in answers):
            self._endpoint.slots.forget()
        return answers

    def _pipeline(self, server: Server) -> Pipeline:
        pipeline = self._pipelines.get(server)
        if pipeline is None:
            pipeline = self._pipelines[server] = Pipeline(self._endpoint.node(*server), timeout_s=self._timeout_s)
        return pipeline

    async def _learn_slots(self, until: float) -> None:
        """Ask one node after the other who serves which slot, each for its share of the time."""
        problems = []
        sources = self._endpoint.slots.sources()
        for index, server in enumerate(sources):
            share_s = (until - asyncio.get_running_loop().time()) / (len(sources) - index)
            if share_s <= 0:
                break
            try:
                shards = await self._pipeline(server).run(presence.read_shards(), timeout_s=share_s)
            except BrokerAuthenticationError:
                raise
            except BrokerError as error:
                problems.append(str(error))
            else:
                self._endpoint.slots.learn(shards, server)
                return
        raise BrokerUnavailableError.unchanged(f"cannot reach {self._endpoint.address}: {'; '.join(problems)}")

    def abort(self) -> None:
        """Break the connections at once. As `Pipeline.abort`."""
        for pipeline in self._pipelines.values():
            pipeline.abort()

    async def close(self) -> None:
        """Close the connections. The next exchange opens new ones."""
        pipelines, self._pipelines = self._pipelines, {}
        for pipeline in pipelines.values():
            await pipeline.close()
