"""Test requests to a cluster with moving slots and failing nodes: they reach the right node, and none is half done."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import actions, new_tasks, runs, services, views
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerReplyError, BrokerUnavailableError
from taskq_core.wire import Keys, TaskState
from taskq_core.wire.slots import key_slot
from tests.redis_cluster import close_slot, move_keys, move_slot, open_slot, owner_of
from tests.redis_server import RedisServer, start_cluster

QUEUE = Keys().queue("default")
SLOT = key_slot(QUEUE.pending)
A, B = ("10.0.0.1", 1), ("10.0.0.2", 2)


@pytest.fixture(autouse=True)
def uses_long_connect_timeout(long_connect_timeout: None) -> None: ...


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisServer]]:
    with start_cluster() as nodes:
        yield nodes


@pytest.fixture
def empty(nodes: list[RedisServer]) -> Iterator[list[RedisServer]]:
    """The nodes. After the test, the moving slot is closed and all data is deleted."""
    yield nodes
    for node in nodes:
        node.command("CLUSTER", "SETSLOT", SLOT, "STABLE")
        node.flushall()


def endpoint_of(nodes: list[RedisServer]) -> Endpoint:
    return Endpoint(f"redis+cluster://127.0.0.1:{nodes[0].port}", embedded_folder=Path("unused"))


@pytest.fixture
def blocking(nodes: list[RedisServer]) -> Iterator[SyncRunner]:
    runner = SyncRunner(endpoint_of(nodes), timeout_s=30)
    yield runner
    runner.close()


class Either:
    """A blocking or asyncio runner behind the same interface."""

    def __init__(self, runner: SyncRunner | AsyncRunner) -> None:
        self._runner = runner

    async def run(self, operation: Operation[Any], patience_s: float | None = None) -> Any:
        if isinstance(self._runner, SyncRunner):
            return await asyncio.to_thread(self._runner.run, operation, patience_s=patience_s)
        return await self._runner.run(operation, patience_s=patience_s)


@pytest.fixture(params=["sync", "async"])
async def runner(
    nodes: list[RedisServer], empty: list[RedisServer], request: pytest.FixtureRequest
) -> AsyncIterator[Either]:
    blocking, lanes = SyncRunner(endpoint_of(nodes), timeout_s=30), AsyncRunner(endpoint_of(nodes), timeout_s=30)
    yield Either(blocking if request.param == "sync" else lanes)
    blocking.close()
    await lanes.aclose()


def ends_of(nodes: list[RedisServer]) -> tuple[RedisServer, RedisServer]:
    """Return the primary of the queue, and another primary."""
    source = owner_of(nodes, SLOT)
    return source, next(node for node in nodes if node is not source)


def wait_for_refusals(server: RedisServer, count: int) -> None:
    """Wait until the server has refused this number of scripts."""
    deadline = time.monotonic() + 30
    while server.client.info("commandstats").get("cmdstat_evalsha", {"rejected_calls": 0})["rejected_calls"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # before the next check


@pytest.mark.redis
class TestMovingSlot:
    async def test_requests_follow_a_moved_slot(self, nodes: list[RedisServer], runner: Either) -> None:
        await runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t")))
        source, target = ends_of(nodes)

        move_slot(SLOT, source, target, nodes)

        taken = await runner.run(runs.dequeue(QUEUE, owner="w", call=1, limit=9, lease_s=30))
        assert [task_id for task_id, _ in taken.tasks] == ["a"]
        assert target.client.exists(QUEUE.task("a"))

    async def test_a_script_is_refused_without_an_effect_while_its_slot_moves(
        self, nodes: list[RedisServer], runner: Either
    ) -> None:
        """Both nodes refuse it, wherever its keys are. After the move it works."""
        lane = ReceiptSlot("t")
        await runner.run(new_tasks.enqueue(QUEUE, [NewTask(f"{n}", b"m") for n in range(20)], lane))
        await runner.run(runs.dequeue(QUEUE, owner="w", call=1, limit=10, lease_s=30))
        source, target = ends_of(nodes)
        open_slot(SLOT, source, target)
        scripts: list[Operation[Any]] = [
            new_tasks.enqueue(QUEUE, [NewTask("new", b"m")], ReceiptSlot("u")),
            runs.dequeue(QUEUE, owner="w", call=2, limit=9, lease_s=30),
            runs.settle(QUEUE, [Settlement("0", Outcome.DONE, run=1)], owner="w"),
            runs.extend_leases(QUEUE, [("0", 1)], owner="w", lease_s=30),
            services.forward(QUEUE, owner="w", leader_ms=1000),
            views.count_tasks(QUEUE),
        ]
        while True:
            for operation in scripts:
                with pytest.raises(BrokerUnavailableError, match="Multiple keys request during rehashing") as refused:
                    await runner.run(operation)
                assert not refused.value.may_have_happened
            if not move_keys(SLOT, source, target, most=3):
                break
        close_slot(SLOT, target, nodes)

        counts = await runner.run(views.count_tasks(QUEUE))
        assert (counts.sizes[TaskState.PENDING], counts.sizes[TaskState.ACTIVE]) == (10, 10)
        assert await runner.run(runs.settle(QUEUE, [Settlement("0", Outcome.DONE, run=1)], owner="w")) == "1"

    async def test_a_script_is_refused_also_if_all_its_declared_keys_are_on_the_node(
        self, nodes: list[RedisServer], runner: Either
    ) -> None:
        """The script does not declare the key of the task, and Redis would abort it at the access to this key."""
        lane = ReceiptSlot("t")
        await runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m"), NewTask("b", b"m", start_in_ms=60_000)], lane))
        await runner.run(new_tasks.enqueue(QUEUE, [NewTask("c", b"m")], lane))
        source, target = ends_of(nodes)
        open_slot(SLOT, source, target)
        again = new_tasks.enqueue(QUEUE, [NewTask("new", b"m")], lane)
        assert source.client.exists(*again.keys) == len(again.keys)

        with pytest.raises(BrokerUnavailableError, match="Multiple keys request during rehashing") as refused:
            await runner.run(again)

        assert not refused.value.may_have_happened
        move_slot(SLOT, source, target, nodes)
        assert await runner.run(again) == "1"

    async def test_a_command_with_one_key_is_redirected(self, nodes: list[RedisServer], runner: Either) -> None:
        await runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t")))
        source, target = ends_of(nodes)
        open_slot(SLOT, source, target)
        move_keys(SLOT, source, target)

        assert await runner.run(actions.resume(QUEUE)) is False
        assert await runner.run(services.wait_for_wake([QUEUE.wake], timeout_s=1)) == QUEUE.wake

    async def test_a_caller_with_a_long_timeout_gets_no_error(self, nodes: list[RedisServer], runner: Either) -> None:
        for node in nodes:
            node.client.config_resetstat()
        await runner.run(new_tasks.enqueue(QUEUE, [NewTask("a", b"m")], ReceiptSlot("t")))
        source, target = ends_of(nodes)
        open_slot(SLOT, source, target)
        call = asyncio.ensure_future(runner.run(runs.dequeue(QUEUE, owner="w", call=1, limit=9, lease_s=30), 30))
        await asyncio.to_thread(wait_for_refusals, source, 3)
        move_slot(SLOT, source, target, nodes)

        assert [task_id for task_id, _ in (await call).tasks] == ["a"]


@pytest.mark.redis
class TestRouting:
    async def test_one_exchange_sends_requests_to_all_nodes(
        self, nodes: list[RedisServer], empty: list[RedisServer]
    ) -> None:
        """Responses are in the order of the requests, whichever nodes send them."""
        runner = AsyncRunner(endpoint_of(nodes), timeout_s=30)
        lane = runner.new_pipeline()
        queues = [Keys().queue(f"q{number}") for number in range(12)]
        new = [new_tasks.enqueue(queue, [NewTask(queue.name, b"m")], ReceiptSlot("t")) for queue in queues]

        assert await lane.exchange([*new, views.ping()]) == ["1"] * 12 + [True]
        taken = await lane.exchange([runs.dequeue(queue, owner="w", call=1, limit=9, lease_s=30) for queue in queues])
        await lane.close()

        assert [answer.tasks[0][0] for answer in taken] == [queue.name for queue in queues]
        assert all(node.client.dbsize() for node in nodes)

    def test_redis_without_cluster_in_the_url(self, nodes: list[RedisServer]) -> None:
        source, _ = ends_of(nodes)
        other = next(node for node in nodes if node is not source)
        runner = SyncRunner(Endpoint(other.url, embedded_folder=Path("unused")))

        with pytest.raises(BrokerReplyError, match=r"answered: MOVED .*: use a URL with redis\+cluster://"):
            runner.run(views.count_tasks(QUEUE))
        runner.close()


@pytest.mark.redis
class TestPatience:
    @pytest.mark.parametrize("is_warm", [True, False], ids=["connected", "connecting"])
    @pytest.mark.parametrize("kind", [SyncRunner, AsyncRunner])
    async def test_a_call_to_a_frozen_node_ends_at_its_timeout(self, kind: Any, is_warm: bool) -> None:
        with start_cluster(nodes=1) as nodes:
            source = kind(endpoint_of(nodes), timeout_s=30)
            runner = Either(source)
            if is_warm:
                await runner.run(views.count_tasks(QUEUE))
            nodes[0].pause()
            started = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                await runner.run(views.count_tasks(QUEUE), patience_s=0.2)
            took = time.monotonic() - started
            nodes[0].resume()

            assert took < 15, "the call took as long as the timeout of the runner"
            assert (await runner.run(views.count_tasks(QUEUE), patience_s=30)).processed == 0
            if kind is SyncRunner:
                source.close()
            else:
                await source.aclose()
