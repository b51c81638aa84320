"""Test every kind of URL with a matching server, and existing redis-py clients, through both runners."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.cluster
import redis.sentinel

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import new_tasks, runs, services, views
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError, ConfigurationError
from taskq_core.wire import Keys
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

QUEUE = Keys().queue("default")
PASSWORD = "pa:ss/w@rd %"
ENCODED = "pa%3Ass%2Fw%40rd%20%25"


def endpoint_of(source: Any) -> Endpoint:
    return Endpoint(source, embedded_folder=Path("unused"))


@contextmanager
def blocking(source: Any, **options: Any) -> Iterator[SyncRunner]:
    runner = SyncRunner(endpoint_of(source), **{"timeout_s": 30, **options})
    yield runner
    runner.close()


@asynccontextmanager
async def coroutines(source: Any, **options: Any) -> AsyncIterator[AsyncRunner]:
    runner = AsyncRunner(endpoint_of(source), **{"timeout_s": 30, **options})
    try:
        yield runner
    finally:
        await runner.aclose()


def life(queue: Any = QUEUE) -> Iterator[tuple[Any, Any]]:
    """The operations of one task's life, and what each answers."""
    yield new_tasks.register_queue("asynq:queues", ["default"]), 1
    yield new_tasks.enqueue(queue, [NewTask("a", b"\x00\xff")], ReceiptSlot("t")), "1"
    yield services.wait_for_wake([queue.wake], timeout_s=30), queue.wake
    yield runs.dequeue(queue, owner="w1", call=1, limit=9, lease_s=30), [("a", b"\x00\xff")]
    yield runs.settle(queue, [Settlement("a", Outcome.DONE, run=1)], owner="w1"), "1"
    yield services.wait_for_wake([queue.wake], timeout_s=0.01), None
    yield services.watch_pending(queue, timeout_s=0.01), False
    yield services.cancel("asynq:cancel", "a"), 0
    yield views.ping(), True


def lead_a_life(source: Any) -> None:
    """Lead a task through its life over a blocking runner, then over lanes."""

    def simple(answer: Any) -> Any:
        return answer.tasks if isinstance(answer, runs.Dequeued) else answer

    with blocking(source) as runner:
        assert [(simple(runner.run(operation)), wanted) for operation, wanted in life()] == [
            (wanted, wanted) for _, wanted in life()
        ]

    async def again() -> None:
        queue = Keys("second").queue("default")
        async with coroutines(source) as runner:
            await runner.run(new_tasks.register_queue("asynq:queues", ["default"]))
            answers = [(simple(await runner.run(operation)), wanted) for operation, wanted in [*life(queue)][1:]]
            assert answers == [(wanted, wanted) for _, wanted in answers]

    asyncio.run(again())


@pytest.fixture(scope="module")
def secured() -> Iterator[RedisServer]:
    """A server with a TCP port, a password, and a user of few rights."""
    with RedisServer(tcp=True, password=PASSWORD) as server:
        server.command("ACL", "SETUSER", "worker", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-flushall")
        server.command(
            "ACL", "SETUSER", "reader", "on", ">reader", "~*", "&*", "+@read", "+ping", "+evalsha", "+eval", "+time"
        )
        yield server


@pytest.fixture
def address(secured: RedisServer) -> str:
    secured.flushall()
    return f"127.0.0.1:{secured.port}"


class TestStandalone:
    def test_a_password_is_sent(self, address: str) -> None:
        lead_a_life(f"redis://:{ENCODED}@{address}/0")

    def test_a_password_may_be_unencoded_in_the_url(self, address: str) -> None:
        """The password ends at the last @ of the URL."""
        with RedisServer(tcp=True, password="pa:ss/w@rd") as server:
            lead_a_life(f"redis://:pa:ss/w@rd@127.0.0.1:{server.port}/0")

    def test_a_user_with_a_password_can_connect(self, address: str) -> None:
        lead_a_life(f"redis://worker:{ENCODED}@{address}/0")

    def test_a_host_name_and_a_database_number_are_used(self, secured: RedisServer, address: str) -> None:
        url = f"redis://:{ENCODED}@localhost:{secured.port}/7"
        lead_a_life(url)

        with blocking(url) as runner:
            runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("u")))
        assert secured.client.keys("*}:t:*") == []
        with redis.Redis(port=secured.port, password=PASSWORD, db=7) as client:
            assert client.keys("*}:t:*") == [b"asynq:{default}:t:a"]

    @pytest.mark.parametrize("secret", [":wrong-secret@", "worker:wrong-secret@", "nobody:wrong-secret@", ""])
    async def test_a_wrong_password_is_reported_and_not_shown(self, address: str, secret: str) -> None:
        url = f"redis://{secret}{address}/0"
        with blocking(url) as runner, pytest.raises(BrokerAuthenticationError) as refused:
            runner.run(views.ping(), patience_s=30)
        async with coroutines(url) as lanes:
            with pytest.raises(BrokerAuthenticationError) as arefused:
                await lanes.run(views.ping(), patience_s=30)

        for error in (refused.value, arefused.value):
            assert f"{address}/0 refused the user or password: " in str(error)
            assert "wrong-secret" not in repr(error) + str(error) + str(error.__cause__)

    def test_a_user_without_write_permission_is_reported(self, address: str) -> None:
        with blocking(f"redis://reader:reader@{address}/0") as runner:
            for operation in (
                new_tasks.register_queue("asynq:queues", ["default"]),
                new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("u")),
            ):
                with pytest.raises(BrokerAuthenticationError, match="refused the user or password"):
                    runner.run(operation)
            assert runner.run(views.count_tasks(QUEUE)).processed == 0

    async def test_an_unreachable_server_is_reported(self) -> None:
        with RedisServer(tcp=True) as server:
            url = server.url
        with blocking(url) as runner, pytest.raises(BrokerUnavailableError, match=r"^cannot reach redis://") as refused:
            runner.run(views.ping())
        async with coroutines(url) as lanes:
            with pytest.raises(BrokerUnavailableError, match=r"^cannot reach redis://") as arefused:
                await lanes.run(views.ping())

        assert not refused.value.may_have_happened
        assert not arefused.value.may_have_happened

    def test_an_unknown_host_is_reported(self) -> None:
        with (
            blocking("redis://no-such-host.invalid") as runner,
            pytest.raises(BrokerUnavailableError, match="cannot reach"),
        ):
            runner.run(views.ping())


