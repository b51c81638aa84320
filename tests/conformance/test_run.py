"""Test a worker's operations on every store: dequeue, extend, settle, and the fence that protects them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskq_core.broker.operations import actions, operation, runs, services, views
from taskq_core.broker.operations.runs import Outcome, SettleCode, Settlement
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

SECOND = 1_000_000_000
ENDS = list(Outcome)


def state_of(broker: Broker, task_id: str) -> str | None:
    """Return the state of a task, after checking that it is only in the structure of that state."""
    queue = broker.queue
    fields = broker.fields(task_id)
    state = fields["state"].decode() if "state" in fields else None
    raw = task_id.encode("utf-8", "surrogateescape")
    places = {name for name in ("pending", "active") if raw in broker.raw.lrange(getattr(queue, name), 0, -1)}
    for name in ("scheduled", "retry", "archived", "completed"):
        if broker.raw.zscore(getattr(queue, name), raw) is not None:
            places.add(name)
    assert places == ({state} if state else set())
    assert (broker.raw.zscore(queue.lease, raw) is not None) == (state == "active")
    assert ("taskq_owner" in fields) == ("taskq_started" in fields) == (state == "active")
    return state


class TestDequeue:
    def test_a_task_is_leased_to_its_worker(self, broker: Broker) -> None:
        broker.enqueue("a")

        taken = broker.at(NOW_NS, runs.dequeue(broker.queue, owner="w1", call=1, limit=9, lease_s=30))

        assert taken == runs.Dequeued(NOW_NS, NOW_S + 30, 0, [("a", b"a")])
        assert broker.fields("a") == {
            "msg": b"a",
            "state": b"active",
            "taskq_owner": f"w1.1:{NOW_S + 30}".encode(),
            "taskq_started": str(NOW_NS // 1_000_000).encode(),
        }
        assert broker.raw.zscore(broker.queue.lease, "a") == NOW_S + 30
        assert state_of(broker, "a") == "active"

    def test_a_dequeue_returns_the_waiting_times_on_request(self, broker: Broker) -> None:
        """It omits the time for tasks of old Go releases, which did not store it, and in a repeat."""
        for number, task_id in enumerate(("a", "b", "c")):
            broker.enqueue(task_id, now_ns=NOW_NS + number * SECOND)
        broker.raw.hdel(broker.queue.task_prefix + "b", "pending_since")
        ask = at_time(
            NOW_NS + 2_500_000_000, runs.dequeue(broker.queue, owner="w1", call=1, limit=9, lease_s=30, with_waits=True)
        )

        assert broker.run(ask).waits_s == [2.5, None, 0.5]
        assert broker.run(ask).waits_s == []
        plain = broker.at(NOW_NS, runs.dequeue(broker.queue, owner="w2", call=1, limit=9, lease_s=30))
        assert plain.waits_s == []

    def test_a_repeated_dequeue_returns_the_same_tasks(self, broker: Broker) -> None:
        broker.enqueue("a", "b", "c")
        first = broker.dequeue(limit=2)
        before = broker.dump()

        assert broker.dequeue(limit=2) == first == ["a", "b"]

        assert broker.dump() == before
        assert broker.dequeue(limit=2, call=2) == ["c"]

    def test_a_repeated_dequeue_omits_settled_and_taken_tasks(self, broker: Broker) -> None:
        broker.enqueue("a", "b", "c", "d")
        broker.dequeue()
        broker.settle(Outcome.DONE, "a")
        broker.raw.zadd(broker.queue.lease, {"b": NOW_S + 99})
        broker.raw.delete(broker.queue.task("c"))
        broker.raw.set(broker.queue.task("c"), "damaged")

        assert broker.dequeue() == ["d"]

    def test_cancelling_a_dequeue_returns_its_tasks(self, broker: Broker) -> None:
        broker.enqueue("a", "b", "c")
        broker.dequeue(limit=2)

        assert broker.dequeue(limit=0) == ["a", "b"]
        assert broker.dequeue(limit=0, call=2) == []

    def test_a_late_dequeue_after_its_cancellation_hands_out_nothing(self, broker: Broker) -> None:
        """An example is a request that waited in Redis on an abandoned connection."""
        assert broker.dequeue(limit=0, call=7) == []
        broker.enqueue("a", "b")
        before = broker.dump()

        assert broker.dequeue(call=7) == []

        assert broker.dump() == before
        assert broker.dequeue(call=8, limit=1) == ["a"]

    def test_an_equal_call_number_in_another_slot_is_a_new_call(self, broker: Broker) -> None:
        broker.enqueue("a", "b")

        assert broker.dequeue(limit=1, lane="1") == ["a"]
        assert broker.dequeue(limit=1, lane="2") == ["b"]

    def test_bytes_bound_a_batch_and_the_order_is_kept(self, broker: Broker) -> None:
        broker.enqueue(*(f"{number}" * 100 for number in range(6)))

        first = broker.dequeue(limit=5, max_bytes=250)

        assert [name[0] for name in first] == ["0", "1", "2"]
        assert [name[0] for name in broker.pending()] == ["3", "4", "5"]
        assert broker.raw.llen(broker.queue.wake) == 1

    def test_a_single_message_over_the_byte_limit_is_handed_out(self, broker: Broker) -> None:
        broker.enqueue("a" * 100, "b" * 100)

        assert broker.dequeue(max_bytes=1) == ["a" * 100]

    def test_ids_without_a_message_are_dropped_and_counted(self, broker: Broker) -> None:
        broker.enqueue("gone", "stub", "damaged", "good")
        broker.raw.delete(broker.queue.task("gone"), broker.queue.task("damaged"))
        broker.raw.hdel(broker.queue.task("stub"), "msg")
        broker.raw.set(broker.queue.task("damaged"), "not a hash")

        taken = broker.at(NOW_NS, runs.dequeue(broker.queue, owner="w1", call=1, limit=9, lease_s=30))

        assert (taken.tasks, taken.dropped) == ([("good", b"good")], 3)
        assert broker.raw.lrange(broker.queue.active, 0, -1) == [b"good"]
        assert not broker.raw.exists(broker.queue.task("stub")), "a stub would block its id"
        assert broker.raw.get(broker.queue.task("damaged")) == b"not a hash", "what is not ours stays"

    @pytest.mark.parametrize("missing", ["state", "pending_since"])
    def test_a_task_with_an_unusual_number_of_fields_is_handed_out(self, broker: Broker, missing: str) -> None:
        """Go requeues a unique task without its waiting time, so it has three fields like a plain task."""
        lock = broker.queue.unique_prefix + "a:1"
        broker.enqueue("a")
        broker.raw.hdel(broker.queue.task("a"), missing)
        broker.raw.hset(broker.queue.task("a"), "unique_key", lock)
        broker.raw.set(lock, "a", ex=5)

        taken = broker.at(NOW_NS, runs.dequeue(broker.queue, owner="w1", call=1, limit=9, lease_s=30))

        assert taken.tasks == [("a", b"a")]
        assert broker.raw.ttl(lock) > 50
        assert state_of(broker, "a") == "active"
        assert not broker.raw.hexists(broker.queue.task("a"), "pending_since")

    def test_many_leases_are_stored_in_a_sorted_set(self, one_server: Broker) -> None:
        """A compact encoding would be searched from the start. The set contains only leases."""
        ids = [f"id-{number}" for number in range(10)]
        one_server.enqueue(*ids)
        one_server.dequeue()

        lease = one_server.queue.lease
        assert one_server.raw.object("encoding", lease) != b"listpack"
        assert sorted(one_server.raw.zrange(lease, 0, -1)) == [each.encode() for each in ids]

    def test_a_large_batch_is_handed_out(self, broker: Broker) -> None:
        ids = [f"id-{number}" for number in range(450)]
        broker.enqueue(*ids)

        assert broker.dequeue(limit=450) == ids

        assert broker.raw.zcard(broker.queue.lease) == 450
        assert broker.dequeue(limit=450) == ids, "the repeat too"


class TestSettle:
    def test_complete_keeps_the_task_with_its_result(self, broker: Broker) -> None:
        broker.enqueue("a")
        broker.dequeue()

        assert broker.settle(Outcome.COMPLETE, "a", seconds=60, result=b"\x00\xff") == SettleCode.SETTLED

        assert state_of(broker, "a") == "completed"
        assert broker.fields("a") == {"msg": b"a", "state": b"completed", "result": b"\x00\xff"}
        assert broker.raw.zscore(broker.queue.completed, "a") == NOW_S + 60

    @rows("outcome", [Outcome.COMPLETE, Outcome.RETRY, Outcome.RETRY_UNCOUNTED, Outcome.ARCHIVE], ids=str)
    def test_the_record_of_an_attempt_is_kept(self, broker: Broker, outcome: Outcome) -> None:
        broker.enqueue("a", "b")
        broker.dequeue()

        broker.settle(outcome, "a", seconds=60, record=b'{"attempt":1}')
        broker.settle(outcome, "b", seconds=60)

        assert broker.fields("a")["taskq_attempts"] == b'{"attempt":1}'
        assert "taskq_attempts" not in broker.fields("b")

    def test_records_of_attempts_are_appended_and_the_oldest_are_dropped(self, broker: Broker) -> None:
        """Up to 16 KiB are kept, and the last record in any case."""
        broker.enqueue("a")
        kept = []
        for number, line in enumerate([b"1" * 9000, b"2" * 4000, b"3" * 4000, b"4" * 20_000], start=1):
            broker.dequeue(call=number)
            broker.settle(Outcome.RETRY, "a", record=line)
            kept.append([each[:1] for each in broker.fields("a")["taskq_attempts"].split(b"\n")])
            broker.at(NOW_NS + SECOND, services.forward(broker.queue, owner="w1", leader_ms=60_000))

        assert kept == [[b"1"], [b"1", b"2"], [b"2", b"3"], [b"4"]]

    def test_reading_a_task_returns_its_worker_start_and_attempts(self, broker: Broker) -> None:
        broker.enqueue("a")
        broker.dequeue()
        running = broker.run(views.read_task(broker.queue, "a"))
        broker.settle(Outcome.ARCHIVE, "a", record=b"{}")
        over = broker.run(views.read_task(broker.queue, "a"))

        assert running is not None
        assert over is not None
        assert (running.owner, running.started_ms, running.attempts) == ("w1", NOW_NS // 1_000_000, b"")
        assert (over.owner, over.started_ms, over.attempts) == ("", None, b"{}")

    def test_requeued_tasks_keep_their_order(self, broker: Broker) -> None:
        broker.enqueue("a", "b", "c", "d")
        broker.dequeue(limit=3)

        broker.settle(Outcome.REQUEUE, "a", "b", "c")

        assert broker.pending() == ["a", "b", "c", "d"]

    @rows("is_young", [True, False])
    @rows("ends", ["abcd", "efgh", "cdef", "aceg", "abh", "gh", "abcdefgh"])
    def test_settled_tasks_leave_the_active_list_and_the_others_keep_their_order(
        self, broker: Broker, ends: str, is_young: bool
    ) -> None:
        broker.enqueue(*"abcdefgh")
        broker.dequeue(limit=4)
        broker.dequeue(call=2)

        assert broker.settle(Outcome.DONE, *reversed(ends), is_young=is_young) == SettleCode.SETTLED * len(ends)

        rest = [name for name in "abcdefgh" if name not in ends]
        assert [name.decode() for name in reversed(broker.raw.lrange(broker.queue.active, 0, -1))] == rest
        assert {name: state_of(broker, name) for name in "abcdefgh"} == {
            name: "active" if name in rest else None for name in "abcdefgh"
        }

    @pytest.mark.parametrize("at_the_left", [True, False])
    def test_settling_an_id_that_is_listed_twice_removes_no_other_task(self, broker: Broker, at_the_left: bool) -> None:
        broker.enqueue(*"abcd")
        broker.dequeue()
        push = broker.raw.lpush if at_the_left else broker.raw.rpush
        push(broker.queue.active, "b")

        assert broker.settle(Outcome.DONE, *"bcd" if at_the_left else "bac") == "111"

        left = "a" if at_the_left else "d"
        assert sorted(broker.raw.lrange(broker.queue.active, 0, -1)) == sorted([b"b", left.encode()])
        assert broker.raw.zrange(broker.queue.lease, 0, -1) == [left.encode()]

    def test_settlements_over_the_maximum_batch_size_must_be_sent_again(self, broker: Broker) -> None:
        ids = [f"id-{number}" for number in range(1010)]
        broker.enqueue(*ids)
        broker.dequeue(limit=1010)

        codes = broker.settle(Outcome.DONE, *ids)

        assert codes == SettleCode.SETTLED * 1000 + SettleCode.SEND_AGAIN * 10
        assert broker.settle(Outcome.DONE, *ids[1000:]) == SettleCode.SETTLED * 10

    def test_a_batch_of_different_outcomes_is_settled(self, broker: Broker) -> None:
        ids = list("abcdefg")
        broker.enqueue(*ids, "rest")
        broker.dequeue(limit=7)
        lock = broker.queue.unique("t", b"")
        broker.raw.set(lock, "a")
        ends = [Settlement(name, end, 1, b"m", unique_key=lock) for name, end in zip(ids, ENDS, strict=True)]

        codes = broker.at(
            NOW_NS, runs.settle(broker.queue, [*ends, Settlement("nobody", Outcome.DONE, run=1)], owner="w1")
        )

        assert codes == "11111110"
        states = [None, "completed", "retry", "retry", "archived", "pending", "scheduled"]
        assert [state_of(broker, name) for name in ids] == states
        assert broker.raw.get(broker.queue.processed) == b"4"
        assert broker.raw.get(broker.queue.failed) == b"2"
        assert not broker.raw.exists(lock)

    def test_the_scan_of_a_long_active_list_is_bounded(self, broker: Broker) -> None:
        """Tasks beyond the budget are not searched and must be sent again."""
        ids = [f"id-{number}" for number in range(60)]
        broker.enqueue(*ids)
        broker.dequeue()
        broker.raw.linsert(broker.queue.active, "BEFORE", ids[30], "y")
        for _ in range(4):
            broker.raw.rpush(broker.queue.active, *(f"x{number}" for number in range(10_000)))

        codes = broker.settle(Outcome.DONE, *ids)

        assert codes == SettleCode.SETTLED * 49 + SettleCode.SEND_AGAIN * 11
        assert broker.settle(Outcome.DONE, *ids[49:]) == SettleCode.SETTLED * 11

    def test_the_end_of_a_task_is_published_if_a_caller_waits(self, broker: Broker) -> None:
        """A notification is sent only if a caller waits for the task, and only when the task has ended."""
        if broker.store.endpoint.is_cluster:
            pytest.skip("redis-py's cluster client has no plain subscription")
        ids = list("abcdefg")
        broker.enqueue(*ids, "quiet")
        broker.dequeue()
        for name in ids:
            broker.run(views.read_task(broker.queue, name, publish_end=True))
        listening = broker.raw.pubsub()
        listening.subscribe(broker.queue.done)
        assert listening.get_message(timeout=60)["type"] == "subscribe"

        ends = [Settlement(name, end, 1, b"m") for name, end in zip(ids, ENDS, strict=True)]
        broker.at(NOW_NS, runs.settle(broker.queue, [Settlement("quiet", Outcome.DONE, run=1), *ends], owner="w1"))

        published = {listening.get_message(timeout=60)["data"] for _ in range(3)}
        assert published == {b"a", b"b", b"e"}, "done, complete and archive"
        assert listening.get_message() is None
        listening.close()

    def test_every_change_of_a_task_is_published_to_its_followers(self, broker: Broker) -> None:
        """A later caller that requests fewer events does not reduce the events of earlier followers."""
        if broker.store.endpoint.is_cluster:
            pytest.skip("redis-py's cluster client has no plain subscription")
        queue = broker.queue
        broker.enqueue("a", "b", "end")
        for name, all_changes in (("a", True), ("b", True), ("end", False)):
            broker.run(views.read_task(queue, name, publish_end=True, publish_changes=all_changes))
            broker.run(views.read_task(queue, name, publish_end=True))
        listening = broker.raw.pubsub()
        listening.subscribe(queue.done)
        assert listening.get_message(timeout=60)["type"] == "subscribe"

        def published(count: int) -> list[bytes]:
            found = sorted(listening.get_message(timeout=60)["data"] for _ in range(count))
            assert listening.get_message() is None
            return found

        broker.dequeue()
        assert published(2) == [b"a", b"b"], "the start"
        for name in ("a", "end"):
            broker.run(runs.write_fields(queue, name, {runs.PROGRESS_FIELD: b"{}"}, owner="w1", run=1))
        assert published(1) == [b"a"], "progress"
        ends = [
            Settlement("a", Outcome.REQUEUE, run=1),
            Settlement("b", Outcome.RETRY, 1, b"m"),
            Settlement("end", Outcome.RETRY, 1, b"m"),
        ]
        broker.at(NOW_NS, runs.settle(queue, ends, owner="w1"))
        assert published(2) == [b"a", b"b"], "what goes back and what is retried"
        listening.close()


class TestLimits:
    def test_archiving_drops_at_most_a_hundred_tasks_per_call(self, broker: Broker) -> None:
        queue = broker.queue
        old = {f"old-{number}": NOW_S - operation.ARCHIVE.kept_s - number for number in range(150)}
        broker.raw.zadd(queue.archived, old)
        for name in old:
            broker.raw.hset(queue.task(name), mapping={"msg": "m", "state": "archived"})
        broker.enqueue("a")
        broker.dequeue()

        broker.settle(Outcome.ARCHIVE, "a")

        assert broker.raw.zcard(queue.archived) == 51
        assert broker.at(NOW_NS, services.clean(queue)) == (0, 50)
        assert broker.raw.zrange(queue.archived, 0, -1) == [b"a"]
        hashes = [key for key in broker.dump() if b"}:t:" in key]
        assert hashes == [queue.task("a").encode()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The state before a turn with the pending tasks f to j, and the tasks returned for a request of four."""

    taken: str
    prepare: Callable[[Broker], object] = lambda broker: None
    how: dict[str, Any] = field(default_factory=dict)


