"""Whether an operator may change anything is asked without changing anything."""

import pytest

from taskq_core import BrokerUnavailableError, TaskQ
from taskq_core.dashboard.access import NO_RIGHTS, REPLICA, read_refusal
from taskq_core.inspector import Inspector
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


def refusal(url: str, *, within_s: float = 30) -> str:
    taskq = TaskQ(url, enqueue_timeout=within_s)
    try:
        return Inspector(taskq).follow(read_refusal)
    finally:
        taskq.close()


def test_a_user_who_may_do_all_is_not_refused_and_nothing_is_left(redis_server: RedisServer) -> None:
    assert refusal(redis_server.unix_url) == ""
    assert redis_server.client.dbsize() == 0


def test_a_user_who_may_only_read_is_told(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-@write")
    try:
        assert refusal(redis_server.unix_url.replace("unix://", "unix://reader:secret@")) == NO_RIGHTS
    finally:
        redis_server.command("ACL", "DELUSER", "reader")


def test_a_replica_is_told() -> None:
    with RedisServer() as server:
        server.command("REPLICAOF", "127.0.0.1", "1")

        assert refusal(server.unix_url) == REPLICA


def test_a_store_that_is_away_is_no_refusal() -> None:
    with RedisServer() as server:
        url = server.unix_url
        server.kill()

        with pytest.raises(BrokerUnavailableError):
            refusal(url, within_s=0.2)
