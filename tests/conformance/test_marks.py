"""Test the times that taskq adds to Asynq's task fields, measured by Redis's clock."""

import pytest

from taskq_core.broker.operations import new_tasks, outbox
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.wire import Expiry, build_message, decode_message, encode_message, expiry_mark
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, Broker

NOW_S = NOW_NS // 1_000_000_000


def new_task(name: str, expiry: Expiry, *, timeout_s: int = 30, deadline: int = 0, **start: int) -> NewTask:
    message = build_message(
        type="t",
        id=name,
        queue="q",
        payload=b"p" * 200,
        timeout=timeout_s,
        deadline=deadline,
        headers={"taskq-expires": str(expiry), "own": "x"},
    )
    marks = expiry_mark(expiry, timeout_s=0 if deadline else timeout_s)
    return NewTask(name, encode_message(message), marks=marks, **start)


@pytest.mark.parametrize("is_discarded", [False, True])
def test_a_relative_expiry_becomes_a_time_of_rediss_clock(broker: Broker, is_discarded: bool) -> None:
    """The time is rounded up, the deadline for Go follows it, and the rest of the message is unchanged."""
    tasks = [
        new_task("now", Expiry(60, True, is_discarded)),
        new_task("later", Expiry(60, True, is_discarded), start_in_ms=100_000),
        new_task("at", Expiry(60, True, is_discarded), start_at_s=NOW_S + 1000),
        new_task("bounded", Expiry(60, True, is_discarded), deadline=NOW_S + 5),
    ]

    assert broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, ReceiptSlot("t"))) == "1111"

    word = " discard" if is_discarded else ""
    for name, base, deadline in (("now", 1, None), ("later", 101, None), ("at", 1000, None), ("bounded", 1, 5)):
        message = decode_message(broker.raw.hget(broker.queue.task(name), "msg"))
        expires_s = NOW_S + base + 60
        assert dict(message.headers) == {"taskq-expires": f"{expires_s}{word}", "own": "x"}
        assert message.deadline == (expires_s + 30 if deadline is None else NOW_S + deadline)
        assert message.payload == b"p" * 200


def test_an_outbox_and_a_schedule_convert_relative_expiries_too(broker: Broker) -> None:
    """Each way to store a task converts the expiry."""
    task = new_task("a", Expiry(60, True))
    rows = [("row", task)]
    operation = at_time(NOW_NS, outbox.deliver(broker.queue, rows, ReceiptSlot("r"), claim_ends_ms=(NOW_S + 1) * 1000))

    assert broker.run(operation) == "1"

    message = decode_message(broker.raw.hget(broker.queue.task("a"), "msg"))
    assert message.headers["taskq-expires"] == str(NOW_S + 61)
