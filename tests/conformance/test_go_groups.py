"""Test grouped tasks on queues that Go serves too: Go's forwarder strands none of them.

Go's forwarder puts a due task whose hash has the field `group` into that group without listing the group, so Go's
aggregator does not see it. A task may have that field only while it waits in its group.
"""

from collections.abc import Callable

import pytest

from taskq_core.broker.operations import actions, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.runs import Outcome
from tests.conformance.stores import NOW_NS, NOW_S, Broker

SECOND = 1_000_000_000


def go_forwards(broker: Broker, at_s: int) -> None:
    """Take the documented steps of Go's forwarder for all due tasks."""
    queue, now_s = broker.queue, NOW_S + at_s
    for source in (queue.scheduled, queue.retry):
        for task_id in broker.raw.zrangebyscore(source, "-inf", now_s):
            key = queue.task(task_id.decode())
            group = broker.raw.hget(key, "group")
            if group:
                broker.raw.zadd(queue.group(group.decode()), {task_id: now_s})
                broker.raw.zrem(source, task_id)
                broker.raw.hset(key, "state", "aggregating")
            else:
                broker.raw.lpush(queue.pending, task_id)
                broker.raw.zrem(source, task_id)
                broker.raw.hset(key, mapping={"state": "pending", "pending_since": now_s * SECOND})


def we_forward(broker: Broker, at_s: int) -> None:
    broker.at(NOW_NS + at_s * SECOND, services.forward(broker.queue, owner="w1", leader_ms=60_000))


def act(broker: Broker, action: Action, start: str = "") -> None:
    assert broker.at(NOW_NS, actions.act(broker.queue, action, ["a"], start=start)) == [actions.OK]


def test_a_scheduled_member_of_a_group_runs_alone_after_gos_forwarder(broker: Broker) -> None:
    broker.enqueue("a", group="g", start_at_s=NOW_S + 5)

    go_forwards(broker, at_s=5)

    assert broker.pending() == ["a"]


def test_a_group_member_forwarded_by_go_stays_out_of_the_group_after_a_failure(broker: Broker) -> None:
    broker.enqueue("a", group="g", start_at_s=NOW_S + 5)
    go_forwards(broker, at_s=5)
    broker.dequeue()
    broker.settle(Outcome.RETRY, "a")

    we_forward(broker, at_s=60)

    assert broker.pending() == ["a"]


@pytest.mark.parametrize("forward", [go_forwards, we_forward], ids=["Go", "taskq"])
def test_a_manually_run_member_stays_out_of_its_group_after_a_failure(
    broker: Broker, forward: Callable[..., None]
) -> None:
    broker.enqueue("a", group="g")
    act(broker, Action.RUN)
    broker.dequeue()
    broker.settle(Outcome.RETRY, "a")

    forward(broker, at_s=60)

    assert broker.pending() == ["a"]


def test_a_rescheduled_member_runs_alone_with_gos_forwarder_and_rejoins_with_ours(broker: Broker) -> None:
    broker.enqueue("a", group="g")
    act(broker, Action.WAIT, start="+5000")
    broker.enqueue("b", group="g")
    answer = broker.at(NOW_NS, actions.change_task(broker.queue, "b", start="+15000"))
    assert answer == actions.OK

    go_forwards(broker, at_s=6)
    we_forward(broker, at_s=16)

    assert broker.pending() == ["a"]
    assert broker.raw.zrange(broker.queue.group("g"), 0, -1) == [b"b"]
    assert broker.raw.smembers(broker.queue.groups) == {b"g"}
    assert broker.fields("b") == {"msg": b"b", "state": b"aggregating", "group": b"g"}


@pytest.mark.parametrize("forward", [go_forwards, we_forward], ids=["Go", "taskq"])
def test_a_manually_archived_member_runs_alone_after_a_reschedule(broker: Broker, forward: Callable[..., None]) -> None:
    broker.enqueue("a", group="g")
    act(broker, Action.ARCHIVE)
    act(broker, Action.WAIT, start="+5000")

    forward(broker, at_s=6)

    assert broker.pending() == ["a"]
