"""Whether an operator may change anything is asked without changing anything."""

import time

import pytest

from taskq_core import BrokerUnavailableError, TaskQ
from taskq_core.inspector import Inspector
from taskq_core.views.access import NO_RIGHTS, REPLICA, read_refusal
from tests.clock import Clock
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


def refusal(url: str) -> str:
    taskq = TaskQ(url, enqueue_timeout=30)
    try:
        return Inspector(taskq).run_plan(read_refusal)
    finally:
        taskq.close()


def test_a_user_with_all_permissions_may_write_and_the_check_leaves_no_key(redis_server: RedisServer) -> None:
    assert refusal(redis_server.unix_url) == ""
    assert redis_server.client.dbsize() == 0


def test_a_read_only_user_is_recognized(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-@write")
    try:
        assert refusal(redis_server.unix_url.replace("unix://", "unix://reader:secret@")) == NO_RIGHTS
    finally:
        redis_server.command("ACL", "DELUSER", "reader")


def test_a_replica_is_recognized(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again and again for half a minute, as it may become the primary."""
    with RedisServer() as server:
        monkeypatch.setattr(time, "sleep", clock.skip)
        server.command("REPLICAOF", "127.0.0.1", "1")

        assert refusal(server.unix_url) == REPLICA


def test_an_unreachable_redis_is_not_treated_as_a_refusal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", clock.skip)

    with pytest.raises(BrokerUnavailableError):
        refusal("unix:///nowhere/at/all.sock")
