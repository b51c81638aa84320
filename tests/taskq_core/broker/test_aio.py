"""Test that the asyncio runner loses, duplicates and confuses no requests on faults, and keeps its timeouts."""

import asyncio
import random
import selectors
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
import redis

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import ANSWER_TIMEOUT_S, Endpoint
from taskq_core.broker.operations import new_tasks, runs, services, views
from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.stream import ReplyStream
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerReplicationError,
    BrokerReplyError,
    BrokerUnavailableError,
)
from taskq_core.wire import Keys
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import until, until_blocking

pytestmark = pytest.mark.redis

QUEUE = Keys().queue("default")


def runner_of(url: Any, **options: Any) -> AsyncRunner:
    return AsyncRunner(Endpoint(url, embedded_folder=Path("unused")), **{"timeout_s": 30, **options})


class Transport:
    """A transport that sends nothing."""

    is_closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...
    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("surplus", [b"+", b"*1\r\n", b"*2\r\n+a\r\n", b"+a\r\n"])
async def test_an_unsolicited_reply_closes_the_connection(surplus: bytes) -> None:
    """This holds even if only its beginning has arrived: the rest must not become the reply of another call."""
    transport: Any = Transport()
    stream = ReplyStream(transport)
    answer = stream.exchange(b"PING", 1, 30)
    await asyncio.sleep(0)

    stream.data_received(b"+OK\r\n" + surplus)

    with pytest.raises(ConnectionError, match="unexpected reply"):
        await answer
    assert transport.is_closed


@pytest.fixture
async def runner(redis_server: RedisServer) -> AsyncIterator[AsyncRunner]:
    runner = runner_of(redis_server.unix_url)
    yield runner
    await runner.aclose()


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    with Relay(redis_server.socket_path) as relay:
        yield relay


