"""Test the services of a worker on every store: forward, recover, clean, lead, quarantine, presence."""

import pytest

from taskq_core.broker.operations import presence, runs, services, views
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.wire import TaskState
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker

SECOND = 1_000_000_000


def forward(
    broker: Broker, owner: str = "w1", *, limit: int = 100, leader_ms: int = 60_000, at_s: int = 0
) -> services.Forwarded:
    operation = at_time(
        NOW_NS + at_s * SECOND, services.forward(broker.queue, owner=owner, leader_ms=leader_ms, limit=limit)
    )
    return broker.run(operation)


class TestForward:
    def test_a_task_is_due_in_the_second_of_its_score(self, broker: Broker) -> None:
        broker.enqueue("a", start_at_s=NOW_S + 2)

        assert forward(broker, at_s=1).moved == 0
        assert forward(broker, at_s=2).moved == 1

    def test_only_the_leader_forwards(self, broker: Broker) -> None:
        broker.enqueue("a", start_at_s=NOW_S + 1)
        assert forward(broker, "w1").leads

        before = broker.dump()
        assert forward(broker, "w2", at_s=2) == services.Forwarded(NOW_NS + 2 * SECOND, False, 0, 0)
        assert broker.dump() == before
        assert broker.run(services.resign(broker.queue.leader("forwarder"), owner="w2")) is False
        assert broker.run(services.resign(broker.queue.leader("forwarder"), owner="w1")) is True

        assert forward(broker, "w2", at_s=2).moved == 1

    def test_ids_without_a_message_are_dropped_and_do_not_block_others(self, broker: Broker) -> None:
        broker.enqueue("gone", "stub", "damaged", "good", start_at_s=NOW_S + 1)
        broker.raw.delete(broker.queue.task("gone"), broker.queue.task("damaged"))
        broker.raw.hdel(broker.queue.task("stub"), "msg")
        broker.raw.set(broker.queue.task("damaged"), "not a hash")

        answer = forward(broker, at_s=2)

        assert (answer.moved, answer.dropped) == (1, 3)
        assert broker.pending() == ["good"]
        assert broker.raw.zcard(broker.queue.scheduled) == 0
        assert not broker.raw.exists(broker.queue.task("stub")), "a stub would block its id"
        assert broker.raw.get(broker.queue.task("damaged")) == b"not a hash", "what is not ours stays"

    def test_a_member_of_a_damaged_group_runs_alone(self, broker: Broker) -> None:
        broker.enqueue("a", start_at_s=NOW_S + 1)
        broker.raw.hset(broker.queue.task("a"), "group", "g")
        broker.raw.set(broker.queue.group("g"), "not a sorted set")

        assert forward(broker, at_s=2).moved == 1

        assert broker.pending() == ["a"]


