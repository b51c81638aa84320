"""Test that a late enqueue stores nothing, and that an enqueue without a reply raises an error of unknown outcome."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from taskq_core import BulkEnqueueError, EnqueueUnknownError, TaskQ
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.relay import Relay

pytestmark = pytest.mark.redis

PATIENCE_S = 60.0
Send = Callable[[TaskQ, Sequence[Any]], Coroutine[Any, Any, object]]


async def one(app: TaskQ, calls: Sequence[Any]) -> object:
    (call,) = calls
    return await asyncio.to_thread(app.enqueue, call)


async def one_from_a_coroutine(app: TaskQ, calls: Sequence[Any]) -> object:
    (call,) = calls
    return await app.aenqueue(call)


async def many(app: TaskQ, calls: Sequence[Any]) -> object:
    return await asyncio.to_thread(app.client.enqueue_many, calls)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server whose settings these tests change."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def relay(server: RedisServer) -> Iterator[Relay]:
    server.flushall()
    with Relay(server.socket_path) as relay:
        yield relay


@pytest.fixture
async def app(relay: Relay) -> AsyncIterator[TaskQ]:
    """An application that reaches Redis through the relay."""
    app = TaskQ(relay.url, enqueue_timeout=PATIENCE_S)
    yield app
    await app.aclose()


@pytest.mark.parametrize(("send", "size"), [(one, 1), (one_from_a_coroutine, 1), (many, 200)])
async def test_a_delayed_enqueue_stores_nothing_after_a_newer_enqueue_of_the_same_client(
    app: TaskQ, server: RedisServer, relay: Relay, send: Send, size: int
) -> None:
    """Meanwhile the client has sent the enqueue again, its tasks have run, and the client has enqueued another task."""
    ran: list[int] = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)

    async def run_all() -> None:
        assert await Worker(app, WorkerConfig(burst=True)).arun() == 0

    held = relay.hold_request(server.load("enqueue"), hang_up=True)
    await send(app, [work.s(number) for number in range(size)])
    await run_all()
    await send(app, [work.s(size)])

    await asyncio.to_thread(held.deliver)
    await run_all()

    assert sorted(ran) == list(range(size + 1))


REFUSALS: dict[str, tuple[str, str]] = {
    "full memory": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "read-only": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "ACL": ("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha"),
}
"""Commands that make Redis refuse an enqueue, each with the command that undoes it."""


@pytest.mark.parametrize(
    ("refusal", "send"),
    [
        ("full memory", one),
        ("full memory", one_from_a_coroutine),
        ("full memory", many),
        ("ACL", one),
    ],
)
async def test_an_enqueue_without_a_reply_stays_unknown_when_redis_refuses_the_repeat(
    app: TaskQ, server: RedisServer, relay: Relay, refusal: str, send: Send
) -> None:
    """The first request may still arrive and store the task later."""
    await refuse_a_repeat(app, server, relay, refusal, send)


async def refuse_a_repeat(app: TaskQ, server: RedisServer, relay: Relay, refusal: str, send: Send) -> None:
    """Enqueue a task whose first request gets no answer and whose second is refused."""

    @app.task
    async def work() -> None: ...

    enqueue = server.load("enqueue")
    first, repeat = relay.hold_request(enqueue, hang_up=True), relay.hold_request(enqueue)
    refuse, undo = REFUSALS[refusal]
    sending = asyncio.create_task(send(app, [work.s()]))
    assert await asyncio.to_thread(repeat.arrived.wait, PATIENCE_S)
    server.command(*refuse.split())
    try:
        repeat.release()
        with pytest.raises((EnqueueUnknownError, BulkEnqueueError)) as raised:
            await sending
    finally:
        server.command(*undo.split())

    assert first.arrived.is_set()
    assert isinstance(raised.value, EnqueueUnknownError) or raised.value.may_have_happened
