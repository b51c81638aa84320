"""Test that the tasks of one worker are listed and taken back, and that other tasks are not affected."""

from taskq_core.broker.operations import new_tasks, runs, services
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import Recovery, Verdict
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, Broker

SECOND = 1_000_000_000


def taken(broker: Broker, owner: str, *ids: str, now_ns: int = NOW_NS) -> None:
    """Let a worker take tasks."""
    broker.at(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask(each, b"m") for each in ids], ReceiptSlot(owner)))
    found = broker.at(now_ns, runs.dequeue(broker.queue, owner=owner, call=1, limit=500, lease_s=30))
    assert len(found.tasks) == len(ids)


def held(broker: Broker, owner: str) -> list[services.ExpiredTask]:
    """Return the tasks that a worker holds, from all pages."""
    found: dict[str, services.ExpiredTask] = {}
    cursor = ""
    while cursor != "0":
        page = broker.at(NOW_NS, services.list_held(broker.queue, owner=owner, cursor=cursor or "0"))
        cursor = page.cursor
        found |= {task.task_id: task for task in page.found.tasks}
    return [found[task_id] for task_id in sorted(found)]


def take_back(broker: Broker, owner: str, tasks: list[services.ExpiredTask]) -> str:
    recoveries = [Recovery(task, Verdict.RETRY, b"m2") for task in tasks]
    return broker.at(NOW_NS, services.recover(broker.queue, recoveries, grace_s=0, gone=owner))


def test_the_tasks_of_a_worker_are_listed_among_many_others(broker: Broker) -> None:
    """Other workers may hold so many tasks that the listing takes several calls."""
    taken(broker, "w1", *(f"a{number:03}" for number in range(450)))
    taken(broker, "w2", "b1", "b2")

    assert [(task.task_id, task.message, task.owner) for task in held(broker, "w2")] == [
        ("b1", b"m", "w2"),
        ("b2", b"m", "w2"),
    ]
    assert len(held(broker, "w1")) == 450
    assert held(broker, "w3") == []


def test_a_task_of_a_dead_worker_is_recovered_before_its_lease_ends(broker: Broker) -> None:
    taken(broker, "w1", "a", "b")
    taken(broker, "w2", "c")

    assert take_back(broker, "w1", held(broker, "w1")) == "11"

    assert held(broker, "w1") == []
    assert [task.task_id for task in held(broker, "w2")] == ["c"]
    assert broker.raw.zcard(broker.queue.retry) == 2


def test_tasks_settled_extended_or_taken_in_between_are_not_recovered(broker: Broker) -> None:
    """This holds even if another worker's lease ends in the same second."""
    queue, run = broker.queue, broker.run
    taken(broker, "w1", "settled", "extended", "taken")
    listed = held(broker, "w1")
    run(at_time(NOW_NS, runs.settle(queue, [Settlement("settled", Outcome.DONE, run=1)], owner="w1")))
    run(at_time(NOW_NS + 5 * SECOND, runs.extend_leases(queue, [("extended", 1)], owner="w1", lease_s=30)))
    run(at_time(NOW_NS, runs.settle(queue, [Settlement("taken", Outcome.REQUEUE, run=1)], owner="w1")))
    assert len(run(at_time(NOW_NS, runs.dequeue(queue, owner="w2", call=1, limit=1, lease_s=30))).tasks) == 1

    assert take_back(broker, "w1", listed) == "000"

    assert [task.task_id for task in held(broker, "w2")] == ["taken"]
    assert [task.task_id for task in held(broker, "w1")] == ["extended"]


def test_tasks_without_an_owner_are_not_recovered_for_a_named_worker(broker: Broker) -> None:
    taken(broker, "w1", "a")

    assert take_back(broker, "w2", held(broker, "w1")) == "0"
    assert [task.task_id for task in held(broker, "w1")] == ["a"]