class TestRecover:
    LATER = NOW_NS + 60 * SECOND
    """The lease ended 30 s ago: just beyond the grace."""

    def expired(self, broker: Broker, *, now_ns: int = LATER, limit: int = 100) -> list[services.ExpiredTask]:
        return broker.at(now_ns, services.list_expired(broker.queue, grace_s=30, limit=limit)).tasks

    def recover(self, broker: Broker, *recoveries: Recovery, now_ns: int = LATER) -> str:
        return broker.at(now_ns, services.recover(broker.queue, recoveries, grace_s=30))

    def test_a_lease_counts_as_expired_after_the_grace(self, broker: Broker) -> None:
        broker.enqueue("a")
        broker.dequeue()

        assert self.expired(broker, now_ns=self.LATER - SECOND) == []
        started_s = NOW_NS // 1_000_000 / 1000
        listed = services.ExpiredTask("a", str(NOW_S + 30), b"a", owner="w1", started_s=started_s, has_start_mark=False)
        assert self.expired(broker) == [listed]

    def test_the_start_of_a_run_is_marked_while_its_lease_lasts(self, broker: Broker) -> None:
        """Only the given run is marked, and the listing shows whether a mark exists."""
        broker.enqueue("a", "b")
        broker.dequeue()
        late_ns = NOW_NS + 30 * SECOND

        marked = broker.at(NOW_NS, runs.mark_starts(broker.queue, [("a", 1), ("b", 2)], owner="w1"))
        late = broker.at(late_ns, runs.mark_starts(broker.queue, [("b", 1)], owner="w1"))

        assert (marked, late) == ([True, False], [False])
        assert {each.task_id: each.has_start_mark for each in self.expired(broker)} == {"a": True, "b": False}

    def test_expired_leases_are_listed_oldest_first_and_bounded(self, broker: Broker) -> None:
        for number, lease_s in ((1, 3), (2, 1), (3, 2)):
            broker.enqueue(f"{number}")
            broker.dequeue(call=number, lease_s=lease_s)

        assert [task.task_id for task in self.expired(broker, limit=2)] == ["2", "3"]

    def test_a_recovery_applies_to_the_current_state(self, broker: Broker) -> None:
        """After the listing, one task was extended, one settled, one taken by another worker, and one changed."""
        names = ["extended", "settled", "taken", "changed", "lost"]
        broker.enqueue(*names)
        broker.dequeue()
        listed = self.expired(broker)
        broker.at(self.LATER, runs.extend_leases(broker.queue, [("extended", 1)], owner="w1", lease_s=30))
        broker.settle(Outcome.DONE, "settled")
        broker.settle(Outcome.REQUEUE, "taken")
        broker.dequeue("w2", now_ns=self.LATER)
        broker.raw.hset(broker.queue.task("changed"), "msg", "another")
        before = {name: broker.fields(name) for name in names[:4]}

        codes = self.recover(broker, *(Recovery(task, Verdict.RETRY, b"new", 0) for task in listed))

        assert {task.task_id: code for task, code in zip(listed, codes, strict=True)} == {
            **dict.fromkeys(names[:4], "0"),
            "lost": "1",
        }
        assert {name: broker.fields(name) for name in names[:4]} == before
        assert broker.settle(Outcome.DONE, "extended") == "1"
        assert broker.settle(Outcome.DONE, "taken", owner="w2") == "1"

    def test_the_scan_of_a_long_active_list_is_bounded(self, broker: Broker) -> None:
        """Tasks beyond the budget are not checked. The next request takes them back."""
        broker.enqueue(*(f"id-{number}" for number in range(60)))
        broker.dequeue()
        for _ in range(4):
            broker.raw.rpush(broker.queue.active, *(f"x{number}" for number in range(10_000)))
        recoveries = [Recovery(task, Verdict.RETRY, b"new") for task in self.expired(broker)]

        assert self.recover(broker, *recoveries) == "1" * 49 + "2" * 11
        assert self.recover(broker, *recoveries[49:]) == "1" * 11
        assert broker.raw.zcard(broker.queue.retry) == 60

    def test_an_unreadable_message_is_quarantined_with_its_bytes(self, broker: Broker) -> None:
        broker.enqueue("bad", "good")
        broker.dequeue()
        broker.raw.hset(broker.queue.task("bad"), mapping={"msg": b"\xff\x00", "result": "r"})
        verdicts = {"bad": Verdict.QUARANTINE, "good": Verdict.RETRY}

        codes = self.recover(broker, *(Recovery(task, verdicts[task.task_id], b"m") for task in self.expired(broker)))

        assert codes == "11"
        assert broker.fields("bad") == {}
        kept = broker.raw.hgetall(broker.queue.quarantined("bad"))
        assert kept == {b"msg": b"\xff\x00", b"state": b"active", b"result": b"r"}
        assert broker.raw.zscore(broker.queue.quarantine, "bad") == NOW_S + 60
        assert broker.raw.zcard(broker.queue.retry) == 1

    @pytest.mark.parametrize("verdict", [Verdict.DROP, Verdict.QUARANTINE])
    def test_an_id_without_a_message_is_dropped(self, broker: Broker, verdict: Verdict) -> None:
        """The hash may be missing, have no message or an empty one, or be a key of another type."""
        names = ["gone", "stub", "empty", "damaged"]
        broker.enqueue(*names)
        broker.dequeue()
        broker.raw.delete(broker.queue.task("gone"), broker.queue.task("damaged"))
        broker.raw.hdel(broker.queue.task("stub"), "msg")
        broker.raw.hset(broker.queue.task("empty"), "msg", "")
        broker.raw.set(broker.queue.task("damaged"), "not a hash")
        listed = self.expired(broker)
        assert [task.message for task in listed] == [b""] * 4

        assert self.recover(broker, *(Recovery(task, verdict) for task in listed)) == "1111"

        left = {key for key in broker.dump() if b"}:t:" in key or key.endswith((b"active", b"lease", b"quarantine"))}
        assert left == {broker.queue.task("damaged").encode()}


