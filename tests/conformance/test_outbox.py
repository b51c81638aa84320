"""Test delivery from an outbox on every store: each row is delivered once, whichever process sends it."""

import pytest

from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations import outbox, runs, workflows
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.workflows import WorkflowPart
from taskq_core.errors import BrokerReplyError
from taskq_core.wire.tokens import new_token
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, Broker

NOW_MS = NOW_NS // 1_000_000
CLAIM_ENDS_MS = NOW_MS + 30_000


def deliver(broker: Broker, *rows: tuple[str, NewTask], ends_ms: int = CLAIM_ENDS_MS, now_ns: int = NOW_NS) -> str:
    """Deliver rows as another sender each time."""
    lane = ReceiptSlot(new_token())
    return broker.at(now_ns, outbox.deliver(broker.queue, rows, lane, claim_ends_ms=ends_ms))


def plain(task_id: str) -> tuple[str, NewTask]:
    return f"row-{task_id}", NewTask(task_id, b"m")


def test_rows_are_stored_in_order(broker: Broker) -> None:
    assert deliver(broker, plain("a"), plain("b")) == "11"

    assert broker.pending() == ["a", "b"]
    assert broker.raw.llen(broker.queue.wake) == 1


def test_a_second_delivery_stores_nothing(broker: Broker) -> None:
    """This holds even if the task has run and is deleted: the receipt stays until its row is deleted."""
    deliver(broker, plain("a"))
    assert broker.dequeue(limit=1) == ["a"]
    broker.run(runs.settle_done(broker.queue, [("a", 1)], owner="w1"))

    assert deliver(broker, plain("a"), plain("b")) == "s1"

    assert broker.pending() == ["b"]


def test_a_returned_receipt_is_deleted(broker: Broker) -> None:
    deliver(broker, plain("a"), plain("b"))

    broker.run(outbox.forget_deliveries(broker.queue, ["row-a", "row-b", "never"]))

    assert not broker.raw.exists(broker.queue.delivered)


@pytest.mark.parametrize("later_call", [False, True])
def test_a_delayed_duplicate_changes_nothing_after_its_receipts_were_returned(
    broker: Broker, *, later_call: bool
) -> None:
    lane = ReceiptSlot("relay")
    delayed = at_time(NOW_NS, outbox.deliver(broker.queue, [plain("a")], lane, claim_ends_ms=CLAIM_ENDS_MS))
    broker.run(delayed)
    broker.dequeue(limit=1)
    broker.run(runs.settle_done(broker.queue, [("a", 1)], owner="w1"))
    broker.run(outbox.forget_deliveries(broker.queue, ["row-a"]))
    if later_call:
        broker.at(NOW_NS, outbox.deliver(broker.queue, [plain("b")], lane, claim_ends_ms=CLAIM_ENDS_MS))
    before = broker.dump()

    if later_call:
        with pytest.raises(BrokerReplyError, match="call 1 came after call 2"):
            broker.run(delayed)
    else:
        assert broker.run(delayed) == "1"

    assert broker.dump() == before


def test_a_delivery_after_the_end_of_its_claim_stores_nothing(broker: Broker) -> None:
    before = broker.dump()

    assert deliver(broker, plain("a"), plain("b"), ends_ms=NOW_MS) == "ll"

    assert broker.dump() == before


def test_a_workflow_starts_when_all_its_parts_are_delivered(broker: Broker) -> None:
    """The parts may arrive in any order and several times. A delivery after its deadline stores nothing."""
    message = b"a t - default\nH1:mT0:"
    whole = [
        ("", "state", "building"),
        ("", "queue", "default"),
        ("", "prefix", broker.queue.prefix),
        ("", "kept_s", 60),
        ("", "open", 1),
        ("", "s0", "w"),
        ("", "gt0", 1),
        ("", "held", "0"),
        (":h0", "0", message),
    ]
    parts = [WorkflowPart(3, [0], whole[start : start + 3]).pack() for start in (0, 3, 6)]

    def send(number: int, ends_ms: int = CLAIM_ENDS_MS) -> str:
        operation = at_time(
            NOW_NS,
            workflows.deliver_workflow(
                broker.queue,
                f"row-{number}",
                "w",
                parts[number],
                ReceiptSlot(new_token()),
                claim_ends_ms=ends_ms,
            ),
        )
        return broker.run(operation)

    assert send(2, ends_ms=NOW_MS) == "l"
    assert not broker.raw.exists(broker.queue.workflow("w"), broker.queue.delivered)
    assert [send(number) for number in (2, 2, 0, 2, 0)] == ["1", "s", "1", "s", "s"]
    assert broker.pending() == []
    assert broker.run(workflows.read_workflow(broker.queue, "w", ["queue"])) is None
    assert 0 < broker.raw.ttl(broker.queue.workflow("w")) <= outbox.DELIVERED_KEPT_S

    assert [send(number) for number in (1, 1)] == ["1", "s"]

    assert broker.pending() == ["a"]
    assert broker.run(workflows.read_workflow(broker.queue, "w", ["state"])) == [b"running"]
    assert broker.raw.ttl(broker.queue.workflow("w")) == -1
    assert broker.dequeue(limit=1) == ["a"]
    broker.run(runs.settle_done(broker.queue, [("a", 1)], owner="w1"))
    assert broker.run(workflows.read_workflow(broker.queue, "w", ["state"])) == [b"failed"], "its task was dropped"
    assert [send(number) for number in range(3)] == ["s"] * 3
    assert broker.pending() == []


def test_a_late_creation_does_not_restart_a_workflow_that_has_ended(broker: Broker) -> None:
    """The network delayed the first request. The repeat succeeded, and its workflow has ended and expired."""
    entries = [
        ("", "state", "building"),
        ("", "queue", "default"),
        ("", "prefix", broker.queue.prefix),
        ("", "kept_s", 0),
        ("", "open", 1),
        ("", "s0", "w"),
        ("", "gt0", 1),
        ("", "held", "0"),
        (":h0", "0", b"a t - default\nH1:mT0:"),
    ]
    held = at_time(NOW_NS, workflows.create_workflow(broker.queue, "w", entries, ReceiptSlot("t"), roots=[0]))
    assert broker.run(held)
    assert broker.dequeue(limit=1) == ["a"]
    broker.run(runs.settle_done(broker.queue, [("a", 1)], owner="w1"))
    for key in broker.raw.scan_iter(broker.queue.workflow("w") + "*", count=1000):
        broker.raw.delete(key)

    assert broker.run(held)

    assert broker.pending() == []
    assert not broker.raw.exists(broker.queue.workflow("w"))


def test_the_largest_batch_is_stored_completely(broker: Broker) -> None:
    rows = [plain(f"id-{number}") for number in range(operation_ops.BATCH_MAX)]

    assert deliver(broker, *rows) == "1" * len(rows)

    assert broker.raw.llen(broker.queue.pending) == len(rows)


def test_a_full_queue_accepts_the_rows_it_has_room_for(broker: Broker) -> None:
    broker.enqueue("first")
    rows = [plain("a"), plain("b"), ("later", NewTask("later", b"m", start_in_ms=60_000))]
    lane = ReceiptSlot("r")
    operation = at_time(NOW_NS, outbox.deliver(broker.queue, rows, lane, claim_ends_ms=CLAIM_ENDS_MS, max_pending=2))

    assert broker.run(operation) == "1f1"

    assert broker.pending() == ["first", "a"]
    assert sorted(broker.raw.zrange(broker.queue.delivered, 0, -1)) == [b"later", b"row-a"]
