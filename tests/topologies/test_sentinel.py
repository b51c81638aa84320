"""Failovers with Sentinel under load, planned or after a kill of the primary. No confirmed task may be lost."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis

from tests.conformance.stores import redis_programs
from tests.redis_server import RedisServer
from tests.topologies.traffic import Traffic

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PROGRAMS = list({program.partition("-")[0]: program for program in reversed(redis_programs())}.values())[::-1]
"""One program of each kind: Redis, and Valkey if installed."""
SENTINELS = 3
NAME = RedisServer.MASTER_NAME


async def until(condition: Callable[[], Any], what: str, *, within: float = 60.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)


class Topology:
    """A primary, a replica and three Sentinels, two of which must agree."""

    def __init__(self, primary: RedisServer, replica: RedisServer, sentinels: list[RedisServer]) -> None:
        self.primary, self.replica, self.sentinels = primary, replica, sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    def is_named(self, server: RedisServer) -> bool:
        """Whether all Sentinels name a server as the primary."""
        asked = [each.command("SENTINEL", "get-master-addr-by-name", NAME) for each in self.sentinels]
        return all(int(port) == server.port for _, port in asked)

    def kill_primary(self) -> None:
        """Kill the primary, and shorten the timeout of the Sentinels. Before, a stall would have caused a failover."""
        self.primary.kill()
        for sentinel in self.sentinels:
            sentinel.wait_for_primary(0.5)

    def is_whole(self) -> bool:
        """Whether each Sentinel knows the replica and the others."""
        return all(
            len(sentinel.command("SENTINEL", "REPLICAS", NAME)) == 1
            and len(sentinel.command("SENTINEL", "SENTINELS", NAME)) == SENTINELS - 1
            for sentinel in self.sentinels
        )


def is_up_to_date(replica: RedisServer) -> bool:
    """Whether a server is connected to its primary and has its first copy."""
    with suppress(redis.RedisError):
        return bool(replica.client.info("replication").get("master_link_status") == "up")
    return False


@contextmanager
def start_topology(program: str = PROGRAMS[0]) -> Iterator[Topology]:
    binary = redis_programs()[program]
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer(tcp=True, binary=binary))
        replica = stack.enter_context(RedisServer(tcp=True, replica_of=primary, binary=binary))
        deadline = time.monotonic() + 30
        while not is_up_to_date(replica):
            assert time.monotonic() < deadline
            time.sleep(0.02)  # the replica is joining
        sentinels = [
            stack.enter_context(RedisServer(sentinel_of=primary, quorum=2, binary=binary)) for _ in range(SENTINELS)
        ]
        for sentinel in sentinels:
            sentinel.wait_for_primary(60)
            with suppress(redis.ResponseError):  # before Redis 7, this interval is fixed and longer
                sentinel.command("SENTINEL", "DEBUG", "info-period", 500, "publish-period", 500)
        yield Topology(primary, replica, sentinels)


async def test_a_planned_failover() -> None:
    """The old primary loses its last writes when it becomes a replica. None of them is confirmed."""
    with start_topology() as topology:
        async with Traffic(topology.url, replicated=True) as traffic:
            await until(topology.is_whole, "the Sentinels know each other")
            await traffic.until_flowing(50)
            started = time.monotonic()
            topology.sentinels[0].command("SENTINEL", "FAILOVER", NAME)
            await until(lambda: topology.is_named(topology.replica), "the replica is named")
            await until(lambda: is_up_to_date(topology.primary), "the old primary is a replica")
            recovery = await traffic.until_flowing(50) + time.monotonic() - started
            await traffic.finish()

    traffic.ledger.log("planned failover", [recovery])
    assert traffic.ledger.lost() == set()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_primary_that_is_killed(program: str) -> None:
    """The replica becomes primary. Tasks are confirmed again once it has a replica."""
    with start_topology(program) as topology:
        async with Traffic(topology.url, replicated=True) as traffic:
            await until(topology.is_whole, "the Sentinels know each other")
            await traffic.until_flowing(50)
            topology.kill_primary()
            started = time.monotonic()
            await until(lambda: topology.is_named(topology.replica), "the replica is named")
            topology.primary.replica_of = topology.replica
            topology.primary.start()
            await traffic.until_flowing(50)
            recovery = time.monotonic() - started
            await traffic.finish()

    traffic.ledger.log(f"primary killed, {program}", [recovery])
    assert traffic.ledger.lost() == set()


async def test_without_confirmation_producers_continue_immediately() -> None:
    """Without `replicated` no replica is needed. Only tasks that the killed primary had not replicated may be lost."""
    with start_topology() as topology:
        async with Traffic(topology.url) as traffic:
            await until(topology.is_whole, "the Sentinels know each other")
            await traffic.until_flowing(50)
            topology.kill_primary()
            recovery = await traffic.until_flowing(50)
            await traffic.finish()

    traffic.ledger.log("primary killed, nothing confirmed", [recovery])
    assert len(traffic.ledger.lost()) <= 10, "more tasks were lost than the last ones before the kill"
