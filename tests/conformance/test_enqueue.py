"""Test enqueues on every store: codes, receipts, locks, start times, wake tokens."""

import json
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.broker.exchange import words_of
from taskq_core.broker.operations import new_tasks, runs, services
from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.runs import Outcome
from taskq_core.errors import BrokerReplyError, BrokerUnavailableError
from taskq_core.wire import Keys, parse_duration
from taskq_core.wire.tokens import new_token
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

UNIQUE_TIMES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "keys.json").read_text(encoding="utf-8")
)["unique_ttl"]


def test_the_largest_batch_is_stored_whole(broker: Broker) -> None:
    ids = [f"id-{number}" for number in range(operation_ops.BATCH_MAX + 50)]

    assert broker.enqueue(*ids) == "1" * len(ids)

    assert broker.pending() == ids


def test_a_large_message_is_stored_unchanged(broker: Broker) -> None:
    message = bytes(range(256)) * 1024
    broker.at(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask("big", message)], ReceiptSlot("t")))

    taken = broker.at(NOW_NS, runs.dequeue(broker.queue, owner="w1", call=1, limit=1, lease_s=30))

    assert taken.tasks == [("big", message)]


class TestReceipts:
    def test_a_repeat_stores_nothing_and_returns_the_first_reply(self, broker: Broker) -> None:
        broker.enqueue("taken")
        operation = new_tasks.enqueue(broker.queue, [NewTask("a", b"m"), NewTask("taken", b"m")], ReceiptSlot("t"))
        first = broker.run(operation)
        before = broker.dump()

        again = broker.run(operation)

        assert (first, again) == ("10", "10")
        assert broker.dump() == before

    def test_a_repeat_is_recognized_after_the_task_has_ended(self, broker: Broker) -> None:
        operation = at_time(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask("a", b"m")], ReceiptSlot("t")))
        broker.run(operation)
        broker.dequeue()
        broker.settle(Outcome.DONE, "a")

        assert broker.run(operation) == "1"

        assert broker.pending() == []
        assert broker.fields("a") == {}

    def test_the_next_call_of_a_receipt_slot_is_not_a_repeat(self, broker: Broker) -> None:
        lane = ReceiptSlot("t")

        codes = [broker.run(new_tasks.enqueue(broker.queue, [NewTask(name, b"m")], lane)) for name in ("a", "b", "b")]

        assert codes == ["1", "1", "0"]

    def test_a_call_that_arrives_after_a_later_one_is_refused(self, broker: Broker) -> None:
        """The network delayed the call until its repeat had succeeded, its task had run, and a newer call was made."""
        lane = ReceiptSlot("t")
        held = at_time(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask("a", b"m")], lane))
        broker.run(held)
        broker.dequeue()
        broker.settle(Outcome.DONE, "a")
        broker.at(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask("b", b"m")], lane))
        before = broker.dump()

        with pytest.raises(BrokerReplyError, match="call 1 came after call 2"):
            broker.run(held)

        assert broker.dump() == before

    @pytest.mark.parametrize("left_ms", [-1, 110_001])
    def test_a_call_after_its_deadline_is_refused(self, broker: Broker, left_ms: int) -> None:
        """A call with a deadline too far in the future is refused too, because its clock estimate is wrong."""
        held = at_time(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask("a", b"m")], ReceiptSlot("t")))
        held.args = [*held.args[:2], NOW_NS // 1_000_000 + left_ms, *held.args[3:]]

        with pytest.raises(BrokerUnavailableError, match="deadline by its clock has passed"):
            broker.run(held)

        assert broker.dump() == {}

    def test_a_receipt_expires(self, broker: Broker) -> None:
        broker.run(new_tasks.enqueue(broker.queue, [NewTask("a", b"m")], ReceiptSlot("t")))

        assert 0 < broker.raw.ttl(broker.queue.receipt("t")) <= operation_ops.RECEIPT_KEPT_S


class TestStart:
    @rows(
        ("start", "second"),
        [
            ({"start_at_s": NOW_S + 1}, NOW_S + 1),
            ({"start_in_ms": 1}, NOW_S + 1),
            ({"start_in_ms": 876}, NOW_S + 1),
            ({"start_in_ms": 877}, NOW_S + 1),
            ({"start_in_ms": 878}, NOW_S + 2),
            ({"start_in_ms": 60_000}, NOW_S + 61),
            ({"start_at_s": 253_402_300_799}, 253_402_300_799),
        ],
    )
    def test_a_task_with_a_future_start_is_scheduled_and_never_early(
        self, broker: Broker, start: dict[str, int], second: int
    ) -> None:
        """The clock is at .123 s of its second. A start time is rounded up to the next whole second."""
        broker.enqueue("a", **start)

        assert broker.raw.zscore(broker.queue.scheduled, "a") == second
        assert broker.fields("a") == {"msg": b"a", "state": b"scheduled"}
        assert broker.pending() == []


class TestUnique:
    def test_a_task_with_a_used_id_takes_no_unique_lock(self, broker: Broker) -> None:
        lock = broker.queue.unique("t", b"")
        broker.enqueue("a")

        assert broker.enqueue("a", unique_key=lock, unique_s=60) == "0"

        assert not broker.raw.exists(lock)

    @rows("seconds", [0, -1, 10**19])
    def test_an_invalid_time_leaves_no_partial_task(self, broker: Broker, seconds: int) -> None:
        """Clients refuse such times, but the script must not stop in the middle of a batch either."""
        lock = broker.queue.unique("t", b"")

        assert broker.enqueue("a", unique_key=lock, unique_s=seconds) == "1"

        assert broker.pending() == ["a"]

    @rows("row", UNIQUE_TIMES, ids=lambda row: f"{row['operation']} {row['option']}")
    def test_a_unique_lock_lasts_as_long_as_that_of_gos_client(self, one_server: Broker, row: dict[str, Any]) -> None:
        """The time is cut to whole seconds and counts from the start. Values that Go refuses are refused, except 0."""
        app = TaskQ(one_server.raw, enqueue_timeout=30)
        waits_s = parse_duration(row["process_in"]) / 1e9 if "process_in" in row else None
        options: dict[str, Any] = {"unique_for": timedelta(microseconds=row["option_ns"] / 1e3), "run_after": waits_s}
        began = time.monotonic()

        is_refused = row["error"] is not None and row["option_ns"] != 0
        with pytest.raises(ConfigurationError, match="unique_for must be") if is_refused else nullcontext():
            app.remote("t:u", **options).delay(b"p")
        app.close()

        left_ms, passed_ms = one_server.raw.pttl(row["key"]), (time.monotonic() - began) * 1000
        if row["error"] is not None:
            assert not [key for key in one_server.raw.keys("*") if b":unique:" in key]
        else:
            # Go's is mostly a second less with a start time, since it asks for the time twice.
            assert row["ttl_s"] * 1000 - 2000 - passed_ms < left_ms <= (row["ttl_s"] + (waits_s is not None)) * 1000


class TestWake:
    def test_many_tasks_put_one_wake_token(self, broker: Broker) -> None:
        broker.enqueue("a", "b")
        broker.enqueue("c")

        assert broker.raw.llen(broker.queue.wake) == 1

    def test_a_wake_token_is_passed_on_while_tasks_remain(self, broker: Broker) -> None:
        broker.enqueue("a", "b")
        waiting = services.wait_for_wake([broker.queue.wake], timeout_s=0.01)
        assert broker.run(waiting) == broker.queue.wake

        broker.dequeue(limit=1)
        assert broker.run(waiting) == broker.queue.wake
        broker.dequeue(limit=1, call=2)

        assert broker.run(waiting) is None

    def test_notify_puts_a_token_for_tasks_without_one(self, broker: Broker) -> None:
        assert broker.run(services.notify(broker.queue)) is services.Notified.NOTHING
        broker.raw.lpush(broker.queue.pending, "from-go")

        assert broker.run(services.notify(broker.queue)) is services.Notified.PUT
        assert broker.run(services.notify(broker.queue)) is services.Notified.EXISTS

        assert broker.raw.llen(broker.queue.wake) == 1

    def test_notify_puts_no_token_for_a_paused_queue(self, broker: Broker) -> None:
        broker.raw.lpush(broker.queue.pending, "from-go")
        broker.raw.set(broker.queue.paused, "1")

        assert broker.run(services.notify(broker.queue)) is services.Notified.HELD
        assert broker.raw.llen(broker.queue.wake) == 0

        broker.raw.delete(broker.queue.paused)
        assert broker.run(services.notify(broker.queue)) is services.Notified.PUT

    def test_notify_puts_no_token_for_a_queue_at_its_limit(self, broker: Broker) -> None:
        """A limit set by an operator takes precedence, as in a dequeue."""
        broker.raw.lpush(broker.queue.pending, "from-go")
        broker.raw.lpush(broker.queue.active, "a", "b")

        assert broker.run(services.notify(broker.queue, max_active=2)) is services.Notified.HELD
        broker.raw.hset(broker.queue.limits, "o:c:", 1)
        assert broker.run(services.notify(broker.queue, max_active=3)) is services.Notified.HELD
        assert broker.raw.llen(broker.queue.wake) == 0

        broker.raw.hset(broker.queue.limits, "o:c:", 3)
        assert broker.run(services.notify(broker.queue, max_active=2)) is services.Notified.PUT

    def test_watching_a_queue_changes_nothing(self, broker: Broker) -> None:
        watching = services.watch_pending(broker.queue, timeout_s=0.01)
        assert broker.run(watching) is False
        broker.enqueue("a", "b", "c")
        before = broker.dump()

        assert broker.run(watching) is True

        assert broker.dump() == before


class TestLimit:
    """At most so many pending tasks, where an enqueue says so."""

    def enqueue(self, broker: Broker, *tasks: NewTask, most: int, lane: ReceiptSlot | None = None) -> new_tasks.Codes:
        lane = lane or ReceiptSlot(new_token())
        return broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, lane, max_pending=most))

    def test_as_many_tasks_are_stored_as_the_limit_allows(self, broker: Broker) -> None:
        """They are stored in order, and each other task is refused with its own code."""
        broker.enqueue("a")

        answer = self.enqueue(broker, *[NewTask(name, b"m") for name in ("b", "c", "d", "e")], most=3)

        assert (answer, answer.pending, answer.limit) == ("11ff", 3, 3)
        assert broker.pending() == ["a", "b", "c"]
        assert broker.fields("d") == {}

    @pytest.mark.parametrize("lock", ["", "unique"], ids=["plain", "with a lock"])
    def test_a_refused_call_writes_only_its_receipt(self, broker: Broker, lock: str) -> None:
        """No task or lock is written, even if more tasks are pending than the limit allows."""
        broker.enqueue("a", "b")
        before = broker.dump()
        key = broker.queue.unique_prefix + lock if lock else ""

        answer = self.enqueue(broker, NewTask("c", b"m", unique_key=key, unique_s=60), most=1, lane=ReceiptSlot("t"))

        assert (answer, answer.pending, answer.limit) == ("f", 2, 1)
        after = broker.dump()
        assert after.pop(broker.queue.receipt("t").encode()) == ("string", b"1:f:2")
        assert after == before

    def test_scheduled_and_grouped_tasks_do_not_count_for_the_limit(self, broker: Broker) -> None:
        """Scheduled and grouped tasks are accepted and leave the room to the other tasks of the batch."""
        later = NewTask("later", b"m", start_at_s=NOW_S + 60)
        grouped = NewTask("grouped", b"m", group="g")

        answer = self.enqueue(broker, later, grouped, NewTask("a", b"m"), NewTask("b", b"m"), most=1)

        assert answer == "111f"
        assert broker.pending() == ["a"]

    def test_a_used_id_or_lock_is_reported_before_a_full_queue(self, broker: Broker) -> None:
        """A repeated enqueue after a lost reply then reports that the task exists."""
        lock = broker.queue.unique_prefix + "x"
        broker.enqueue("a", unique_key=lock, unique_s=60)

        answer = self.enqueue(broker, NewTask("a", b"m"), most=1)
        locked = self.enqueue(broker, NewTask("b", b"m", unique_key=lock, unique_s=60), most=1)

        assert (answer, locked) == ("0", "d")

    def test_a_repeat_of_an_accepted_call_is_accepted_although_the_queue_is_full(self, broker: Broker) -> None:
        operation = at_time(
            NOW_NS,
            new_tasks.enqueue(broker.queue, [NewTask("a", b"m"), NewTask("b", b"m")], ReceiptSlot("t"), max_pending=1),
        )
        first = broker.run(operation)
        broker.enqueue("other")
        before = broker.dump()

        again = broker.run(operation)

        assert [(each, each.pending, each.limit) for each in (first, again)] == [("1f", 1, 1)] * 2
        assert broker.dump() == before

    def test_a_repeat_of_a_refused_call_is_refused_as_well(self, broker: Broker) -> None:
        """The caller knows that the task is not stored, so a delayed duplicate must not store it later."""
        broker.enqueue("a")
        lane = ReceiptSlot("t")
        operation = at_time(NOW_NS, new_tasks.enqueue(broker.queue, [NewTask("b", b"m")], lane, max_pending=1))
        refused = broker.run(operation)
        broker.dequeue()

        again = broker.run(operation)
        next_call = self.enqueue(broker, NewTask("b", b"m"), most=1, lane=lane)

        assert (refused, again, next_call) == ("f", "f", "1")
        assert broker.pending() == ["b"]

    def test_a_full_queue_accepts_returning_and_due_tasks(self, broker: Broker) -> None:
        """Forwarding, requeueing and recovery ignore the limit."""
        broker.enqueue("later", start_at_s=NOW_S + 1)
        broker.enqueue("requeued", "lost", "full")
        broker.dequeue(limit=2)
        assert self.enqueue(broker, NewTask("x", b"m"), most=1) == "f"

        broker.settle(Outcome.REQUEUE, "requeued")
        late_ns = NOW_NS + 3600 * 10**9
        broker.at(late_ns, services.forward(broker.queue, owner="w1", leader_ms=1000))

        assert sorted(broker.pending()) == ["full", "later", "requeued"]

    def test_without_a_limit_no_additional_arguments_are_sent(self) -> None:
        queue, task = Keys().queue("default"), NewTask("a", b"m")

        plain = words_of(new_tasks.enqueue(queue, [task], ReceiptSlot("t")))
        limited = words_of(new_tasks.enqueue(queue, [task], ReceiptSlot("t"), max_pending=7))

        assert limited == (*plain, 7)
