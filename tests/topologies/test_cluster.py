"""A cluster of six nodes whose slots move and whose primaries are killed, under load."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core.wire import Keys
from taskq_core.wire.slots import key_slot
from tests.redis_cluster import move_slot, owner_of
from tests.redis_server import RedisServer, start_cluster
from tests.topologies.traffic import Traffic

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PRIMARIES = 3
MOVES = 6


def slot_of(queue: str) -> int:
    return key_slot(Keys().queue(queue).pending)


def queues_on(nodes: list[RedisServer]) -> list[str]:
    """Names of queues, one on each primary."""
    found: dict[int, str] = {}
    for number in itertools.count():
        owner = owner_of(nodes, slot_of(f"q{number}"))
        found.setdefault(owner.port, f"q{number}")
        if len(found) == PRIMARIES:
            return list(found.values())
    raise AssertionError("unreachable")


async def until(condition: Callable[[], Any], what: str, *, within: float = 60.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)


async def take_over(replica: RedisServer) -> None:
    """Make a replica the primary of its slots. Redis gives a request up after five seconds, so it is asked again."""
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

    traffic.ledger.tell("slots moved, a primary killed, then a planned failover", recoveries)
    assert traffic.ledger.lost() == set()
    assert moved == {}, "a script was refused whole, or done whole"
