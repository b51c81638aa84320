"""Test that the relay of the network benchmark forwards all bytes. Its delays are not tested."""

import pytest
import redis

from benchmarks.relay import delayed
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


def test_the_relay_forwards_all_bytes_of_several_connections_in_order() -> None:
    with RedisServer(tcp=True) as server, delayed(server.url, 1.0) as url:
        clients = [redis.Redis.from_url(url) for _ in range(3)]
        for number, client in enumerate(clients):
            client.set(f"large-{number}", bytes([number]) * 3_000_000)  # more than fits into the buffers of a socket
        many = clients[0].pipeline(transaction=False)
        for number in range(1_000):
            many.rpush("many", number)

        assert many.execute() == list(range(1, 1_001))
        for number, client in enumerate(clients):
            assert client.get(f"large-{number}") == bytes([number]) * 3_000_000
            client.close()
        again = redis.Redis.from_url(url)
        assert again.lrange("many", 0, -1) == [b"%d" % number for number in range(1_000)]
        again.close()
