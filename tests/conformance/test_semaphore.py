"""Test semaphores on every store. As in Asynq's `x/rate`, a sorted set has the holders by deadline."""

import pytest

from taskq_core.broker.operations import semaphores
from taskq_core.errors import BrokerReplyError
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

KEY = "asynq:sema:api"


def acquire(broker: Broker, holder: str, *, limit: int = 2, at_s: int = 0, until_s: int = NOW_S + 60) -> bool:
    return broker.at(
        NOW_NS + at_s * 1_000_000_000, semaphores.acquire(KEY, limit=limit, holder=holder, until_s=until_s)
    )


def holders(broker: Broker) -> dict[str, int]:
    return {member.decode(): int(score) for member, score in broker.raw.zrange(KEY, 0, -1, withscores=True)}


def test_a_semaphore_admits_as_many_holders_as_permits(broker: Broker) -> None:
    assert [acquire(broker, each) for each in ("a", "b", "c")] == [True, True, False]
    assert holders(broker) == {"a": NOW_S + 60, "b": NOW_S + 60}


def test_a_semaphore_has_the_key_name_of_asynq(broker: Broker) -> None:
    assert broker.keys.semaphore("api") == KEY


def test_a_released_permit_can_be_acquired_again(broker: Broker) -> None:
    acquire(broker, "a")
    acquire(broker, "b")

    assert broker.run(semaphores.release(KEY, holder="a")) is True
    assert broker.run(semaphores.release(KEY, holder="a")) is False
    assert acquire(broker, "c")
    assert holders(broker) == {"b": NOW_S + 60, "c": NOW_S + 60}


@rows(("at_s", "is_free"), [(9, False), (10, False), (11, True)])
def test_a_holder_counts_through_the_second_of_its_deadline(broker: Broker, at_s: int, is_free: bool) -> None:
    """Go also drops only scores of at least a second before now."""
    acquire(broker, "a", limit=1, until_s=NOW_S + 10)

    assert acquire(broker, "b", limit=1, at_s=at_s) is is_free
    assert set(holders(broker)) == ({"b"} if is_free else {"a"})


def test_expired_holders_are_dropped_in_bounded_steps(broker: Broker) -> None:
    broker.raw.zadd(KEY, {f"old-{number}": NOW_S - 1 for number in range(450)})

    sizes = []
    for _ in range(3):
        assert acquire(broker, "a", limit=1)
        sizes.append(broker.raw.zcard(KEY))

    assert sizes == [251, 51, 1]


def test_a_holder_renews_its_permit(broker: Broker) -> None:
    """Go refuses the call when all permits are held. In taskq it succeeds, because it may repeat a lost call."""
    acquire(broker, "a")
    acquire(broker, "b")

    assert acquire(broker, "a", until_s=NOW_S + 90)
    assert holders(broker) == {"a": NOW_S + 90, "b": NOW_S + 60}


def test_an_expired_holder_has_lost_its_permit(broker: Broker) -> None:
    acquire(broker, "a", limit=1, until_s=NOW_S + 10)
    acquire(broker, "b", limit=1, at_s=11, until_s=NOW_S + 90)

    assert not acquire(broker, "a", limit=1, at_s=12)


def test_a_relative_deadline_is_rounded_up(broker: Broker) -> None:
    assert broker.at(NOW_NS, semaphores.acquire(KEY, limit=1, holder="a", for_ms=1500))

    assert holders(broker) == {"a": NOW_S + 2}


def test_each_caller_applies_its_own_limit(broker: Broker) -> None:
    for each in ("a", "b", "c"):
        acquire(broker, each, limit=3)

    assert not acquire(broker, "d", limit=2)
    assert acquire(broker, "d", limit=4)


def test_a_running_task_acquires_a_permit_from_a_full_redis(one_server: Broker) -> None:
    one_server.raw.config_set("maxmemory", 1)
    try:
        assert acquire(one_server, "a")
    finally:
        one_server.raw.config_set("maxmemory", 0)

    assert holders(one_server) == {"a": NOW_S + 60}


def test_a_key_of_another_type_is_refused_and_not_changed(broker: Broker) -> None:
    broker.raw.set(KEY, "not ours")

    with pytest.raises(BrokerReplyError):
        acquire(broker, "a")

    assert broker.raw.get(KEY) == b"not ours"
