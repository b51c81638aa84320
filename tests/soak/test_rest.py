"""Looking whether everything has come to rest, where a structure was damaged and nobody has mended it yet."""

from typing import Any, cast

import pytest
import redis

from taskq_core.wire import Keys
from tests.redis_server import RedisServer
from tests.soak.conductor import size
from tests.soak.dump import read_queue
from tests.soak.stage import Stage
from tests.soak.stores import raw_client

KEYS = Keys().queue("damaged")


class Asked:
    """A stage of which only the client is there."""

    command = Stage.command

    def __init__(self, client: Any) -> None:
        self.client = client


@pytest.mark.parametrize(("key", "count"), [(KEYS.pending, "LLEN"), (KEYS.retry, "ZCARD")], ids=["list", "sorted set"])
def test_a_key_of_another_type_is_no_rest(redis_server: RedisServer, key: str, count: str) -> None:
    client = raw_client(redis_server)
    stage = cast(Stage, Asked(client))
    assert size(stage, count, key) == 0

    client.set(key, "somebody else's")

    assert size(stage, count, key) == 1


def test_a_redis_that_does_not_answer_is_no_rest() -> None:
    stage = cast(Stage, Asked(redis.Redis(unix_socket_path="/nowhere", retry=None)))

    assert size(stage, "LLEN", KEYS.pending) == 1


def test_a_key_that_was_never_mended_is_told(redis_server: RedisServer) -> None:
    client = raw_client(redis_server)
    client.set(KEYS.pending, "somebody else's")
    client.set(KEYS.lease, "somebody else's")

    found = read_queue(client, KEYS)

    assert found.sizes["pending"] == 1
    assert len(found.leased) == 1
