"""Test that the blocking runner loses, duplicates and confuses no requests on faults, and keeps its timeouts."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from taskq_core.broker import sync
from taskq_core.broker.connection import ANSWER_TIMEOUT_S, Endpoint
from taskq_core.broker.operations import new_tasks, runs, services, views
from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.sync import Sent, SocketStream, SyncRunner
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerReplicationError,
    BrokerReplyError,
    BrokerUnavailableError,
)
from taskq_core.wire import Keys
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.rows import rows
from tests.taskq_core.worker.conftest import until_blocking

pytestmark = pytest.mark.redis

T = TypeVar("T")
QUEUE = Keys().queue("default")


def wait_for_clients(server: RedisServer, count: int) -> None:
    """Wait until the server has at most this many connections."""
    until_blocking(lambda: len(server.client.client_list()) <= count)


def runner_of(url: Any, **options: Any) -> SyncRunner:
    return SyncRunner(Endpoint(url, embedded_folder=Path("unused")), **{"timeout_s": 30, **options})


def begin(runner: SyncRunner, operation: Operation[T], after: Sent | None = None) -> Callable[..., T]:
    """Send an operation, and return a function that waits for its answer."""
    return partial(runner.run, operation, sent=runner.begin(operation, after))


@pytest.fixture
def runner(redis_server: RedisServer) -> Iterator[SyncRunner]:
    runner = runner_of(redis_server.unix_url)
    yield runner
    runner.close()


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    with Relay(redis_server.socket_path) as relay:
        yield relay


class FakeTime:
    """A clock that advances when code sleeps, or when a fake connection waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SilentConnection:
    """Connects at once and never answers."""

    is_connected = True
    _sock = None

    def __init__(self, clock: FakeTime) -> None:
        self._clock = clock

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool:
        return False

    def send_packed_command(self, packed: Any, check_health: bool) -> None: ...

    def read_response(self, timeout: float) -> None:
        self._clock.sleep(timeout)
        raise redis.TimeoutError("Timeout reading from socket")