class TestUnixSocket:
    def test_a_unix_socket_is_used(self, redis_server: RedisServer) -> None:
        lead_a_life(redis_server.unix_url)

    def test_a_unix_socket_with_a_password_is_used(self, secured: RedisServer) -> None:
        secured.flushall()
        lead_a_life(f"unix://:{ENCODED}@{secured.socket_path}?db=3")

    def test_a_missing_socket_is_reported(self, tmp_path: Path) -> None:
        with (
            blocking(f"unix://{tmp_path}/none.sock") as runner,
            pytest.raises(BrokerUnavailableError, match="cannot reach"),
        ):
            runner.run(views.ping())


class TestTakenOver:
    """A redis-py client gives its address and rights; its connections, times and retries are not used."""

    @pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis], ids=["sync", "async"])
    @pytest.mark.parametrize("decode", [False, True])
    def test_an_existing_client_is_taken_over(self, secured: RedisServer, kind: Any, decode: bool) -> None:
        secured.flushall()
        client = kind(
            host="127.0.0.1",
            port=secured.port,
            username="worker",
            password=PASSWORD,
            db=2,
            decode_responses=decode,
            protocol=3,
            health_check_interval=1,
            client_name="mine",
        )
        lead_a_life(client)
        assert endpoint_of(client).address == f"redis://127.0.0.1:{secured.port}/2"
        assert PASSWORD not in repr(endpoint_of(client))

    @pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis], ids=["sync", "async"])
    def test_an_existing_client_of_a_url_is_taken_over(self, secured: RedisServer, kind: Any) -> None:
        secured.flushall()
        lead_a_life(kind.from_url(f"redis://:{ENCODED}@127.0.0.1:{secured.port}/1"))

    @pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis], ids=["sync", "async"])
    def test_an_existing_client_on_a_socket_is_taken_over(self, redis_server: RedisServer, kind: Any) -> None:
        lead_a_life(kind(unix_socket_path=str(redis_server.socket_path)))
        redis_server.flushall()
        lead_a_life(kind.from_url(redis_server.unix_url))

    def test_an_existing_client_with_a_blocking_pool_is_taken_over(self, redis_server: RedisServer) -> None:
        pool = redis.BlockingConnectionPool.from_url(redis_server.unix_url, max_connections=1, timeout=30)
        lead_a_life(redis.Redis(connection_pool=pool))

    @pytest.mark.parametrize("kind", [fakeredis.FakeRedis, fakeredis.FakeAsyncRedis], ids=["sync", "async"])
    def test_a_fakeredis_client_is_taken_over(self, kind: Any) -> None:
        lead_a_life(kind(server=fakeredis.FakeServer()))

    def test_the_connections_of_the_existing_client_stay_open(self, redis_server: RedisServer) -> None:
        client = redis.Redis(unix_socket_path=str(redis_server.socket_path), max_connections=1)
        known = {
            each["id"] for each in redis_server.client.client_list()
        }  # connections of earlier tests may close later
        with blocking(client) as runner:
            assert runner.run(views.ping())
            assert client.ping()
            new = {each["id"] for each in redis_server.client.client_list()} - known
            assert len(new) == 2, "the client's, the runner's"
        assert client.ping()
        client.close()

    def test_an_unsupported_client_is_refused(self) -> None:
        sentinel = redis.sentinel.Sentinel([("h", 1)]).master_for("m")
        asentinel = redis.asyncio.sentinel.Sentinel([("h", 1)]).master_for("m")
        for client in (sentinel, asentinel):
            with pytest.raises(ConfigurationError, match=r"give redis\+sentinel://host:port/master instead"):
                endpoint_of(client)
        for thing in (object(), 5, redis.ConnectionPool()):
            with pytest.raises(ConfigurationError, match="the broker must be a URL or a redis-py client, got"):
                endpoint_of(thing)

    def test_an_unsupported_connection_class_is_refused(self) -> None:
        class Odd:
            pass

        client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Odd))
        with pytest.raises(ConfigurationError, match=r"connections of type .*Odd are not supported; give a URL"):
            endpoint_of(client)
