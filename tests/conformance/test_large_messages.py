"""Test that scripts do not read a message over the limit, which could exhaust the memory of its reader."""

from typing import Any

import pytest

from taskq_core.broker.operations import aggregation, services, views
from taskq_core.broker.operations.runs import dequeue as dequeue_op
from taskq_core.broker.operations.runs import settle_and_dequeue
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.errors import WireFormatError
from taskq_core.wire import decode_message
from tests.conformance.stores import NOW_NS, NOW_S, Broker

LIMIT = 100
LARGE = b"x" * 2000


def go_enqueues(broker: Broker, task_id: str, message: bytes = LARGE, **fields: str) -> None:
    """Store a pending task as Go's client does, with further fields of taskq."""
    values: dict[Any, Any] = {"msg": message, "state": "pending", "pending_since": NOW_NS, **fields}
    broker.raw.hset(broker.queue.task(task_id), mapping=values)
    broker.raw.lpush(broker.queue.pending, task_id)


def in_quarantine(broker: Broker) -> dict[str, bytes]:
    """Return the messages of the tasks in quarantine by id."""
    ids = [each.decode() for each in broker.raw.zrange(broker.queue.quarantine, 0, -1)]
    return {each: broker.raw.hget(broker.queue.quarantined(each), "msg") for each in ids}


def take(broker: Broker, limit: int = 10) -> Any:
    return broker.at(NOW_NS, dequeue_op(broker.queue, owner="w1", call=2, limit=limit, lease_s=30, max_message=LIMIT))


def test_a_dequeue_moves_large_tasks_to_quarantine_and_hands_out_the_tasks_after_them(broker: Broker) -> None:
    for number in range(3):
        go_enqueues(broker, f"large{number}")
    broker.enqueue("small")

    taken = take(broker, limit=1)

    assert taken.tasks == [("small", b"small")]
    assert (taken.too_large, taken.dropped, taken.foreign_locks) == (3, 0, 0)
    assert in_quarantine(broker) == {f"large{number}": LARGE for number in range(3)}
    assert broker.fields("large0") == {}
    assert not broker.raw.exists(broker.queue.pending)


def test_a_message_of_exactly_the_limit_is_handed_out(broker: Broker) -> None:
    go_enqueues(broker, "a", b"x" * LIMIT)
    go_enqueues(broker, "b", b"x" * (LIMIT + 1))

    assert [task_id for task_id, _ in take(broker).tasks] == ["a"]


def test_a_large_task_releases_its_lock_and_its_waiting_client(broker: Broker) -> None:
    lock = broker.queue.unique("t", b"")
    broker.raw.set(lock, "a")
    go_enqueues(broker, "a", unique_key=lock, taskq_wait="1")

    assert take(broker).too_large == 1
    assert not broker.raw.exists(lock)


def test_settling_and_dequeuing_sets_large_tasks_aside_too(broker: Broker) -> None:
    broker.enqueue("done")
    assert broker.dequeue() == ["done"]
    go_enqueues(broker, "large")
    asked = dequeue_op(broker.queue, owner="w1", call=2, limit=1, lease_s=30, max_message=LIMIT)

    taken = broker.at(NOW_NS, settle_and_dequeue([("done", 1)], asked))

    assert taken is not None
    assert (taken.tasks, taken.too_large) == ([], 1)
    assert set(in_quarantine(broker)) == {"large"}


def test_a_quarantine_of_a_wrong_type_loses_neither_tasks_nor_bytes(broker: Broker) -> None:
    broker.raw.set(broker.queue.quarantine, "foreign")
    go_enqueues(broker, "large")
    broker.enqueue("small")

    assert [task_id for task_id, _ in take(broker).tasks] == ["small"]
    assert broker.fields("large")["msg"] == LARGE


def test_a_large_task_whose_go_worker_died_is_moved_to_quarantine(broker: Broker) -> None:
    broker.raw.hset(broker.queue.task("a"), mapping={"msg": LARGE, "state": "active"})
    broker.raw.lpush(broker.queue.active, "a")
    broker.raw.zadd(broker.queue.lease, {"a": NOW_S - 100})

    listed = broker.at(NOW_NS, services.list_expired(broker.queue, grace_s=30, max_message=LIMIT))
    (task,) = listed.tasks
    with pytest.raises(WireFormatError, match="2,000 bytes, more than 100"):
        decode_message(task.message)
    recovery = Recovery(task, Verdict.QUARANTINE)
    codes = broker.at(NOW_NS, services.recover(broker.queue, [recovery], grace_s=30, max_message=LIMIT))

    assert codes == "1"
    assert in_quarantine(broker) == {"a": LARGE}
    assert not broker.raw.exists(broker.queue.active, broker.queue.lease)


def test_expired_leases_are_listed_until_a_mebibyte_is_read(broker: Broker) -> None:
    for task_id in "abc":
        broker.raw.hset(broker.queue.task(task_id), mapping={"msg": b"x" * 600_000, "state": "active"})
        broker.raw.lpush(broker.queue.active, task_id)
        broker.raw.zadd(broker.queue.lease, {task_id: NOW_S - 100})

    listed = broker.at(NOW_NS, services.list_expired(broker.queue, grace_s=30))

    assert [task.task_id for task in listed.tasks] == ["a", "b"]
    assert listed.has_more


def test_large_members_of_a_group_are_not_read(broker: Broker) -> None:
    members = broker.queue.aggregation_set("g", "s")
    broker.raw.zadd(broker.queue.aggregation_sets, {members: NOW_S + 60})
    broker.raw.zadd(members, {"a": NOW_S})
    broker.raw.hset(broker.queue.task("a"), mapping={"msg": LARGE, "state": "aggregating", "group": "g"})

    found = broker.run(aggregation.read_members(broker.queue, "g", "s", skip=0, max_message=LIMIT))

    assert found == [("a", b"\x002000 100")]


@pytest.mark.parametrize("state", ["scheduled", "retry"])
def test_a_large_task_becomes_pending_when_it_is_due(broker: Broker, state: str) -> None:
    broker.raw.hset(broker.queue.task("a"), mapping={"msg": LARGE, "state": state})
    broker.raw.zadd(broker.queue.prefix + state, {"a": NOW_S - 1})

    broker.at(NOW_NS, services.forward(broker.queue, owner="w1", leader_ms=60_000))

    assert broker.pending() == ["a"]


def test_one_task_is_read_with_the_sizes_of_its_large_message_and_result(broker: Broker) -> None:
    go_enqueues(broker, "a", result="r" * 500)

    stored = broker.run(views.read_task(broker.queue, "a", max_message=LIMIT, max_result=LIMIT))

    assert stored is not None
    assert (stored.message, stored.result, stored.oversized) == (b"\x002000 100", b"", b"500 100 unread")
