"""Test priority inside a queue: the list of pending tasks is in the order in which every worker takes them."""

import itertools
import random

from taskq_core.broker.operations import actions, new_tasks, runs, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.wire import priority_mark
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker

MINUTE_NS = 61_000_000_000


def task(name: str, band: int, retry_band: int | None = None, **more: object) -> NewTask:
    return NewTask(name, b"m", marks=priority_mark(band, band if retry_band is None else retry_band), **more)  # type: ignore[arg-type]


def enqueue(broker: Broker, *tasks: NewTask, now_ns: int = NOW_NS) -> str:
    return broker.at(now_ns, new_tasks.enqueue(broker.queue, tasks, ReceiptSlot(random.randbytes(4).hex())))


CALLS = itertools.count(1)


def take(broker: Broker, count: int, now_ns: int = NOW_NS) -> list[str]:
    return broker.dequeue(call=next(CALLS), limit=count, now_ns=now_ns)


def order(broker: Broker) -> list[str]:
    """Ids in the order in which RPOP gives them, as Go's workers take them."""
    return [each.decode() for each in reversed(broker.raw.lrange(broker.queue.pending, 0, -1))]


def test_higher_bands_run_first_and_in_order_within_a_band(broker: Broker) -> None:
    """Tasks are enqueued alone, in one call, and between tasks without priority."""
    enqueue(broker, task("p1", 0), task("a5", 5))
    enqueue(broker, task("p2", 0))
    enqueue(broker, task("b9", 9), task("c1", 1), task("p3", 0), task("d5", 5))
    enqueue(broker, task("e5", 5), task("f9", 9))

    assert order(broker) == ["b9", "f9", "a5", "d5", "e5", "c1", "p1", "p2", "p3"]
    assert broker.raw.llen(broker.queue.pending) == 9  # the count that asynqmon shows
    assert take(broker, 4) == ["b9", "f9", "a5", "d5"]

    enqueue(broker, task("g5", 5), task("h9", 9))

    assert order(broker) == ["h9", "e5", "g5", "c1", "p1", "p2", "p3"]


def test_tasks_without_priority_need_no_additional_key(broker: Broker) -> None:
    """No key is written or read for them."""
    enqueue(broker, task("a", 0), task("b", 0))

    assert broker.raw.keys("taskq:*urgent") == []


def test_clients_without_priorities_lose_no_tasks(broker: Broker) -> None:
    """Go's RPOP, a deletion, or a flush of the band names may change the order but loses no task."""
    enqueue(broker, *(task(f"u{number}", 5) for number in range(5)), task("p", 0))
    broker.raw.rpop(broker.queue.pending)
    broker.raw.hset(broker.queue.task("u0"), "state", "active")
    broker.at(NOW_NS, actions.act(broker.queue, Action.DELETE, ("u4",)))

    enqueue(broker, task("next", 5))

    assert order(broker) == ["u1", "u2", "u3", "next", "p"]

    broker.raw.delete(broker.queue.urgent)
    enqueue(broker, task("last", 5))

    assert sorted(order(broker)) == ["last", "next", "p", "u1", "u2", "u3"]


def test_a_reused_id_does_not_keep_its_old_band(broker: Broker) -> None:
    """A task without priority whose id was urgent before does not delay urgent tasks."""
    enqueue(broker, task("same", 5))
    take(broker, 1)
    broker.settle(runs.Outcome.DONE, "same")
    enqueue(broker, task("p", 0), task("same", 0))

    enqueue(broker, task("u", 5))

    assert order(broker) == ["u", "p", "same"]


def test_tasks_are_stored_when_the_priority_key_has_another_type(broker: Broker) -> None:
    """Tasks are stored without order, and the doctor's repair handles the key."""
    broker.raw.set(broker.queue.urgent, "strange")

    assert enqueue(broker, task("p", 0), task("u", 5)) == "11"

    assert order(broker) == ["p", "u"]
    assert broker.raw.get(broker.queue.urgent) == b"strange"


def test_due_tasks_and_retries_enter_their_band(broker: Broker) -> None:
    """Scheduled tasks enter their band, and retries that of `retry_priority`, before tasks without priority."""
    enqueue(broker, task("s5", 5, start_in_ms=1_000), task("s0", 0, start_in_ms=1_000), task("r", 0, 7))
    take(broker, 1)
    broker.settle(runs.Outcome.RETRY, "r", delay_ms=0)
    enqueue(broker, task("p", 0))

    forward = at_time((NOW_S + 5) * 1_000_000_000, services.forward(broker.queue, owner="w", leader_ms=60_000))
    broker.run(forward)

    assert order(broker) == ["r", "s5", "p", "s0"]


def test_manually_run_and_moved_tasks_enter_their_band(broker: Broker) -> None:
    """`run` puts a task in its band and not at the end of the queue."""
    enqueue(broker, task("p", 0), task("u", 5), task("later", 6, start_in_ms=60_000))

    broker.at(NOW_NS, actions.act(broker.queue, Action.RUN, ("later",)))

    assert order(broker) == ["later", "u", "p"]


def test_low_bands_do_not_starve(broker: Broker) -> None:
    """After a minute of waiting, old tasks and urgent tasks alternate."""
    enqueue(broker, *(task(f"p{number}", 0) for number in range(4)))
    later_ns = NOW_NS + MINUTE_NS
    taken = []
    for number in range(6):
        enqueue(broker, task(f"u{number}", 9), now_ns=later_ns)
        taken += take(broker, 1, later_ns)
    taken += order(broker)

    assert sorted(taken) == sorted([f"p{n}" for n in range(4)] + [f"u{n}" for n in range(6)])
    assert [each for each in taken if each[0] == "p"] == ["p0", "p1", "p2", "p3"]
    assert [each for each in taken if each[0] == "u"] == [f"u{n}" for n in range(6)]
    assert taken.index("p3") < 9, "old ones were overtaken by all"
    assert taken[:2] == ["p0", "u0"]


def test_urgent_tasks_over_the_maximum_are_added_at_the_end(one_server: Broker) -> None:
    """After 10,000 urgent tasks further ones are added at the end. None is lost, and deep positions are found."""
    for start in range(0, 10_000, 200):
        enqueue(one_server, *(task(f"u{start + number}", 5) for number in range(200)))
    enqueue(one_server, *(task(f"p{number}", 0) for number in range(100)))

    enqueue(one_server, task("too many", 5))

    assert order(one_server)[-1] == "too many"

    take(one_server, 100)
    enqueue(one_server, task("deep", 5))
    enqueue(one_server, *(task(f"wide{number}", 5) for number in range(50)))

    found = order(one_server)
    assert len(found) == 10_000 - 100 + 100 + 1 + 51
    assert found[9_900 : 9_900 + 51] == ["deep", *(f"wide{number}" for number in range(50))]
    assert found[9_951] == "p0"
