"""A Redis with an append-only file is killed again and again; it comes back with all that it had acknowledged."""

import pytest

from tests.redis_server import RedisServer
from tests.topologies.traffic import Traffic

pytestmark = [pytest.mark.redis, pytest.mark.slow]

KILLS = 10


async def test_ten_kills_lose_nothing() -> None:
    """Producers and the worker go on by themselves, and what was acknowledged runs."""
    recoveries = []
    with RedisServer(tcp=True, appendonly=True, options={"appendfsync": "everysec"}) as server:
        async with Traffic(server.url) as traffic:
            for _ in range(KILLS):
                await traffic.until_flowing(40)
                server.kill()
                server.start()
                recoveries.append(await traffic.until_flowing())
            await traffic.finish()

    traffic.ledger.tell("kills", recoveries)
    assert traffic.ledger.lost() == set()
    assert traffic.ledger.repeated <= KILLS * 10, "at most the tasks that ran at each kill"
