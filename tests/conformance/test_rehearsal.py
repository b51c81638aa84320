"""Test the requests of `taskq_core.testing` on every store."""

from taskq_core.broker.operations import rehearsal
from taskq_core.broker.operations.runs import Outcome
from taskq_core.wire import TaskState
from tests.conformance.stores import NOW_S, Broker


def test_waiting_tasks_are_listed_by_time(broker: Broker) -> None:
    for name, start_s in (("c", 3), ("a", 1), ("b", 2)):
        broker.enqueue(name, start_at_s=NOW_S + start_s)
    key = rehearsal.waiting_key(broker.queue, TaskState.SCHEDULED)

    assert broker.run(rehearsal.list_waiting(key, 0, 1)) == [("a", NOW_S + 1), ("b", NOW_S + 2)]
    assert broker.run(rehearsal.list_waiting(key, -1, -1)) == [("c", NOW_S + 3)]
    assert broker.run(rehearsal.list_waiting(key, 3, 9)) == []


def test_a_scheduled_task_is_brought_forward(broker: Broker) -> None:
    broker.enqueue("a", start_at_s=NOW_S + 60)
    key = rehearsal.waiting_key(broker.queue, TaskState.SCHEDULED)

    assert broker.run(rehearsal.bring_forward(key, "a", by_s=50)) is True

    assert broker.raw.zscore(broker.queue.scheduled, "a") == NOW_S + 10


def test_a_retry_is_brought_forward(broker: Broker) -> None:
    broker.enqueue("a")
    broker.dequeue()
    broker.settle(Outcome.RETRY, "a")
    before = broker.raw.zscore(broker.queue.retry, "a")
    key = rehearsal.waiting_key(broker.queue, TaskState.RETRY)

    assert broker.run(rehearsal.bring_forward(key, "a", by_s=50)) is True

    assert broker.raw.zscore(broker.queue.retry, "a") == before - 50


def test_a_task_that_no_longer_waits_is_not_brought_forward(broker: Broker) -> None:
    """A task that was taken in between does not come back."""
    key = rehearsal.waiting_key(broker.queue, TaskState.SCHEDULED)

    assert broker.run(rehearsal.bring_forward(key, "a", by_s=50)) is False

    assert broker.raw.exists(broker.queue.scheduled) == 0


def test_members_of_a_group_are_listed_by_its_key(broker: Broker) -> None:
    assert rehearsal.waiting_key(broker.queue, TaskState.AGGREGATING, "news") == broker.queue.group("news")