def lock_next(broker: Broker) -> None:
    lock = broker.queue.unique_prefix + "f:1"
    broker.raw.hset(broker.queue.task("f"), "unique_key", lock)
    broker.raw.set(lock, "f", ex=5)


def limit_next(broker: Broker) -> None:
    """As of a task that Go pushed: checked when it is handed out."""
    for task_id in "fg":
        broker.raw.hset(broker.queue.task(task_id), "taskq_limit", "c 1 1 t:")


def cancel_next(broker: Broker) -> None:
    """The next holds the only place of a limit, which another waits for, and is a step of a cancelled workflow."""
    queue = broker.queue
    workflow = queue.wake.removesuffix("wake") + "wf:w"
    broker.enqueue("y", "z", limit="c 1 1 t:")
    broker.raw.ltrim(queue.pending, 0, 0)
    broker.raw.hset(queue.task("y"), "taskq_step", f"0 s 0 {workflow}")
    broker.raw.hset(workflow, "state", "cancelled")


def damage_record(broker: Broker) -> None:
    broker.raw.delete(broker.queue.call("w1"))
    broker.raw.rpush(broker.queue.call("w1"), "10:1:a")


SCENES = {
    "plain": Scene(taken="fghi"),
    "one is left": Scene(taken="j", prepare=lambda broker: broker.raw.ltrim(broker.queue.pending, 0, 0)),
    "no token": Scene(taken="fghi", prepare=lambda broker: broker.raw.delete(broker.queue.wake)),
    "bytes": Scene(taken="fgh", how={"max_bytes": 3}),
    "most active": Scene(taken="f", how={"max_active": 3}),
    "none but active": Scene(taken="", how={"max_active": 2}),
    "most active, set by people": Scene(
        taken="fg", how={"max_active": 3}, prepare=lambda broker: broker.raw.hset(broker.queue.limits, "o:c:", "4")
    ),
    "how long each waited": Scene(taken="fghi", how={"with_waits": True}),
    "no message": Scene(taken="fhij", prepare=lambda broker: broker.raw.delete(broker.queue.task("g"))),
    "a unique lock": Scene(taken="fghi", prepare=lock_next, how={"lock_s": 77}),
    "a limit": Scene(taken="fhi", prepare=limit_next),
    "a cancelled step with a place": Scene(taken="", prepare=cancel_next),
    "a record of another type": Scene(taken="fghi", prepare=damage_record),
    "another lane": Scene(taken="fghi", how={"lane": "-1"}),
}