class TestPatience:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> FakeTime:
        clock = FakeTime()
        for module in (sync,):
            monkeypatch.setattr(module, "time", clock)
        return clock

    @pytest.fixture
    def attempts(self) -> list[float]:
        return []

    @pytest.fixture
    def refusing(self, clock: FakeTime, attempts: list[float], monkeypatch: pytest.MonkeyPatch) -> SyncRunner:
        runner = runner_of("redis://h", timeout_s=ANSWER_TIMEOUT_S)

        def connection(**options: float) -> Any:
            attempts.append(clock.now - 1000)
            raise redis.ConnectionError("refused")

        monkeypatch.setattr(runner.endpoint, "connection", connection)
        return runner

    @pytest.fixture
    def silent(self, clock: FakeTime, attempts: list[float], monkeypatch: pytest.MonkeyPatch) -> SyncRunner:
        runner = runner_of("redis://h", timeout_s=ANSWER_TIMEOUT_S)

        def connection(**options: float) -> Any:
            attempts.append(clock.now - 1000)
            return SilentConnection(clock)

        monkeypatch.setattr(runner.endpoint, "connection", connection)
        return runner

    def test_an_unreachable_server_is_retried_with_growing_pauses(
        self, refusing: SyncRunner, attempts: list[float]
    ) -> None:
        with pytest.raises(BrokerUnavailableError) as refused:
            refusing.run(views.ping(), patience_s=10)

        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert 10 <= len(attempts) <= 25
        assert attempts[-1] < 10
        assert all(pause <= 1 for pause in pauses)
        assert max(pauses[:2]) < 0.2 < min(pauses[-3:])
        assert not refused.value.may_have_happened

    def test_without_patience_a_request_is_tried_once(self, refusing: SyncRunner, attempts: list[float]) -> None:
        with pytest.raises(BrokerUnavailableError):
            refusing.run(views.ping())

        assert attempts == [0]

    def test_an_operation_that_is_not_repeatable_is_tried_once(self, silent: SyncRunner, attempts: list[float]) -> None:
        once = views.ping()
        once.repeatable = False

        with pytest.raises(BrokerUnavailableError) as refused:
            silent.run(once, patience_s=60)

        assert attempts == [0]
        assert refused.value.may_have_happened

    @pytest.mark.parametrize("patience_s", [0.0, 0.001, 0.5, 2.0, 5.0, 30.0])
    def test_a_request_to_a_silent_server_fails_when_the_patience_is_over(
        self, silent: SyncRunner, clock: FakeTime, patience_s: float
    ) -> None:
        with pytest.raises(BrokerUnavailableError) as refused:
            silent.run(views.ping(), patience_s=patience_s)

        assert clock.now - 1000 <= patience_s + 0.01
        assert refused.value.may_have_happened

    def test_a_blocking_command_gets_its_full_timeout(self, silent: SyncRunner, clock: FakeTime) -> None:
        with pytest.raises(BrokerUnavailableError):
            silent.run(services.wait_for_wake(["x"], timeout_s=20))

        assert 20 <= clock.now - 1000 <= 23.01

    def test_the_outcome_stays_unknown_when_a_later_attempt_cannot_connect(
        self, silent: SyncRunner, clock: FakeTime, attempts: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first attempt was sent without a reply, and the next found no server. The first may have succeeded."""

        def connection(**options: float) -> Any:
            attempts.append(clock.now)
            if len(attempts) > 1:
                raise redis.ConnectionError("refused")
            return SilentConnection(clock)

        monkeypatch.setattr(silent.endpoint, "connection", connection)

        with pytest.raises(BrokerUnavailableError, match="cannot reach") as refused:
            silent.run(views.ping(), patience_s=10)

        assert refused.value.may_have_happened


class TestLostReplies:
    def test_a_repeated_operation_takes_effect_once(self, relay: Relay, redis_server: RedisServer) -> None:
        runner = runner_of(relay.url)
        other = Keys("other").queue("default")
        for operation in (  # so that the server knows the scripts, and each reply lost is that of the script
            new_tasks.enqueue(other, [NewTask("a", b"m")], ReceiptSlot("t")),
            runs.dequeue(other, owner="w1", call=1, limit=9, lease_s=30),
            runs.settle(other, [Settlement("a", Outcome.DONE, run=1)], owner="w1"),
        ):
            runner.run(operation)
        relay.drop_replies(2)

        assert runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t")), patience_s=30) == "1"
        relay.drop_replies(2)
        taken = runner.run(runs.dequeue(QUEUE, owner="w1", call=1, limit=9, lease_s=30), patience_s=30)
        relay.drop_replies(1)
        code = runner.run(runs.settle(QUEUE, [Settlement("a", Outcome.DONE, run=1)], owner="w1"), patience_s=30)
        runner.close()

        assert [task_id for task_id, _ in taken.tasks] == ["a"]
        assert code == "0", "settled by the first, whose answer was lost"
        assert redis_server.client.get(QUEUE.processed) == b"1"
        assert relay.connections == 6

    def test_a_refused_repeat_leaves_the_outcome_unknown(self) -> None:
        with RedisServer() as server, Relay(server.socket_path) as relay:
            server.command("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
            runner = runner_of(relay.url.replace("//", "//app:old@"))
            enqueue = new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t"))
            runner.run(new_tasks.enqueue(Keys("other").queue("default"), [NewTask("a", b"m")], ReceiptSlot("t")))
            server.command("ACL", "SETUSER", "app", "<old", ">new")
            relay.drop_reply_to(b"EVALSHA")

            with pytest.raises(BrokerAuthenticationError) as refused:
                runner.run(enqueue, patience_s=60)
            with pytest.raises(BrokerAuthenticationError) as refused_at_once:
                runner.run(new_tasks.enqueue(QUEUE, [NewTask("b", b"m")], ReceiptSlot("u")), patience_s=60)
            runner.close()

            assert refused.value.may_have_happened
            assert not refused_at_once.value.may_have_happened
            assert server.client.llen(QUEUE.pending) == 1

    def test_a_refused_repeat_keeps_the_error_of_missing_replicas(self) -> None:
        """It was done, which is more than the refusal could say."""
        with RedisServer() as server:
            server.command("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
            runner = runner_of(server.url.replace("//", "//app:old@"))

            def fail(reply: Any) -> bool:
                server.command("ACL", "SETUSER", "app", "<old", ">new")
                server.client.client_kill_filter(_type="normal", skipme=True)
                raise BrokerReplicationError("not confirmed", wanted=1)

            with pytest.raises(BrokerReplicationError, match="not confirmed") as refused:
                runner.run(operation_ops.Operation("unconfirmed", None, (), ("PING",), fail), patience_s=60)
            runner.close()

            assert isinstance(refused.value.__cause__, BrokerAuthenticationError)

    def test_without_patience_a_lost_reply_leaves_the_outcome_unknown(self, relay: Relay) -> None:
        runner = runner_of(relay.url)
        relay.drop_replies(1)

        with pytest.raises(BrokerUnavailableError, match=r"^no answer from redis://127\.0\.0\.1:") as refused:
            runner.run(new_tasks.register_queue("q", ["x"]))
        runner.close()

        assert refused.value.may_have_happened

    def test_a_request_sent_in_advance_is_repeated_after_a_lost_reply(
        self, relay: Relay, redis_server: RedisServer
    ) -> None:
        runner = runner_of(relay.url)
        relay.drop_replies(1)
        pending = begin(runner, new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t")))

        assert pending(patience_s=30) == "1"
        runner.close()

        assert redis_server.client.llen(QUEUE.pending) == 1


def test_a_wrong_estimate_of_the_servers_clock_is_corrected(runner: SyncRunner) -> None:
    """The script refuses the wrong deadline, and the runner sends the request again with a correct one."""
    lane = ReceiptSlot("lane")
    for number, wrong_s in enumerate((-3600, 3600)):
        runner.endpoint.learn_time(int(time.time() + wrong_s) * 1000, time.monotonic())

        assert runner.run(new_tasks.enqueue(QUEUE, [NewTask(f"run-{number}", b"m")], lane)) == "1"

        runner.endpoint.learn_time(int(time.time() + wrong_s) * 1000, time.monotonic())
        assert begin(runner, new_tasks.enqueue(QUEUE, [NewTask(f"begin-{number}", b"m")], lane))() == "1"


def test_another_thread_may_reset_the_clock_estimate_at_any_time(
    runner: SyncRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = runner.endpoint.learn_time

    def learn_and_forget(server_ms: int, sent_at: float) -> float:
        offset_s = learn(server_ms, sent_at)
        runner.endpoint.clock_offset_s = None
        return offset_s

    monkeypatch.setattr(runner.endpoint, "learn_time", learn_and_forget)

    assert runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("lane"))) == "1"


def test_a_repeat_after_the_deadline_of_the_first_attempt_is_refused(
    runner: SyncRunner, redis_server: RedisServer
) -> None:
    """The receipt of that attempt may have expired, so a new deadline could store the task a second time."""
    operation = new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("lane"))
    runner.run(operation)
    redis_server.client.flushdb()  # the task has run, and the receipt has expired
    operation.in_doubt = True  # the answer was lost
    operation.args = [*operation.args[:2], 1, *operation.args[3:]]

    with pytest.raises(BrokerUnavailableError) as raised:
        runner.run(operation, patience_s=60)

    assert raised.value.may_have_happened
    assert redis_server.client.dbsize() == 0


class TestBegin:
    def test_several_requests_may_be_in_flight(self, runner: SyncRunner) -> None:
        lanes = [ReceiptSlot(f"t{number}") for number in range(3)]
        flying = [
            begin(runner, new_tasks.enqueue(QUEUE, [NewTask(f"{number}", b"m")], lane))
            for number, lane in enumerate(lanes)
        ]

        assert [pending() for pending in reversed(flying)] == ["1", "1", "1"]

    def enqueue_five(self, runner: SyncRunner) -> list[Callable[..., Any]]:
        """Send five enqueues on one connection, and return functions that wait for their answers."""
        pending: list[Callable[..., Any]] = []
        sent = None
        for number in range(5):
            operation = new_tasks.enqueue(QUEUE, [NewTask(f"{number}", b"m")], ReceiptSlot(f"t{number}"))
            sent = runner.begin(operation, sent)
            pending.append(partial(runner.run, operation, sent=sent, patience_s=30))
        return pending

    @rows("order", [range(5), range(4, -1, -1), (2, 0, 4, 1, 3)])
    def test_requests_of_one_connection_are_carried_out_in_order(
        self, relay: Relay, redis_server: RedisServer, order: Sequence[int]
    ) -> None:
        """Their answers may be read in any order."""
        connections = relay.connections
        runner = runner_of(relay.url)
        runner.run(new_tasks.enqueue(QUEUE, [NewTask("first", b"m")], ReceiptSlot("t")))

        pending = self.enqueue_five(runner)
        answers = [pending[number]() for number in order]
        runner.close()

        assert answers == ["1"] * 5
        assert redis_server.client.lrange(QUEUE.pending, 0, -1) == [b"4", b"3", b"2", b"1", b"0", b"first"]
        assert relay.connections == connections + 1

    def test_a_missing_script_is_loaded_while_other_requests_are_in_flight(
        self, runner: SyncRunner, redis_server: RedisServer
    ) -> None:
        runner.run(views.ping())
        redis_server.client.script_flush()

        assert [pending() for pending in self.enqueue_five(runner)] == ["1"] * 5
        assert redis_server.client.llen(QUEUE.pending) == 5

    def test_all_requests_of_a_broken_connection_are_repeated(self, relay: Relay, redis_server: RedisServer) -> None:
        runner = runner_of(relay.url)
        runner.run(views.count_tasks(QUEUE))
        relay.drop_replies(1)

        assert [pending() for pending in self.enqueue_five(runner)] == ["1"] * 5
        runner.close()

        assert redis_server.client.llen(QUEUE.pending) == 5

    def test_a_missing_script_is_loaded_again(self, runner: SyncRunner, redis_server: RedisServer) -> None:
        redis_server.client.script_flush()

        assert begin(runner, views.count_tasks(QUEUE))().processed == 0

    def test_an_unreachable_server_is_reported_when_the_reply_is_awaited(self, tmp_path: Path) -> None:
        """One timeout then covers both attempts, and a server that starts in between is used."""
        runner = runner_of(f"unix://{tmp_path}/none.sock")

        pending = begin(runner, views.ping())

        with pytest.raises(BrokerUnavailableError) as refused:
            pending(patience_s=0.01)
        assert not refused.value.may_have_happened


class TestConnections:
    def test_a_connection_is_reused(self, relay: Relay) -> None:
        runner = runner_of(relay.url)
        for _ in range(5):
            runner.run(views.ping())
        runner.close()

        assert relay.connections == 1

    def test_connections_closed_by_the_server_are_replaced(self, runner: SyncRunner, redis_server: RedisServer) -> None:
        for number in range(20):
            threads = [threading.Thread(target=runner.run, args=(views.ping(),)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert runner.run(new_tasks.register_queue("q", [f"{number}"])) == 1, "also without patience"

    def test_a_refused_operation_keeps_the_connection_open(self, relay: Relay, redis_server: RedisServer) -> None:
        runner = runner_of(relay.url)
        redis_server.client.set(QUEUE.task("a"), "not a hash")
        for _ in range(3):
            with pytest.raises(BrokerReplyError, match="WRONGTYPE"):
                runner.run(views.read_task(QUEUE, "a"))
        runner.close()

        assert relay.connections == 1

    def test_a_thread_never_gets_the_reply_of_another_thread(self, runner: SyncRunner) -> None:
        wrong: list[Any] = []

        def work(number: int) -> None:
            for index in range(60):
                name = f"{number}-{index}"
                if runner.run(new_tasks.register_queue(f"set-{name}", [name])) != 1:
                    wrong.append(name)
                if runner.run(views.list_queues(f"set-{name}")) != [name]:
                    wrong.append(name)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert wrong == []

    def test_idle_connections_are_bounded(self, redis_server: RedisServer) -> None:
        runner = runner_of(redis_server.unix_url, max_idle=2)
        flying = [begin(runner, views.ping()) for _ in range(6)]
        for pending in flying:
            pending()

        wait_for_clients(redis_server, 3)  # two idle connections, and the one of the fixture
        runner.close()

    def test_an_interrupted_call_leaves_no_reply_behind(
        self, runner: SyncRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner.run(views.ping())
        reading = SocketStream.read

        def interrupted(*arguments: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(SocketStream, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.run(new_tasks.register_queue("q", ["x"]))
        monkeypatch.setattr(SocketStream, "read", reading)

        assert runner.run(views.list_queues("other")) == []


class TestClosed:
    def test_a_closed_runner_refuses_requests(self, redis_server: RedisServer) -> None:
        runner = runner_of(redis_server.unix_url)
        flying = begin(runner, views.ping())
        runner.run(views.ping())
        runner.close()

        for call in (lambda: runner.run(views.ping(), patience_s=5), begin(runner, views.ping())):
            with pytest.raises(BrokerUnavailableError, match=r"^the client of unix://.* is closed$") as refused:
                call()
            assert not refused.value.may_have_happened
        assert flying() is True
        wait_for_clients(redis_server, 1)

    def test_the_outcome_stays_unknown_when_the_runner_closes_between_attempts(
        self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first attempt got no reply, so Redis may have executed it."""
        runner = runner_of(redis_server.unix_url)

        def no_answer(*arguments: Any, **named: Any) -> Any:
            raise BrokerUnavailableError("no answer")

        monkeypatch.setattr(runner, "_attempt", no_answer)
        monkeypatch.setattr(sync.time, "sleep", lambda seconds: runner.close())

        with pytest.raises(BrokerUnavailableError, match="is closed") as failed:
            runner.run(views.ping(), patience_s=5)
        assert failed.value.may_have_happened


class TestSubscription:
    def test_a_subscription_receives_published_messages(self, runner: SyncRunner, redis_server: RedisServer) -> None:
        subscription = runner.subscribe("channel")
        redis_server.client.publish("channel", "ä")
        redis_server.client.publish("channel", b"\xff")

        assert subscription.next(60) == "ä"
        assert subscription.next(60) == "\ufffd"
        assert subscription.next(0.01) is None
        subscription.close()

    def test_a_subscription_raises_when_its_connection_is_lost(
        self, runner: SyncRunner, redis_server: RedisServer
    ) -> None:
        subscription = runner.subscribe("channel")
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")

        with pytest.raises(BrokerUnavailableError, match="no answer from unix://"):
            subscription.next(60)
        subscription.close()

    def test_subscribing_to_an_unreachable_server_raises(self, tmp_path: Path) -> None:
        with pytest.raises(BrokerUnavailableError):
            runner_of(f"unix://{tmp_path}/none.sock").subscribe("channel")
