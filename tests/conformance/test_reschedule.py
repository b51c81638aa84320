"""Test that a task is rescheduled in one step, with or without a new message, and that a cancel is recorded."""

import pytest

from taskq_core.broker.operations import actions, new_tasks, runs, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.services import CancelOutcome
from tests.conformance.stores import NOW_NS, NOW_S, Broker

LANE = ReceiptSlot("r")


def reschedule(broker: Broker, task_id: str, **more: object) -> str:
    more.setdefault("start", f"={NOW_S + 100}")
    return broker.at(NOW_NS, actions.change_task(broker.queue, task_id, **more))  # type: ignore[arg-type]


def test_a_repeated_reschedule_changes_nothing(broker: Broker) -> None:
    """A lost answer leaves one task, at one time, with the new message."""
    broker.enqueue("a")
    words = {"old": b"a", "new": b"b"}

    assert [reschedule(broker, "a", **words) for _ in range(2)] == ["ok", "ok"]

    assert broker.pending() == []
    assert broker.raw.zrange(broker.queue.scheduled, 0, -1, withscores=True) == [(b"a", NOW_S + 100)]
    assert broker.fields("a") == {"msg": b"b", "state": b"scheduled"}


def test_a_concurrently_changed_task_is_not_rescheduled(broker: Broker) -> None:
    """Two callers change the task at once. The second gets an error, and its change is not written."""
    broker.enqueue("a")
    before = broker.dump()

    assert reschedule(broker, "a", old=b"not it", new=b"b") == "changed"

    assert broker.dump() == before


def test_a_lock_of_another_task_is_not_taken(broker: Broker) -> None:
    key = broker.queue.unique_prefix
    tasks = [NewTask(name, b"m", unique_key=key + name, unique_s=60) for name in ("a", "b")]
    broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, LANE))
    before = broker.dump()

    assert reschedule(broker, "a", old=b"m", new=b"n", old_lock=key + "a", new_lock=key + "b") == "duplicate"

    assert broker.dump() == before

    assert reschedule(broker, "a", old=b"m", new=b"n", old_lock=key + "a", new_lock=key + "c") == "ok"
    assert broker.raw.get(key + "c") == b"a"
    assert broker.raw.get(key + "a") is None
    assert broker.fields("a")["unique_key"] == (key + "c").encode()


@pytest.mark.parametrize("state", ["active", "completed"])
def test_tasks_in_other_states_are_not_rescheduled(broker: Broker, state: str) -> None:
    broker.enqueue("a")
    broker.dequeue()
    if state == "completed":
        broker.settle(runs.Outcome.COMPLETE, "a", seconds=60)
    before = broker.dump()

    assert reschedule(broker, "a") == state
    assert reschedule(broker, "gone") == ""

    assert broker.dump() == before


def test_archived_retried_and_grouped_tasks_are_rescheduled(broker: Broker) -> None:
    """Archived tasks wait for a retry. Grouped tasks are scheduled and return to their group."""
    broker.enqueue("archived")
    broker.at(NOW_NS, actions.act(broker.queue, Action.ARCHIVE, ("archived",)))
    broker.enqueue("member", group="g")

    assert reschedule(broker, "archived") == reschedule(broker, "archived", start=f"={NOW_S + 5}") == "ok"
    assert reschedule(broker, "member") == "ok"

    assert broker.raw.zrange(broker.queue.retry, 0, -1, withscores=True) == [(b"archived", NOW_S + 5)]
    assert broker.raw.zrange(broker.queue.scheduled, 0, -1) == [b"member"]
    assert broker.raw.exists(broker.queue.groups) == 0


def test_a_cancel_request_applies_only_to_its_run(broker: Broker) -> None:
    """The request does not apply to the next run, even if a worker in Go ended the run without deleting it."""
    broker.enqueue("a")
    assert broker.run(services.ask_cancel(broker.queue, "c", "a", CancelOutcome.RETRY)) == ("pending", 0)
    broker.dequeue(call=1)

    assert broker.run(services.ask_cancel(broker.queue, "c", "a", CancelOutcome.RETRY)) == ("active", 0)
    assert broker.run(services.read_cancel(broker.queue, "a")) is CancelOutcome.RETRY
    assert broker.run(services.ask_cancel(broker.queue, "c", "gone", CancelOutcome.RETRY)) == (None, 0)

    broker.raw.hset(broker.queue.task("a"), "taskq_started", "1")

    assert broker.run(services.read_cancel(broker.queue, "a")) is CancelOutcome.ARCHIVE
    assert broker.run(services.read_cancel(broker.queue, "gone")) is CancelOutcome.ARCHIVE