class TestSettleAndDequeue:
    """A turn of a worker of quick tasks as one script."""

    @staticmethod
    def turn(broker: Broker, *done: str, owner: str = "w1", call: int = 2, limit: int = 2) -> list[str] | None:
        asked = at_time(NOW_NS, runs.dequeue(broker.queue, owner=owner, call=call, limit=limit, lease_s=30))
        taken = broker.run(runs.settle_and_dequeue([(each, 1) for each in done], asked))
        return None if taken is None else [task_id for task_id, _ in taken.tasks]

    @rows("done", ["a b", "b a", "c d", "d c", "a b c d", "d b c a", "a", "d", "b c", "c a"])
    def test_the_fused_call_settles_and_hands_out_tasks(self, broker: Broker, done: str) -> None:
        """This holds for any position in the active list, and in any order."""
        broker.enqueue(*"abcdefg")
        broker.dequeue(limit=4)

        assert self.turn(broker, *done.split()) == ["e", "f"]

        for name in done.split():
            assert state_of(broker, name) is None
        for name in set("abcdef") - set(done.split()):
            assert state_of(broker, name) == "active"
        assert state_of(broker, "g") == "pending"
        assert broker.raw.get(broker.queue.processed) == str(len(done.split())).encode()
        assert broker.raw.ttl(broker.queue.daily_processed(NOW_S)) > 0

    @rows("scene", SCENES.values(), ids=SCENES)
    def test_the_fused_call_has_the_same_effect_as_two_calls(self, broker: Broker, scene: Scene) -> None:
        """Its reply equals that of the second call."""
        broker, done = broker, ["a", "b", "c"]

        def play(*, as_one: bool) -> tuple[runs.Dequeued | None, dict[bytes, Any], dict[bytes, int]]:
            broker.store.flush()
            broker.enqueue(*"abcdefghij")
            broker.dequeue(call=9, limit=3)
            broker.dequeue("w2", limit=2)
            scene.prepare(broker)
            asked = at_time(
                NOW_NS + SECOND, runs.dequeue(broker.queue, owner="w1", call=10, limit=4, lease_s=40, **scene.how)
            )
            if as_one:
                answer = broker.run(runs.settle_and_dequeue([(each, 9) for each in done], asked))
            else:
                end = at_time(NOW_NS + SECOND, runs.settle_done(broker.queue, [(each, 9) for each in done], owner="w1"))
                assert broker.run(end) == "111"
                answer = broker.run(asked)
            after = {key: value for key, value in broker.dump().items() if b":rcpt:" not in key}
            return answer, after, {key: broker.raw.ttl(key) for key in after}

        one, after_one, lives_one = play(as_one=True)
        two, after_two, lives_two = play(as_one=False)

        assert one == two
        assert after_one == after_two
        assert lives_one == {key: pytest.approx(lives_s, abs=5) for key, lives_s in lives_two.items()}
        assert two is not None
        assert "".join(task_id for task_id, _ in two.tasks) == scene.taken

    def test_the_fused_call_accepts_tasks_with_marked_starts(self, broker: Broker) -> None:
        broker.enqueue(*"abc")
        broker.dequeue(limit=2)
        broker.at(NOW_NS, runs.mark_starts(broker.queue, [("a", 1)], owner="w1"))

        assert self.turn(broker, "a", "b") == ["c"]

    @pytest.mark.parametrize("obstacle", ["paused", "empty"])
    def test_the_fused_call_settles_when_no_task_is_pending(self, broker: Broker, obstacle: str) -> None:
        broker.enqueue("a", "b", *("c" if obstacle == "paused" else ""))
        broker.dequeue(limit=2)
        if obstacle == "paused":
            broker.at(NOW_NS, actions.pause(broker.queue))

        assert self.turn(broker, "a", "b") == []

        assert not broker.raw.exists(broker.queue.active, broker.queue.lease, broker.queue.task("a"))

    @rows("field", ["taskq_wait", "taskq_step", "taskq_permit", "taskq_progress"])
    def test_the_fused_call_is_refused_for_a_task_that_needs_more_than_deletion(
        self, broker: Broker, field: str
    ) -> None:
        broker.enqueue(*"abc")
        broker.dequeue(limit=2)
        broker.raw.hset(broker.queue.task("b"), field, "1")
        before = broker.dump()

        assert self.turn(broker, "a", "b") is None

        assert broker.dump() == before

    @rows("done", ["a x", "a a", "a other", "a p"])
    def test_the_fused_call_is_refused_for_tasks_of_another_worker(self, broker: Broker, done: str) -> None:
        broker.enqueue(*"abcd", "other", "p")
        broker.dequeue(limit=4)
        broker.dequeue("w2", limit=1)
        before = broker.dump()

        assert self.turn(broker, *done.split()) is None

        assert broker.dump() == before

    def test_the_fused_call_is_refused_when_the_scan_is_too_long(self, broker: Broker) -> None:
        ids = [f"id-{number}" for number in range(60)]
        broker.enqueue(*ids)
        broker.dequeue()
        broker.raw.linsert(broker.queue.active, "BEFORE", ids[30], "y")
        for _ in range(4):
            broker.raw.rpush(broker.queue.active, *(f"x{number}" for number in range(10_000)))

        assert self.turn(broker, *ids) is None
        assert self.turn(broker, *ids[:30]) == []

        assert broker.raw.zcard(broker.queue.lease) == 30

    @pytest.mark.parametrize("call", [1, 2])
    def test_a_repeated_fused_call_changes_nothing(self, broker: Broker, call: int) -> None:
        broker.enqueue(*"abcdef")
        broker.dequeue(call=2, limit=2)
        before = broker.dump()

        assert self.turn(broker, "a", "b", call=call) is None

        assert broker.dump() == before

    def test_after_a_lost_reply_two_calls_find_the_fused_call_done(self, broker: Broker) -> None:
        broker.enqueue(*"abcd")
        broker.dequeue(limit=2)
        assert self.turn(broker, "a", "b") == ["c", "d"]
        before = broker.dump()

        assert broker.settle(Outcome.DONE, "a", "b") == "00"
        assert broker.dequeue(call=2, limit=2) == ["c", "d"]

        assert broker.dump() == before

    def test_the_start_of_a_task_is_published_to_its_followers(self, one_server: Broker) -> None:
        one_server.enqueue(*"abc")
        one_server.dequeue(limit=1)
        one_server.run(views.read_task(one_server.queue, "b", publish_end=True, publish_changes=True))
        listening = one_server.raw.pubsub()
        listening.subscribe(one_server.queue.done)
        assert listening.get_message(timeout=60)["type"] == "subscribe"

        assert self.turn(one_server, "a") == ["b", "c"]

        assert listening.get_message(timeout=60)["data"] == b"b"
        assert listening.get_message() is None
        listening.close()


