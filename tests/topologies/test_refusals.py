"""Test a Redis that temporarily refuses commands: a refused request has no effect, and later everything works again."""

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
"""Duration of a refusal in seconds, long enough for several attempts of a worker."""


@contextmanager
def readonly(server: RedisServer) -> Iterator[None]:
    """Make Redis a replica of a primary that does not exist."""
    server.command("REPLICAOF", "127.0.0.1", 1)
    yield
    server.command("REPLICAOF", "NO", "ONE")


@contextmanager
def noreplicas(server: RedisServer) -> Iterator[None]:
    """Make Redis require more replicas than exist."""
    server.client.config_set("min-replicas-to-write", 1)
    yield
    server.client.config_set("min-replicas-to-write", 0)


@contextmanager
def misconf(server: RedisServer) -> Iterator[None]:
    """Make Redis unable to write its snapshot: the path of the file is a folder."""
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
    """Keep Redis busy with an endless script."""
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
    server.client.bgrewriteaof()  # the file begins with a snapshot; Redis responds between its keys
    wait_until(lambda: not server.client.info("persistence")["aof_rewrite_in_progress"], "the file is rewritten")
    server.stop()
    server.options |= {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    server.start(is_loading=True)
    wait_until(lambda: "Redis is loading" in refusal_of(server), "it loads")
    yield
    server.client.config_set("key-load-delay", 0)
    wait_until(lambda: refusal_of(server) == "", "it has loaded")


def refusal_of(server: RedisServer) -> str:
    """Return the current error of a request, "" without an error. Without the retries of redis-py."""
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
        time.sleep(0.01)  # before the next check


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
async def test_a_refused_request_changes_nothing_and_succeeds_later(name: str) -> None:
    """Errors of enqueues say that nothing was stored. The worker waits and then continues by itself."""
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
                    # The last of several attempts may have timed out, because the server is also slow.
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


async def test_a_refused_worker_sends_fewer_and_fewer_requests() -> None:
    """The test counts requests, not seconds: the worker must not retry in a loop."""
    with RedisServer() as server:
        async with working(server, []):
            await asyncio.sleep(0.5)
            with noreplicas(server):
                before = requests(server)
                await asyncio.sleep(2)
                asked = requests(server) - before

    assert asked < 200, "too many requests: the pauses of each service must grow to seconds"