class TestClean:
    def test_tasks_past_their_retention_are_deleted_in_bounded_steps(self, broker: Broker) -> None:
        names = [f"id-{number}" for number in range(5)]
        broker.enqueue(*names, "kept")
        broker.dequeue()
        for number, name in enumerate(names):
            broker.settle(Outcome.COMPLETE, name, seconds=number)
        broker.settle(Outcome.COMPLETE, "kept", seconds=9)

        later = NOW_NS + 4 * SECOND
        deleted = [broker.at(later, services.clean(broker.queue, limit=2))[0] for _ in range(4)]

        assert deleted == [2, 2, 1, 0]
        assert broker.raw.zrange(broker.queue.completed, 0, -1) == [b"kept"]
        assert [key for key in broker.dump() if b"}:t:" in key] == [broker.queue.task("kept").encode()]

    def test_damaged_archived_tasks_do_not_stop_the_cleanup(self, broker: Broker) -> None:
        names = ["gone", "damaged", "strange-lock"]
        broker.raw.zadd(broker.queue.archived, dict.fromkeys(names, 1))
        broker.raw.set(broker.queue.task("damaged"), "not a hash")
        broker.raw.hset(broker.queue.task("strange-lock"), mapping={"msg": "m", "unique_key": broker.queue.archived})

        assert broker.at(NOW_NS, services.clean(broker.queue)) == (0, 3)


class TestPresence:
    def test_a_heartbeat_replaces_the_previous_presence(self, broker: Broker) -> None:
        server, workers = broker.keys.server("h", 1, "s"), broker.keys.workers_of("h", 1, "s")
        many = {f"id-{number}": b"\x00info" for number in range(450)}

        broker.run(services.beat(server, workers, ttl_s=10, server_info=b"\x00one", workers=many))
        assert broker.raw.hlen(workers) == 450
        assert 0 < broker.raw.ttl(workers) <= 10
        broker.run(services.beat(server, workers, ttl_s=10, server_info=b"two", workers={"x": b"i"}))
        assert broker.raw.hgetall(workers) == {b"x": b"i"}
        broker.run(services.beat(server, workers, ttl_s=10, server_info=b"three", workers={}))

        assert not broker.raw.exists(workers)
        assert broker.raw.get(server) == b"three"
        assert 0 < broker.raw.ttl(server) <= 10

    def test_reading_the_live_workers_changes_nothing(self, broker: Broker) -> None:
        """When a worker announces itself, records that ended an hour earlier are removed."""
        index = broker.keys.servers
        broker.raw.zadd(index, {f"gone{number}": NOW_S - 4000 for number in range(150)} | {"late": NOW_S - 100})
        before = broker.dump()

        assert broker.at(NOW_S * SECOND, presence.list_alive(index, skip=0, count=9)) == []
        assert broker.dump() == before
        broker.run(services.index_presence(index, "here", expiry_s=NOW_S + 10))

        assert sorted(broker.raw.zrange(index, 0, -1)) == [b"here", b"late"]
        assert broker.at(NOW_S * SECOND, presence.list_alive(index, skip=0, count=9)) == ["here"]


class TestDamage:
    """Data of other programs must not break reads."""

    def test_counts_are_read_although_the_next_task_is_damaged(self, broker: Broker) -> None:
        broker.enqueue("a")
        broker.raw.hset(broker.queue.task("a"), "pending_since", "yesterday")
        assert broker.run(views.count_tasks(broker.queue)).latency_s is None
        broker.raw.delete(broker.queue.task("a"))
        broker.raw.set(broker.queue.task("a"), "not a hash")

        counts = broker.run(views.count_tasks(broker.queue))

        assert (counts.sizes[TaskState.PENDING], counts.latency_s) == (1, None)

    def test_a_list_contains_an_id_without_a_message(self, broker: Broker) -> None:
        broker.enqueue("a", "b", "c")
        broker.raw.delete(broker.queue.task("a"), broker.queue.task("b"))
        broker.raw.set(broker.queue.task("b"), "not a hash")

        page = broker.run(views.list_tasks(broker.queue, TaskState.PENDING, skip=0, count=9))

        assert [(task.task_id, task.message) for task in page.tasks] == [("a", b""), ("b", b""), ("c", b"c")]