class TestFence:
    """A worker that lost its task to another cannot change it, however long it was stopped."""

    @pytest.fixture
    def taken_over(self, broker: Broker) -> Broker:
        """Task `a` was w1's, was recovered after its lease ended, and is w2's now."""
        broker.enqueue("a")
        assert broker.dequeue("w1") == ["a"]
        later = NOW_NS + 61 * SECOND
        expired = broker.at(later, services.list_expired(broker.queue, grace_s=30)).tasks
        recovery = services.Recovery(expired[0], services.Verdict.RETRY, b"recovered", 1000)
        assert broker.at(later, services.recover(broker.queue, [recovery], grace_s=30)) == "1"
        later += 2 * SECOND
        broker.at(later, services.forward(broker.queue, owner="w2", leader_ms=1000))
        assert broker.dequeue("w2", now_ns=later) == ["a"]
        return broker

    @pytest.mark.parametrize("outcome", ENDS)
    def test_a_worker_that_lost_its_task_cannot_settle_it(self, taken_over: Broker, outcome: Outcome) -> None:
        before = taken_over.dump()

        assert taken_over.settle(outcome, "a", owner="w1") == SettleCode.NOT_OWNED

        assert taken_over.dump() == before
        assert taken_over.settle(outcome, "a", owner="w2") == SettleCode.SETTLED

    @pytest.mark.parametrize(
        "attempt",
        [
            lambda broker: (
                broker.at(
                    NOW_NS + 64 * SECOND, runs.extend_leases(broker.queue, [("a", 1)], owner="w1", lease_s=30)
                ).owned
                == [True]
            ),
            lambda broker: broker.run(
                runs.write_fields(broker.queue, "a", {runs.RESULT_FIELD: b"r"}, owner="w1", run=1)
            ),
            lambda broker: broker.at(NOW_NS, runs.quarantine(broker.queue, "a", owner="w1", run=1)),
            lambda broker: broker.dequeue("w1") == ["a"],
        ],
        ids=["extend", "result", "quarantine", "repeat_dequeue"],
    )
    def test_a_worker_that_lost_its_task_cannot_write_anything(
        self, taken_over: Broker, attempt: Callable[[Broker], bool]
    ) -> None:
        before = taken_over.dump()

        assert attempt(taken_over) is False

        assert taken_over.dump() == before

    def test_a_task_taken_over_by_a_go_worker_is_protected(self, broker: Broker) -> None:
        """Go keeps taskq's field unchanged and writes its own lease, which no longer matches the field."""
        broker.enqueue("a")
        broker.dequeue()
        broker.raw.zadd(broker.queue.lease, {"a": NOW_S + 97})

        assert broker.settle(Outcome.DONE, "a") == SettleCode.NOT_OWNED
        assert broker.at(NOW_NS, runs.extend_leases(broker.queue, [("a", 1)], owner="w1", lease_s=30)).owned == [False]

        assert broker.raw.zscore(broker.queue.lease, "a") == NOW_S + 97

    @rows("outcome", ENDS)
    def test_an_expired_lease_belongs_to_its_owner_until_it_is_taken(self, broker: Broker, outcome: Outcome) -> None:
        broker.enqueue("a")
        broker.dequeue()

        assert broker.settle(outcome, "a", now_ns=NOW_NS + 3600 * SECOND) == SettleCode.SETTLED

    def test_an_extension_does_not_lock_out_its_owner(self, broker: Broker) -> None:
        """The keepalive extends from another thread; the settler never sends a score, so none can be stale."""
        broker.enqueue("a", "b")
        broker.dequeue()

        later = NOW_NS + 10 * SECOND
        extended = broker.at(
            later, runs.extend_leases(broker.queue, [("a", 1), ("x", 1), ("b", 1)], owner="w1", lease_s=30)
        )

        assert extended == runs.Extended(later, [True, False, True])
        assert broker.raw.zscore(broker.queue.lease, "a") == NOW_S + 40
        assert broker.settle(Outcome.DONE, "a", "b") == "11"

    def test_the_fence_of_an_earlier_lease_names_no_worker(self, broker: Broker) -> None:
        """A worker in Go takes the task without changing the fence."""
        broker.enqueue("a")
        broker.dequeue("w1")
        assert broker.run(views.read_task(broker.queue, "a")).owner == "w1"

        broker.raw.zadd(broker.queue.lease, {"a": NOW_NS // SECOND + 31})

        looked = broker.run(views.read_task(broker.queue, "a"))
        (expired,) = broker.at(NOW_NS + 99 * SECOND, services.list_expired(broker.queue, grace_s=0)).tasks
        assert (looked.owner, looked.started_ms) == ("", None)
        assert (expired.owner, expired.started_s) == ("", None)
