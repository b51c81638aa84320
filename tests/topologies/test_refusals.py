"""A Redis that refuses for now: whole, as long as it lasts, and with nothing left to repair."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskq_core import BulkEnqueueError, EnqueueError, TaskQ
from taskq_core.broker.operations import new_tasks
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.errors import BrokerUnavailableError
from taskq_core.worker import Worker, WorkerConfig
from tests.conformance.stores import dump
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

REFUSED_S = 1.5
"""Seconds a refusal lasts; long enough for a worker to have tried several times."""


@contextmanager
def readonly(server: RedisServer) -> Iterator[None]:
    """It is a replica, of a primary that is not there."""
    server.command("REPLICAOF", "127.0.0.1", 1)
    yield
    server.command("REPLICAOF", "NO", "ONE")


@contextmanager
def noreplicas(server: RedisServer) -> Iterator[None]:
    """It wants more replicas than there are."""
    server.client.config_set("min-replicas-to-write", 1)
    yield
    server.client.config_set("min-replicas-to-write", 0)


@contextmanager
def misconf(server: RedisServer) -> Iterator[None]:
    """Make Redis unable to write its snapshot: a folder has the name of the file."""
    blocked = server.folder / "dump.rdb"
    blocked.mkdir()
    server.client.config_set("save", "3600 1")
    with suppress(redis.ResponseError):
        server.client.bgsave()
    wait_until(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot fails")
    yield
    blocked.rmdir()
    server.client.config_set("save", "")


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """Somebody's script runs and runs."""
    server.client.config_set("lua-time-limit", 50)
    endless = redis.Redis(unix_socket_path=str(server.socket_path))
    connection = endless.connection_pool.get_connection()
    connection.send_command("EVAL", "while true do end", 0)
    wait_until(lambda: "Redis is busy" in refusal_of(server), "the script is too slow")
    yield
    server.command("SCRIPT", "KILL")
    with suppress(redis.ResponseError):
        connection.read_response()
    endless.close()


@contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    """Make Redis load its append-only file slowly: for twenty seconds, unless the test speeds it up."""
    server.client.mset({f"ballast-{number}": "x" * 100 for number in range(20_000)})
    server.client.bgrewriteaof()  # a snapshot, between whose keys it answers
    wait_until(lambda: not server.client.info("persistence")["aof_rewrite_in_progress"], "the file is rewritten")
    server.stop()
    server.options |= {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    server.start(is_loading=True)
    wait_until(lambda: "Redis is loading" in refusal_of(server), "it loads")
    yield
    server.client.config_set("key-load-delay", 0)
    wait_until(lambda: refusal_of(server) == "", "it has loaded")


def refusal_of(server: RedisServer) -> str:
    """What it says to a request just now, "" if it answers. Asked without redis-py's own repeats."""
    client = redis.Redis(unix_socket_path=str(server.socket_path), retry=Retry(NoBackoff(), 0))
    with closing(client):
        try:
            client.exists("asynq:{default}:pending")
        except redis.RedisError as error:
            return str(error)
    return ""


def wait_until(condition: Callable[[], Any], what: str, *, within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.01)  # between two looks at a server


REFUSALS = {
    "READONLY": readonly,
    "NOREPLICAS": noreplicas,
    "MISCONF": misconf,
    "BUSY": busy,
    "LOADING": loading,
}


@asynccontextmanager
async def working(server: RedisServer, ran: list[int]) -> AsyncIterator[Worker]:
    app = TaskQ(server.unix_url)

    @app.task(name="note")
    async def note(number: int) -> None:
        ran.append(number)

    worker = Worker(app, WorkerConfig(safety_net=0.2, heartbeat=0.5, lease=3))
    running = asyncio.create_task(worker.arun())
    yield worker
    worker.stop()
    assert await running == 0
    await app.aclose()


async def until_ran(ran: list[int], number: int) -> None:
    deadline = time.monotonic() + 60
    while number not in ran:
        assert time.monotonic() < deadline, f"{number} does not run"
        await asyncio.sleep(0.01)


def enqueue_once(app: TaskQ) -> None:
    """Enqueue with a single attempt."""
    queue = app.runtime.keys.queue("default")
    app.runtime.runner.run(new_tasks.enqueue(queue, [NewTask("once", b"m")], ReceiptSlot("once")))


def requests(server: RedisServer) -> int:
    return int(server.client.info("stats")["total_commands_processed"])


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_whole_and_passes(name: str) -> None:
    """Enqueues say that nothing was stored, the worker waits, and all goes on by itself."""
    ran: list[int] = []
    with RedisServer(appendonly=True) as server:
        app = TaskQ(server.unix_url, enqueue_timeout=0.4, circuit_breaker=False)
        patient = TaskQ(server.unix_url, enqueue_timeout=60)
        task = app.remote("note")
        sends: list[Callable[[int], Awaitable[Any]]] = [
            lambda number: task.adelay(number=number),
            lambda number: asyncio.to_thread(app.client.enqueue, task.s(number=number)),
            lambda number: app.async_client.enqueue_many([task.s(number=number)]),
        ]
        async with working(server, ran) as worker:
            await patient.remote("note").adelay(number=1)
            await until_ran(ran, 1)
            with REFUSALS[name](server):
                started = time.monotonic()
                with pytest.raises(BrokerUnavailableError, match="refused for now") as refused_once:
                    await asyncio.to_thread(enqueue_once, app)
                assert not refused_once.value.may_have_happened
                for number, send in enumerate(sends, start=100):
                    # The last of several attempts at a server that is also slow may have got no answer.
                    with pytest.raises((EnqueueError, BulkEnqueueError)) as refused:
                        await send(number)
                    assert isinstance(refused.value.__cause__, BrokerUnavailableError)
                await asyncio.sleep(max(0.0, REFUSED_S - (time.monotonic() - started)))
            await patient.remote("note").adelay(number=2)
            await until_ran(ran, 2)
            assert worker.repairs == {}
        await app.aclose()
        await patient.aclose()

        assert ran == [1, 2]
        assert [key for key in dump(server.client) if b":t:" in key] == []


async def test_a_worker_that_is_refused_asks_ever_more_slowly() -> None:
    """A count of requests, not of seconds: it does not ask in a loop."""
    with RedisServer() as server:
        async with working(server, []):
            await asyncio.sleep(0.5)
            with noreplicas(server):
                before = requests(server)
                await asyncio.sleep(2)
                asked = requests(server) - before

    assert asked < 200, "some services, each with pauses that grow to seconds"
