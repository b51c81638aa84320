"""Move slots and kill primaries of a cluster with six nodes under load."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import Keys, build_message, encode_message
from taskq_core.wire.slots import key_slot
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.change_feed import ChangeFeed
from taskq_core.worker.leadership import Leadership
from tests.redis_cluster import move_slot, owner_of
from tests.redis_server import RedisServer, start_cluster
from tests.taskq_core.worker.conftest import push_raw
from tests.topologies.traffic import Traffic

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PRIMARIES = 3
MOVES = 6


def slot_of(queue: str) -> int:
    return key_slot(Keys().queue(queue).pending)


def queues_on(nodes: list[RedisServer]) -> list[str]:
    """Return names of queues, one on each primary."""
    found: dict[int, str] = {}
    for number in itertools.count():
        owner = owner_of(nodes, slot_of(f"q{number}"))
        found.setdefault(owner.port, f"q{number}")
        if len(found) == PRIMARIES:
            return list(found.values())
    raise AssertionError("unreachable")


async def until(condition: Callable[[], Any], what: str, *, within: float = 60.0) -> Any:
    """Wait until a condition is true, and return it."""
    deadline = time.monotonic() + within
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)
    return value


async def take_over(replica: RedisServer) -> None:
    """Make a replica the primary of its slots. Redis gives up after five seconds, so the request is repeated."""
    while replica.command("ROLE")[0] != b"master":
        replica.command("CLUSTER", "FAILOVER")
        with contextlib.suppress(AssertionError):
            await until(lambda: replica.command("ROLE")[0] == b"master", "it takes over", within=6)


async def test_slots_move_and_a_primary_is_killed() -> None:
    """Clients and workers follow the move. No confirmed task is lost, and no repair is needed."""
    recoveries = []
    with start_cluster(PRIMARIES, replicas=1) as nodes:
        primaries = nodes[:PRIMARIES]
        url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in primaries)}"
        queues = queues_on(nodes)
        async with Traffic(url, queues=queues, replicated=True, retention=600) as traffic:
            for number in range(MOVES):
                await traffic.until_flowing(40)
                slot = slot_of(queues[number % PRIMARIES])
                source = owner_of(primaries, slot)
                target = primaries[(primaries.index(source) + 1) % PRIMARIES]
                await asyncio.to_thread(move_slot, slot, source, target, nodes, step=5)
                recoveries.append(await traffic.until_flowing())
            moved = dict(traffic.worker.repairs)

            killed, heir = primaries[0], nodes[PRIMARIES]
            killed.kill()
            started = time.monotonic()
            await until(lambda: heir.command("ROLE")[0] == b"master", "the replica takes over")
            killed.start()
            await until(lambda: killed.command("ROLE")[0] == b"slave", "the old primary is a replica")
            await traffic.until_flowing(20)
            recoveries.append(time.monotonic() - started)
            await until(lambda: killed.client.info("replication")["master_link_status"] == "up", "it has a copy")
            await take_over(killed)
            recoveries.append(await traffic.until_flowing(20))
            await traffic.finish()

    traffic.ledger.log("slots moved, a primary killed, then a planned failover", recoveries)
    assert traffic.ledger.lost() == set()
    assert moved == {}, "a script must have its whole effect or none"


async def test_a_hanging_node_does_not_delay_queues_on_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader wakes workers for a task without a wake token while its read of another queue hangs."""
    held, may_go_on = asyncio.Event(), asyncio.Event()
    hanging_queue = ""
    exchange = ChangeFeed.exchange

    async def hang(self: ChangeFeed, operations: Any) -> Any:
        if not hanging_queue or f"{{{hanging_queue}}}" not in f"{operations}":
            return await exchange(self, operations)
        async with self._turn:  # like a read without a response, for as long as the test needs
            held.set()
            await may_go_on.wait()
            return await self._pipeline.exchange(operations)

    monkeypatch.setattr(ChangeFeed, "exchange", hang)
    with start_cluster(PRIMARIES) as nodes:
        app = TaskQ(f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}")
        ran = asyncio.Event()

        @app.task
        async def work() -> None:
            ran.set()

        healthy, hanging, *_ = queues_on(nodes)
        node = owner_of(nodes, slot_of(healthy))
        worker = Worker(app, WorkerConfig(queues={healthy: 1, hanging: 1}, safety_net=600))
        running = asyncio.create_task(worker.arun())
        await until(lambda: worker.status == "active", "the worker starts")
        await until(lambda: all(each.leads for each in worker._services.of(Leadership)), "it leads")
        hanging_queue = hanging
        await asyncio.wait_for(held.wait(), 60)

        message = encode_message(build_message(type=work.name, id="a", queue=healthy, payload=b"{}"))
        push_raw(node, app.runtime.keys.queue(healthy), "a", message, register=False)
        await asyncio.wait_for(ran.wait(), 60)

        may_go_on.set()
        worker.stop()
        assert await running == 0
        await app.aclose()