@asynccontextmanager
async def answering(path: Path, answer: bytes) -> AsyncIterator[str]:
    """Run a server that sends the same reply to every request, and yield its URL."""
    handlers: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(answer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_unix_server(handle, str(path))
    yield f"unix://{path}"
    server.close()
    await asyncio.gather(*(each for each in handlers if each is not None))


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        class Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # chosen by the platform
            def select(inner, timeout: float | None = None) -> Any:  # noqa: N805 - `self` is the loop's
                assert timeout is not None, "nothing left to wait for"
                self.now += max(0.0, timeout)
                return super().select(0)

        self.now = 1000.0
        super().__init__(Jumping())

    def time(self) -> float:
        return self.now


class SilentConnection:
    """Connects at once and never answers."""

    is_connected = True

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def send_packed_command(self, packed: Any, check_health: bool) -> None: ...
    async def read_response(self) -> None:
        await asyncio.get_running_loop().create_future()


class TestPatience:
    """These tests run on a virtual clock, so they need not wait in real time."""

    @staticmethod
    def measure(
        call: Callable[[AsyncRunner], Coroutine[Any, Any, Any]], connection: Callable[[], Any]
    ) -> tuple[BrokerUnavailableError, float, list[float]]:
        """Return the error of a call, how long it took, and when it tried to connect."""
        attempts: list[float] = []
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop_runner:
            loop = loop_runner.get_loop()
            runner = runner_of("redis://h", timeout_s=ANSWER_TIMEOUT_S)

            async def async_connection() -> Any:
                attempts.append(loop.time() - 1000)
                return connection()

            runner.endpoint.async_connection = async_connection  # type: ignore[method-assign]  # a fake for this test
            with pytest.raises(BrokerUnavailableError) as refused:
                loop_runner.run(call(runner))
            took = loop.time() - 1000
            return refused.value, took, attempts

    @staticmethod
    def refuse() -> Any:
        raise redis.ConnectionError("refused")

    def test_an_unreachable_server_is_retried_with_growing_pauses(self) -> None:
        error, _, attempts = self.measure(lambda runner: runner.run(views.ping(), patience_s=10), self.refuse)

        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert 10 <= len(attempts) <= 25
        assert attempts[-1] < 10
        assert all(pause <= 1.01 for pause in pauses)
        assert max(pauses[:2]) < 0.2 < min(pauses[-3:])
        assert not error.may_have_happened

    def test_without_patience_a_request_is_tried_once(self) -> None:
        _, _, attempts = self.measure(lambda runner: runner.run(views.ping()), self.refuse)

        assert attempts == [0]

    def test_an_operation_that_is_not_repeatable_is_tried_once(self) -> None:
        once = views.ping()
        once.repeatable = False

        error, took, attempts = self.measure(lambda runner: runner.run(once, patience_s=60), SilentConnection)

        assert attempts == [0]
        assert took <= 3.1
        assert error.may_have_happened

    @pytest.mark.parametrize("patience_s", [0.0, 0.001, 0.5, 2.0, 5.0, 30.0])
    def test_a_request_to_a_silent_server_fails_when_the_patience_is_over(self, patience_s: float) -> None:
        error, took, _ = self.measure(lambda runner: runner.run(views.ping(), patience_s=patience_s), SilentConnection)

        assert took <= patience_s + 0.05
        assert error.may_have_happened

    def test_a_blocking_command_gets_its_full_timeout(self) -> None:
        _, took, _ = self.measure(
            lambda runner: runner.run(services.wait_for_wake(["x"], timeout_s=20)), SilentConnection
        )

        assert 20 <= took <= 23.1

    def test_an_unopened_connection_fails_after_the_connect_timeout(self) -> None:
        class Hanging(SilentConnection):
            async def connect(self) -> None:
                await asyncio.get_running_loop().create_future()

        error, took, _ = self.measure(lambda runner: runner.run(views.ping(), patience_s=1), Hanging)

        assert took <= 1.05
        assert not error.may_have_happened


class TestLostReplies:
    async def test_a_repeated_operation_takes_effect_once(self, relay: Relay, redis_server: RedisServer) -> None:
        runner = runner_of(relay.url)
        other = Keys("other").queue("default")
        for operation in (  # so that the server knows the scripts, and each reply lost is that of the script
            new_tasks.enqueue(other, [NewTask("a", b"m")], ReceiptSlot("t")),
            runs.dequeue(other, owner="w1", call=1, limit=9, lease_s=30),
            runs.settle(other, [Settlement("a", Outcome.DONE, run=1)], owner="w1"),
        ):
            await runner.run(operation)
        relay.drop_replies(2)

        assert await runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t")), patience_s=30) == "1"
        relay.drop_replies(2)
        taken = await runner.run(runs.dequeue(QUEUE, owner="w1", call=1, limit=9, lease_s=30), patience_s=30)
        relay.drop_replies(1)
        code = await runner.run(runs.settle(QUEUE, [Settlement("a", Outcome.DONE, run=1)], owner="w1"), patience_s=30)
        await runner.aclose()

        assert [task_id for task_id, _ in taken.tasks] == ["a"]
        assert code == "0", "settled by the first, whose answer was lost"
        assert redis_server.client.get(QUEUE.processed) == b"1"

    async def test_a_refused_repeat_leaves_the_outcome_unknown(self) -> None:
        with RedisServer() as server, Relay(server.socket_path) as relay:
            server.command("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
            runner = runner_of(relay.url.replace("//", "//app:old@"))
            enqueue = new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t"))
            await runner.run(new_tasks.enqueue(Keys("other").queue("default"), [NewTask("a", b"m")], ReceiptSlot("t")))
            server.command("ACL", "SETUSER", "app", "<old", ">new")
            relay.drop_reply_to(b"EVALSHA")

            with pytest.raises(BrokerAuthenticationError) as refused:
                await runner.run(enqueue, patience_s=60)
            with pytest.raises(BrokerAuthenticationError) as refused_at_once:
                await runner.run(new_tasks.enqueue(QUEUE, [NewTask("b", b"m")], ReceiptSlot("u")), patience_s=60)
            await runner.aclose()

            assert refused.value.may_have_happened
            assert not refused_at_once.value.may_have_happened
            assert server.client.llen(QUEUE.pending) == 1

    async def test_a_refused_repeat_keeps_the_error_of_missing_replicas(self) -> None:
        """It was done, which is more than the refusal could say."""
        with RedisServer() as server:
            server.command("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
            runner = runner_of(server.url.replace("//", "//app:old@"))

            def fail(reply: Any) -> bool:
                server.command("ACL", "SETUSER", "app", "<old", ">new")
                server.client.client_kill_filter(_type="normal", skipme=True)
                raise BrokerReplicationError("not confirmed", wanted=1)

            with pytest.raises(BrokerReplicationError, match="not confirmed") as refused:
                await runner.run(operation_ops.Operation("unconfirmed", None, (), ("PING",), fail), patience_s=60)
            await runner.aclose()

            assert isinstance(refused.value.__cause__, BrokerAuthenticationError)

    async def test_without_patience_a_lost_reply_leaves_the_outcome_unknown(self, relay: Relay) -> None:
        runner = runner_of(relay.url)
        relay.drop_replies(1)

        with pytest.raises(BrokerUnavailableError, match=r"^no answer from redis://127\.0\.0\.1:") as refused:
            await runner.run(new_tasks.register_queue("q", ["x"]))
        await runner.aclose()

        assert refused.value.may_have_happened


async def until_clients(server: RedisServer, most: int) -> None:
    """Wait until the server has at most this many connections, including the one used for the check."""
    await until(lambda: len(server.client.client_list()) <= most)


class TestCancelled:
    @pytest.mark.parametrize("store", ["redis", "fakeredis"])
    async def test_a_cancelled_call_leaves_no_reply_for_another_caller(
        self, redis_server: RedisServer, store: str
    ) -> None:
        """Calls are cancelled at random points while other calls on the same runner must get their own replies."""
        chance = random.Random(7)
        source = redis_server.unix_url if store == "redis" else fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
        runner = runner_of(source, max_connections=3)
        wrong = []

        async def right(number: int) -> None:
            name = f"right-{number}"
            if await runner.run(new_tasks.register_queue(name, [name])) != 1:
                wrong.append(name)
            if await runner.run(views.list_queues(name)) != [name]:
                wrong.append(name)

        for number in range(500):
            doomed = asyncio.ensure_future(runner.run(new_tasks.register_queue("doomed", [f"{number}", "b", "c"])))
            beside = asyncio.ensure_future(right(number))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            doomed.cancel()
            await asyncio.gather(doomed, beside, return_exceptions=True)
            beside.result()
        await runner.aclose()

        assert wrong == []

    async def test_a_cancelled_call_on_a_slow_network_leaves_no_reply_or_connection(
        self, relay: Relay, redis_server: RedisServer
    ) -> None:
        """Calls are cancelled while their requests or replies are in transit."""
        chance = random.Random(11)
        runner = runner_of(relay.url, max_connections=5)
        cancelled = 0

        async def right(number: int) -> None:
            name = f"right-{number}"
            assert await runner.run(new_tasks.register_queue(name, [name])) == 1
            assert await runner.run(views.list_queues(name)) == [name]

        for number in range(40):
            relay.hold(chance.choice(["requests", "replies"]))
            doomed = [
                asyncio.ensure_future(runner.run(new_tasks.register_queue("doomed", [f"{number}"]))) for _ in range(3)
            ]
            beside = asyncio.ensure_future(right(number))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)  # while the request or the reply is in transit
            for call in doomed:
                cancelled += call.cancel()
            relay.forward()
            await asyncio.gather(*doomed, return_exceptions=True)
            await beside
        assert cancelled == 3 * 40
        await until_clients(redis_server, 5 + 1)
        await runner.aclose()
        await until_clients(redis_server, 1)

    async def test_a_pipeline_works_after_a_cancelled_exchange(self, runner: AsyncRunner) -> None:
        lane = runner.new_pipeline()
        for patience in range(6):
            call = asyncio.ensure_future(lane.exchange([views.ping(), services.wait_for_wake(["none"], timeout_s=30)]))
            for _ in range(patience):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

            assert not lane.is_connected or patience == 0
            assert await lane.exchange([views.list_queues("none"), views.ping()]) == [[], True]
        await lane.close()

    async def test_cancelled_calls_leak_no_connections(self, runner: AsyncRunner, redis_server: RedisServer) -> None:
        for turns in range(50):
            calls = [
                asyncio.ensure_future(runner.run(services.wait_for_wake(["none"], timeout_s=30))) for _ in range(4)
            ]
            for _ in range(turns % 7):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        assert await runner.run(views.ping())

        await until_clients(redis_server, 2)


class TestConnections:
    async def test_a_connection_is_reused(self, relay: Relay) -> None:
        runner = runner_of(relay.url)
        for _ in range(5):
            await runner.run(views.ping())
        await runner.aclose()

        assert relay.connections == 1

    async def test_connections_closed_by_the_server_are_replaced(
        self, runner: AsyncRunner, redis_server: RedisServer
    ) -> None:
        """A restart or a kill may close any number of idle connections."""
        for number in range(5):
            await asyncio.gather(*(runner.run(views.ping()) for _ in range(16)))
            redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await runner.run(new_tasks.register_queue("q", [f"{number}"]), patience_s=30) == 1

    async def test_a_refused_operation_keeps_the_connection_open(self, relay: Relay, redis_server: RedisServer) -> None:
        runner = runner_of(relay.url)
        redis_server.client.set(QUEUE.task("a"), "not a hash")
        for _ in range(3):
            with pytest.raises(BrokerReplyError, match="WRONGTYPE"):
                await runner.run(views.read_task(QUEUE, "a"))
        await runner.aclose()

        assert relay.connections == 1

    async def test_a_pipeline_replaces_a_connection_with_an_unsolicited_reply(self, tmp_path: Path) -> None:
        async with answering(tmp_path / "s.sock", b"+PONG\r\n+AGAIN\r\n") as url:
            lane = runner_of(url).new_pipeline()
            answers = []
            for _ in range(3):
                try:
                    answers.append(await lane.run(views.ping()))
                except BrokerUnavailableError:
                    answers.append(None)
            await lane.close()

        assert set(answers) <= {True, None}
        assert None in answers

    async def test_a_reply_of_another_protocol_is_an_error(self, tmp_path: Path) -> None:
        async with answering(tmp_path / "s.sock", b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            runner = runner_of(url)
            with pytest.raises(BrokerUnavailableError):
                await runner.run(views.ping())
            await runner.aclose()

    async def test_large_requests_and_replies_are_exchanged(self, runner: AsyncRunner) -> None:
        message = bytes(range(256)) * 8192
        lane = runner.new_pipeline()
        tasks = [NewTask(f"{number}", message) for number in range(4)]

        answers = await lane.exchange(
            [
                new_tasks.enqueue(QUEUE, tasks, ReceiptSlot("t")),
                *(runs.dequeue(QUEUE, owner="w1", call=number, limit=1, lease_s=30) for number in range(4)),
            ]
        )

        await lane.close()
        assert answers[0] == "1111"
        assert [answer.tasks for answer in answers[1:]] == [[(f"{number}", message)] for number in range(4)]

    def test_each_event_loop_has_its_own_connections(self, redis_server: RedisServer) -> None:
        runner = runner_of(redis_server.unix_url)

        async def use() -> bool:
            return await runner.run(views.ping())

        assert [asyncio.run(use()) for _ in range(3)] == [True] * 3

        until_blocking(lambda: len(redis_server.client.client_list()) <= 1)


async def test_a_wrong_estimate_of_the_servers_clock_is_corrected(runner: AsyncRunner) -> None:
    """The script refuses the wrong deadline, and the runner sends the request again with a correct one."""
    lane = ReceiptSlot("lane")
    for number, wrong_s in enumerate((-3600, 3600)):
        runner.endpoint.learn_time(int(time.time() + wrong_s) * 1000, time.monotonic())

        assert await runner.run(new_tasks.enqueue(QUEUE, [NewTask(f"a-{number}", b"m")], lane)) == "1"


async def test_a_repeat_after_the_deadline_of_the_first_attempt_is_refused(
    runner: AsyncRunner, redis_server: RedisServer
) -> None:
    """The receipt of that attempt may have expired, so a new deadline could store the task a second time."""
    operation = new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("lane"))
    await runner.run(operation)
    redis_server.client.flushdb()  # the task has run, and the receipt has expired
    operation.in_doubt = True  # the answer was lost
    operation.args = [*operation.args[:2], 1, *operation.args[3:]]

    with pytest.raises(BrokerUnavailableError) as raised:
        await runner.run(operation, patience_s=60)

    assert raised.value.may_have_happened
    assert redis_server.client.dbsize() == 0


class TestSubscription:
    async def test_a_subscription_receives_published_messages(
        self, runner: AsyncRunner, redis_server: RedisServer
    ) -> None:
        subscription = await runner.subscribe("channel")
        redis_server.client.publish("channel", "ä")
        redis_server.client.publish("channel", b"\xff")

        assert await subscription.next() == "ä"
        assert await subscription.next() == "\ufffd"
        await subscription.close()

    async def test_a_subscription_raises_when_its_connection_is_lost(
        self, runner: AsyncRunner, redis_server: RedisServer
    ) -> None:
        subscription = await runner.subscribe("channel")
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")

        with pytest.raises(BrokerUnavailableError, match="no answer from unix://"):
            await subscription.next()

    async def test_subscribing_to_an_unreachable_server_raises(self, tmp_path: Path) -> None:
        with pytest.raises(BrokerUnavailableError):
            await runner_of(f"unix://{tmp_path}/none.sock").subscribe("channel")


# --- waiting without sleeping -----------------------------------------------------------------------------------------


class SleepCountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts how often it blocks for input or a timer instead of only polling."""

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            if timeout is None or timeout > 0:
                self.sleeps += 1
                self.on_sleep()
            return select(timeout)

        selector.select = counted  # type: ignore[method-assign]
        self.sleeps = 0
        self.on_sleep: Callable[[], object] = lambda: None
        super().__init__(selector)


async def count_sleeps(server: RedisServer, *, spin_s: float, answer_s: float) -> int:
    """Count how often the loop sleeps until a reply arrives after `answer_s` (0: after it has begun to sleep)."""
    loop: Any = asyncio.get_running_loop()
    lane = runner_of(server.unix_url).new_pipeline()
    await lane.exchange([views.ping()])
    before = loop.sleeps
    if not answer_s:
        loop.on_sleep = lambda: server.client.rpush("empty", "an answer")
    slow = operation_ops.Operation("slow", None, (), ("BLPOP", "empty", f"{answer_s}"), bool)
    assert await lane.exchange([slow], spin_s=spin_s) == [not answer_s]
    loop.on_sleep = lambda: None
    await lane.close()
    return int(loop.sleeps - before)


def test_a_loop_can_wait_for_a_reply_without_sleeping(redis_server: RedisServer) -> None:
    with asyncio.Runner(loop_factory=SleepCountingLoop) as runner:
        assert runner.run(count_sleeps(redis_server, spin_s=0.0, answer_s=0)) == 1
        assert runner.run(count_sleeps(redis_server, spin_s=60.0, answer_s=0.05)) == 0


def test_a_loop_sleeps_after_it_has_polled_long_enough(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))  # each read of the clock advances it by one second
    monkeypatch.setattr("taskq_core.broker.stream.time", SimpleNamespace(monotonic=lambda: next(seconds)))

    with asyncio.Runner(loop_factory=SleepCountingLoop) as runner:
        assert runner.run(count_sleeps(redis_server, spin_s=20.0, answer_s=0)) == 1

    assert 20 <= next(seconds) <= 23
