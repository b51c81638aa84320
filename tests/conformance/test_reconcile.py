"""Test that damage is found and repaired on every store, and that healthy tasks are not changed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from taskq_core.broker.operations import actions, aggregation, new_tasks, runs, services
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.repair import Suspect
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.errors import BrokerError, BrokerReplyError, BrokerUnavailableError
from taskq_core.repair.reconcile import FindingKind, Pause, ReconcileReport, reconcile, run
from taskq_core.wire import TaskState, build_message, encode_message
from tests.conformance.stores import NOW_NS, Broker, dump
from tests.rows import rows

GROUP = "g"
LONG_AGO_NS = 60_000_000_000


def message(task_id: str, **fields: Any) -> bytes:
    return encode_message(build_message(type="t:a", id=task_id, queue="default", retry=3, **fields))


def put(broker: Broker, *ids: str, **options: Any) -> None:
    tasks = [NewTask(task_id, message(task_id, group_key=options.get("group", "")), **options) for task_id in ids]
    now_ns = time.time_ns() - LONG_AGO_NS
    assert set(broker.at(now_ns, new_tasks.enqueue(broker.queue, tasks, ReceiptSlot("t" + ids[0])))) == {"1"}


def take(broker: Broker, owner: str = "w1", *, call: int = 1) -> list[str]:
    return broker.dequeue(owner, call=call, now_ns=time.time_ns())


def settle(broker: Broker, outcome: Outcome, task_id: str, *, owner: str = "w1", **fields: Any) -> str:
    now_s = int(time.time())
    data = message(task_id, last_failed_at=now_s if outcome is Outcome.ARCHIVE else 0, **fields)
    end = Settlement(task_id, outcome, 1, data, seconds=fields.get("retention", 0), delay_ms=600_000)
    return broker.at(now_s * 10**9, runs.settle(broker.queue, [end], owner=owner))


def fill(broker: Broker) -> None:
    """Put a task in every state; its id is the name of the state."""
    put(broker, "retry", "archived", "completed", "active")
    take(broker)
    settle(broker, Outcome.RETRY, "retry")
    settle(broker, Outcome.ARCHIVE, "archived")
    settle(broker, Outcome.COMPLETE, "completed", completed_at=int(time.time()), retention=3600)
    put(broker, "scheduled", start_at_s=int(time.time()) + 600)
    put(broker, "aggregating", group=GROUP)
    put(broker, "pending", "pending-2")


def look(broker: Broker, *, repair: bool = False) -> ReconcileReport:
    return run(reconcile(broker.queue, repair=repair, recheck_s=0), broker.run)


def found(report: ReconcileReport) -> dict[str, str]:
    return {finding.task_id: finding.kind.value for finding in report.findings}


def states(broker: Broker) -> dict[str, str]:
    """Return the state of each task, after checking that it is only in the structure of its state."""
    queue, all_ = broker.queue, dump(broker.raw)
    seen: dict[str, str] = {}

    def ids(key: str) -> list[str]:
        return [(each[0] if isinstance(each, tuple) else each).decode() for each in all_.get(key.encode(), ("", []))[1]]

    for key, (kind, value) in all_.items():
        if key.startswith(queue.task_prefix.encode()) and kind == "hash":
            assert value[b"msg"]
            seen[key.decode().removeprefix(queue.task_prefix)] = value[b"state"].decode()
            assert (b"taskq_owner" in value) <= (value[b"state"] == b"active")
    for state in ("pending", "active", "scheduled", "retry", "archived", "completed"):
        assert sorted(ids(queue.prefix + state)) == sorted(each for each, word in seen.items() if word == state), state
    assert sorted(ids(queue.lease)) == sorted(ids(queue.active))
    members = ids(queue.group(GROUP))
    assert members == [each for each, word in seen.items() if word == "aggregating"]
    assert broker.raw.sismember(queue.groups, GROUP) == bool(members)
    return seen


ALL = ("active", "aggregating", "archived", "completed", "pending", "pending-2", "retry", "scheduled")


def state_of(task_id: str) -> str:
    return task_id.removesuffix("-2")


HEALTHY = {each: state_of(each) for each in ALL}


def listing(broker: Broker, state: str) -> str:
    return broker.queue.group(GROUP) if state == "aggregating" else broker.queue.prefix + state


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Damage to a healthy queue, the expected findings, and the states of the tasks after the repair."""

    do: Callable[[Broker], object]
    found: dict[str, str]
    after: dict[str, str]


def gone(*ids: str) -> dict[str, str]:
    return {each: state for each, state in HEALTHY.items() if each not in ids}


def deleted_task(task_id: str) -> Damage:
    return Damage(
        do=lambda broker: broker.raw.delete(broker.queue.task(task_id)),
        found={task_id: "listed_without_task"},
        after=gone(task_id),
    )


def lost_message(task_id: str) -> Damage:
    return Damage(
        do=lambda broker: broker.raw.hdel(broker.queue.task(task_id), "msg"),
        found={task_id: "task_without_message"},
        after=gone(task_id),
    )


def garbage(task_id: str) -> Damage:
    return Damage(
        do=lambda broker: broker.raw.hset(broker.queue.task(task_id), "msg", b"\xff\xff"),
        found={task_id: "unreadable"},
        after=gone(task_id),
    )


def wrong_state(task_id: str, word: str) -> Damage:
    return Damage(
        do=lambda broker: broker.raw.hset(broker.queue.task(task_id), "state", word),
        found={task_id: "wrong_state"},
        after=HEALTHY,
    )


def no_state(task_id: str) -> Damage:
    return Damage(
        do=lambda broker: broker.raw.hdel(broker.queue.task(task_id), "state"),
        found={task_id: "wrong_state"},
        after=HEALTHY,
    )


def deleted_listing(state: str) -> Damage:
    """All its tasks are found again, in their state."""
    return Damage(
        do=lambda broker: broker.raw.delete(listing(broker, state)),
        found=dict.fromkeys((each for each in ALL if state_of(each) == state), "not_listed"),
        after=HEALTHY,
    )


def also_in(task_id: str, state: str) -> Damage:
    def do(broker: Broker) -> None:
        if state in ("pending", "active"):
            broker.raw.rpush(listing(broker, state), task_id)
        else:
            broker.raw.zadd(listing(broker, state), {task_id: 5})

    return Damage(do=do, found={task_id: "listed_twice"}, after=HEALTHY)


def strange_task(task_id: str) -> Damage:
    def do(broker: Broker) -> None:
        broker.raw.delete(broker.queue.task(task_id))
        broker.raw.set(broker.queue.task(task_id), "not ours")

    return Damage(do=do, found={task_id: "listed_without_task"}, after=gone(task_id))


def lost_group_name(broker: Broker) -> None:
    broker.raw.delete(broker.queue.groups)


FAR_S = 4_000_000_000
"""An end of a lease that no worker writes, Unix s."""


def endless(task_id: str, *, taken_off: str = "", kind: str, after: dict[str, str] = HEALTHY) -> Damage:
    """Lease a task without end, and perhaps take it off a structure or delete it."""

    def do(broker: Broker) -> None:
        broker.raw.zadd(broker.queue.lease, {task_id: FAR_S})
        if taken_off == "task":
            broker.raw.delete(broker.queue.task(task_id))
        elif taken_off in ("pending", "active"):
            broker.raw.lrem(listing(broker, taken_off), 0, task_id)
        elif taken_off:
            broker.raw.zrem(listing(broker, taken_off), task_id)

    return Damage(do=do, found={task_id: kind}, after=after)


def never(state: str) -> Damage:
    """Write an infinite time for a task."""
    return Damage(
        do=lambda broker: broker.raw.zadd(listing(broker, state), {state: "+inf"}),
        found={state: "infinite_time"},
        after=HEALTHY,
    )


def orphan_everything(broker: Broker) -> None:
    """As a worker of Go leaves a task whose lease was gone when it ended: active, and in no structure."""
    broker.raw.lrem(broker.queue.active, 0, "active")
    broker.raw.zrem(broker.queue.lease, "active")


DAMAGES: dict[str, Damage] = {
    **{f"task deleted: {each}": deleted_task(each) for each in ALL},
    **{f"message lost: {each}": lost_message(each) for each in ALL},
    **{f"unreadable: {each}": garbage(each) for each in ALL if each != "active"},
    **{f"no state: {each}": no_state(each) for each in ALL},
    **{f"key of another type for the task: {each}": strange_task(each) for each in ALL},
    "state changed: pending to retry": wrong_state("pending", "retry"),
    "state changed: active to pending": wrong_state("active", "pending"),
    "state changed: active to completed": wrong_state("active", "completed"),
    "state changed: scheduled to active": wrong_state("scheduled", "active"),
    "state changed: retry to aggregating": wrong_state("retry", "aggregating"),
    "state changed: archived to nonsense": wrong_state("archived", "dancing|x"),
    "state changed: aggregating to pending": wrong_state("aggregating", "pending"),
    **{
        f"listing deleted: {state}": deleted_listing(state)
        for state in ("pending", "scheduled", "retry", "archived", "completed", "aggregating")
    },
    "listing deleted: active": Damage(
        do=lambda broker: broker.raw.delete(broker.queue.active),
        found={"active": "lease_without_active"},
        after=HEALTHY,
    ),
    "listing deleted: lease": Damage(
        do=lambda broker: broker.raw.delete(broker.queue.lease), found={"active": "active_without_lease"}, after=HEALTHY
    ),
    "listings deleted: active and lease": Damage(do=orphan_everything, found={"active": "not_listed"}, after=HEALTHY),
    **{
        f"leased without end: {each}": endless(each, kind="lease_too_long")
        for each in ("active", "aggregating", "archived", "completed", "pending", "retry", "scheduled")
    },
    **{
        f"leased without end and taken off: {each}": endless(each, taken_off=each, kind="not_listed")
        for each in ("active", "aggregating", "archived", "completed", "pending", "retry", "scheduled")
    },
    "leased without end: a task that is gone": endless(
        "pending", taken_off="task", kind="listed_without_task", after=gone("pending")
    ),
    **{
        f"infinite time: {each}": never(each) for each in ("scheduled", "retry", "archived", "completed", "aggregating")
    },
    "names of groups deleted": Damage(do=lost_group_name, found={"aggregating": "group_not_listed"}, after=HEALTHY),
    "group lost": Damage(
        do=lambda broker: broker.raw.hdel(broker.queue.task("aggregating"), "group"),
        found={"aggregating": "wrong_state"},
        after=HEALTHY,
    ),
    "group changed": Damage(
        do=lambda broker: broker.raw.hset(broker.queue.task("aggregating"), "group", "other"),
        found={"aggregating": "wrong_state"},
        after=HEALTHY,
    ),
    "also in: pending in retry": also_in("pending", "retry"),
    "also in: retry in pending": also_in("retry", "pending"),
    "also in: pending in pending": also_in("pending", "pending"),
    "also in: active in pending": also_in("active", "pending"),
    "also in: active in archived": also_in("active", "archived"),
    "also in: completed in active": also_in("completed", "active"),
    "also in: scheduled in archived": also_in("scheduled", "archived"),
    "also in: aggregating in pending": also_in("aggregating", "pending"),
}


@rows("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_reported_and_then_repaired(broker: Broker, damage: Damage) -> None:
    """A check reports the damage without changes. One repair pass then puts everything in its place."""
    fill(broker)
    damage.do(broker)
    before = broker.dump()

    report = look(broker)
    assert broker.dump() == before
    repaired = look(broker, repair=True)
    after = look(broker, repair=True)

    assert found(report).items() >= damage.found.items()
    assert {each.task_id for each in report.findings} == damage.found.keys()
    assert report.repaired == 0
    assert {each.task_id for each in repaired.findings if each.repaired} == damage.found.keys()
    assert [each for each in after.findings if each.kind is not FindingKind.WRONG_TYPE] == []
    assert states(broker) == damage.after


def test_a_healthy_queue_has_no_findings(broker: Broker) -> None:
    fill(broker)
    before = broker.dump()

    report = look(broker, repair=True)

    assert report == ReconcileReport(queue="default", scanned=len(ALL), findings=(), is_complete=True)
    assert broker.dump() == before
    assert states(broker) == HEALTHY


class TestTwoGroups:
    """A member of two groups, or of a group and of a set of it, would be turned into two tasks."""

    def test_a_task_in_two_groups_stays_in_the_group_it_names(self, broker: Broker) -> None:
        fill(broker)
        broker.raw.zadd(broker.queue.group("other"), {"aggregating": 5})
        broker.raw.sadd(broker.queue.groups, "other")

        report = look(broker, repair=True)

        assert found(report) == {"aggregating": "listed_twice"}
        assert "in aggregating*2" in report.findings[0].detail
        assert states(broker) == HEALTHY
        assert broker.raw.smembers(broker.queue.groups) == {GROUP.encode()}
        assert not look(broker).findings

    def test_a_task_in_a_group_and_a_set_stays_in_the_set(self, broker: Broker) -> None:
        TestAggregationSets.take_set(broker)
        broker.raw.zadd(broker.queue.group(GROUP), {"m1": 5})
        broker.raw.sadd(broker.queue.groups, GROUP)

        assert found(look(broker, repair=True)) == {"m1": "listed_twice"}

        assert not broker.raw.exists(broker.queue.group(GROUP), broker.queue.groups)
        assert broker.run(aggregation.combine(broker.queue, GROUP, "s", 2, None)) == "1"

    def test_a_task_in_two_sets_stays_in_one(self, broker: Broker) -> None:
        TestAggregationSets.take_set(broker)
        queue = broker.queue
        broker.raw.zadd(queue.aggregation_set(GROUP, "s2"), {"m1": 5})
        broker.raw.zadd(queue.aggregation_sets, {queue.aggregation_set(GROUP, "s2"): time.time() + 900})

        assert found(look(broker, repair=True)) == {"m1": "listed_twice"}

        assert broker.raw.zrange(queue.aggregation_sets, 0, -1) == [queue.aggregation_set(GROUP, "s").encode()]


class TestAggregationSets:
    """A set that is missing from the list of sets would keep its members forever."""

    @staticmethod
    def take_set(broker: Broker, group: str = GROUP) -> None:
        put(broker, "m1", "m2", group=group)
        check = aggregation.GroupCheck(group, "s", 900, 0)
        assert broker.at(time.time_ns(), aggregation.collect_groups(broker.queue, [check], limit=1)) == "1"

    def test_an_unlisted_set_is_listed_again_and_returned(self, broker: Broker) -> None:
        self.take_set(broker)
        broker.raw.delete(broker.queue.aggregation_sets)

        report = look(broker)
        repaired = look(broker, repair=True)

        assert [(each.kind.value, each.repaired) for each in repaired.findings] == [("set_not_listed", True)]
        assert (report.repaired, report.findings[0].detail) == (
            0,
            "asynq:{default}:g:g:s has no deadline in the list of aggregation sets",
        )
        assert not look(broker, repair=True).findings
        assert broker.run(aggregation.reclaim(broker.queue, "aggregator", owner="w1", leader_ms=9000)).sets == 1
        assert broker.raw.zrange(broker.queue.group(GROUP), 0, -1) == [b"m1", b"m2"]

    def test_a_set_with_an_infinite_deadline_is_returned(self, broker: Broker) -> None:
        self.take_set(broker)
        broker.raw.zadd(broker.queue.aggregation_sets, {broker.queue.aggregation_set(GROUP, "s"): "+inf"})

        assert [each.kind.value for each in look(broker, repair=True).findings] == ["set_not_listed"]

        assert not look(broker, repair=True).findings
        assert broker.run(aggregation.reclaim(broker.queue, "aggregator", owner="w1", leader_ms=9000)).sets == 1

    def test_a_member_without_a_group_is_added_to_its_group(self, broker: Broker) -> None:
        self.take_set(broker)
        broker.raw.hdel(broker.queue.task("m1"), "group")

        assert found(look(broker, repair=True)) == {"m1": "wrong_state"}

        assert broker.fields("m1")["group"] == GROUP.encode()
        assert not look(broker).findings

    def test_a_group_with_a_colon_is_not_mistaken_for_a_set(self, broker: Broker) -> None:
        """Go's forwarder does not list the name of a group."""
        put(broker, "m1", group="a:b")
        broker.raw.delete(broker.queue.groups)

        assert found(look(broker, repair=True)) == {"m1": "group_not_listed"}

        assert not broker.raw.exists(broker.queue.aggregation_sets)
        assert broker.raw.smembers(broker.queue.groups) == {b"a:b"}

    def test_a_set_of_a_group_with_a_colon_is_recognized(self, broker: Broker) -> None:
        self.take_set(broker, group="a:b")
        broker.raw.delete(broker.queue.aggregation_sets)

        assert [each.kind for each in look(broker, repair=True).findings] == [FindingKind.SET_NOT_LISTED]

        assert broker.raw.zrange(broker.queue.aggregation_sets, 0, -1) == [b"asynq:{default}:g:a:b:s"]

    def test_sets_of_a_queue_that_is_being_removed_are_not_repaired(self, broker: Broker) -> None:
        self.take_set(broker)
        assert broker.run(actions.close_queue(broker.queue, force=True)).is_closed

        assert not look(broker, repair=True).findings

        assert broker.run(actions.discard(broker.queue)) == (2, True)
        assert broker.dump().keys() <= {b"taskq:{default}:rcpt:tm1"}


def test_records_of_steps_are_deleted_with_their_task(broker: Broker) -> None:
    """Go's tools delete a task without its steps and the values that it emitted, which contain data of users."""
    queue = broker.queue
    fill(broker)
    for task_id in ("pending", "scheduled", "gone", "unreadable"):
        broker.raw.hset(queue.steps_of(task_id), mapping={"of": "1", "s:a": "secret"})
        broker.raw.xadd(queue.stream_of(task_id), {"v": "secret"})
    broker.raw.xadd(queue.stream_of("ended"), {"v": "secret"})
    broker.raw.expire(queue.stream_of("ended"), 60)  # as at the end of a task without retention
    broker.raw.hset(queue.task("pending"), "taskq_steps", "1")
    broker.raw.hset(queue.task("scheduled"), "taskq_steps", "2")  # of a later task with the same id
    broker.raw.hset(queue.quarantined("unreadable"), "taskq_steps", "1")
    wanted = {queue.steps_of("scheduled"), queue.steps_of("gone"), queue.stream_of("gone")}

    reported, repaired = look(broker), look(broker, repair=True)

    for report, is_repaired in ((reported, False), (repaired, True)):
        assert {each.kind for each in report.findings} == {FindingKind.STEPS_WITHOUT_TASK}
        assert {each.detail.split(" ")[0] for each in report.findings} == wanted
        assert all(each.repaired == is_repaired for each in report.findings)
    assert not broker.raw.exists(queue.steps_of("scheduled"))
    assert not broker.raw.exists(queue.steps_of("gone"))
    assert not broker.raw.exists(queue.stream_of("gone"))
    for task_id in ("pending", "unreadable"):
        assert broker.raw.exists(queue.steps_of(task_id))
        assert broker.raw.exists(queue.stream_of(task_id))
    assert broker.raw.exists(queue.stream_of("ended"))
    assert not look(broker).findings


def test_a_lock_of_another_type_is_moved_aside(broker: Broker) -> None:
    """No task holds the lock, and it would refuse tasks with this payload forever."""
    lock = broker.queue.unique("t:a", b"")
    broker.raw.rpush(lock, "x")

    report = look(broker, repair=True)

    assert [(each.kind.value, each.repaired) for each in report.findings] == [("wrong_type", True)]
    put(broker, "a", unique_key=lock, unique_s=600)
    assert broker.raw.get(lock) == b"a"


class TestRepairs:
    def test_a_task_without_a_start_time_is_due_at_once(self, broker: Broker) -> None:
        """The start time of a scheduled task is stored only there."""
        fill(broker)
        broker.raw.delete(broker.queue.scheduled, broker.queue.retry)

        look(broker, repair=True)

        for key in (broker.queue.scheduled, broker.queue.retry):
            ((_, score),) = broker.raw.zrange(key, 0, -1, withscores=True)
            assert abs(score - time.time()) < 30

    def test_times_stored_in_the_message_are_kept(self, broker: Broker) -> None:
        fill(broker)
        queue, raw = broker.queue, broker.raw
        expected = (raw.zscore(queue.archived, "archived"), raw.zscore(queue.completed, "completed"))
        raw.delete(queue.archived, queue.completed)

        look(broker, repair=True)

        assert (raw.zscore(queue.archived, "archived"), raw.zscore(queue.completed, "completed")) == expected

    def test_a_pending_task_wakes_a_worker(self, broker: Broker) -> None:
        put(broker, "a")
        broker.raw.delete(broker.queue.pending, broker.queue.wake)

        look(broker, repair=True)

        assert broker.raw.llen(broker.queue.wake) == 1
        assert take(broker) == ["a"]

    def test_an_unreadable_task_is_quarantined_byte_for_byte(self, broker: Broker) -> None:
        fill(broker)
        queue, raw = broker.queue, broker.raw
        raw.hset(queue.task("retry"), "msg", b"\xff\xff")

        look(broker, repair=True)

        assert raw.hgetall(queue.quarantined("retry")) == {b"msg": b"\xff\xff", b"state": b"retry"}
        assert raw.zrange(queue.quarantine, 0, -1) == [b"retry"]

    def test_a_dropped_task_releases_its_lock(self, broker: Broker) -> None:
        queue, raw = broker.queue, broker.raw
        lock = queue.unique("t:a", b"")
        put(broker, "a", unique_key=lock, unique_s=600)
        raw.hdel(queue.task("a"), "msg")

        look(broker, repair=True)

        assert not raw.exists(lock)

    def test_a_lock_of_another_task_is_not_released(self, broker: Broker) -> None:
        queue, raw = broker.queue, broker.raw
        put(broker, "a", unique_key=queue.unique("t:a", b""), unique_s=600)
        put(broker, "b")
        raw.set(queue.unique("t:a", b""), "b")
        raw.hdel(queue.task("a"), "msg")

        look(broker, repair=True)

        assert raw.get(queue.unique("t:a", b"")) == b"b"

    def test_a_member_of_an_aggregation_set_is_healthy(self, broker: Broker) -> None:
        """Members of a set that is being aggregated are in no group, which is no damage."""
        queue, raw = broker.queue, broker.raw
        put(broker, "a", "b", group=GROUP)
        set_key = queue.aggregation_set(GROUP, "s1")
        raw.rename(queue.group(GROUP), set_key)
        raw.delete(queue.groups)
        raw.zadd(queue.aggregation_sets, {set_key: int(time.time()) + 120})
        raw.delete(queue.task("b"))

        report = look(broker, repair=True)

        assert found(report) == {"b": "listed_without_task"}
        assert raw.zrange(set_key, 0, -1) == [b"a"]

    def test_a_member_that_is_being_deleted_is_not_repaired(self, broker: Broker) -> None:
        queue, raw = broker.queue, broker.raw
        put(broker, "a", group=GROUP)
        raw.rename(queue.group(GROUP), queue.combined_set("s1"))
        raw.delete(queue.groups)
        raw.zadd(queue.combined, {"s1": 1})

        assert look(broker, repair=True).findings == ()

    def test_a_task_of_a_queue_that_is_being_removed_is_not_repaired(self, broker: Broker) -> None:
        put(broker, "a")
        put(broker, "b", group=GROUP)
        broker.raw.rename(broker.queue.pending, broker.queue.removed("pending"))
        broker.raw.rename(broker.queue.groups, broker.queue.removed("groups"))

        assert look(broker, repair=True).findings == ()

    def test_unusual_names_and_ids_are_repaired(self, broker: Broker) -> None:
        """Test names with pattern characters, and ids that are not valid UTF-8."""
        broker.queue = queue = broker.keys.queue("q[*]?\\ü")
        ids = ["*", "a:b", "\udcff\udc80", "x" * 256]
        for each in ids:
            put(broker, each.replace("\udcff\udc80", "y"))
        broker.raw.rename(queue.task("y"), queue.task_prefix.encode() + b"\xff\x80")
        broker.raw.delete(queue.pending)
        broker.queue = broker.keys.queue("q[*]?\\")
        put(broker, "other")
        broker.queue = queue

        report = look(broker, repair=True)

        assert found(report) == dict.fromkeys(ids, "not_listed")
        assert sorted(broker.pending()) == sorted(ids)


class TestFence:
    """Test a worker whose task was damaged while it ran."""

    def test_a_restored_lease_belongs_to_the_running_worker(self, broker: Broker) -> None:
        """The worker that runs the task settles it, and no second run starts."""
        queue, raw = broker.queue, broker.raw
        put(broker, "a")
        take(broker)
        expected = raw.zscore(queue.lease, "a")
        raw.delete(queue.lease, queue.active)

        look(broker, repair=True)

        assert raw.zscore(queue.lease, "a") == expected
        assert broker.run(runs.extend_leases(queue, [("a", 1)], owner="w1", lease_s=60)).owned == [True]
        assert settle(broker, Outcome.DONE, "a") == "1"
        assert broker.fields("a") == {}

    def test_an_endless_lease_is_restored_for_its_worker(self, broker: Broker) -> None:
        put(broker, "a", "b")
        take(broker)
        broker.raw.zadd(broker.queue.lease, {"a": FAR_S, "b": FAR_S})

        look(broker, repair=True)
        expired = broker.at(time.time_ns() + 31 * 10**9, services.list_expired(broker.queue, grace_s=0))

        assert settle(broker, Outcome.DONE, "a") == "1"
        assert {each.task_id for each in expired.tasks} == {"a", "b"}  # a silent worker's are taken back

    def test_a_lease_beyond_a_clock_jump_still_belongs_to_its_worker(self, broker: Broker) -> None:
        """Redis's clock was set back. The lease still matches its fence, so its worker continues."""
        put(broker, "active")
        broker.dequeue("w1", now_ns=time.time_ns() + 86_400 * 10**9)

        report = look(broker, repair=True)

        assert found(report) == {"active": "lease_too_long"}
        assert broker.raw.zscore(broker.queue.lease, "active") < time.time() + 31
        assert settle(broker, Outcome.DONE, "active") == "1"

    def test_a_stale_fence_does_not_become_valid_again(self, broker: Broker) -> None:
        """A task that another program took does not return to the lost worker when the lease is written again."""
        queue, raw = broker.queue, broker.raw
        put(broker, "a")
        take(broker, "zombie")
        raw.hset(queue.task("a"), "taskq_owner", f"zombie:{int(time.time()) - 3600}")  # Go's dequeue leaves it
        raw.delete(queue.lease)

        look(broker, repair=True)

        assert settle(broker, Outcome.DONE, "a", owner="zombie") == "0"
        assert raw.zscore(queue.lease, "a") > time.time()

    def test_a_late_settlement_does_not_restore_a_dropped_task(self, broker: Broker) -> None:
        put(broker, "a")
        take(broker)
        broker.raw.delete(broker.queue.task("a"))
        look(broker, repair=True)
        before = broker.dump()

        codes = [
            settle(broker, Outcome.COMPLETE, "a", retention=60),
            settle(broker, Outcome.RETRY, "a"),
            settle(broker, Outcome.REQUEUE, "a"),
        ]

        assert codes == ["0", "0", "0"]
        assert broker.run(runs.write_fields(broker.queue, "a", {runs.RESULT_FIELD: b"r"}, owner="w1", run=1)) is False
        assert broker.dump() == before

    def test_a_late_settlement_does_not_change_a_requeued_task(self, broker: Broker) -> None:
        """The task is pending, so no worker owns it. The outcome of its old worker is refused."""
        queue, raw = broker.queue, broker.raw
        put(broker, "a")
        take(broker)
        raw.delete(queue.lease, queue.active)
        raw.lpush(queue.pending, "a")

        look(broker, repair=True)

        assert settle(broker, Outcome.DONE, "a") == "0"
        assert states(broker) == {"a": "pending"}

    def test_an_unreadable_running_task_is_left_to_its_worker(self, broker: Broker) -> None:
        """Its worker or the recoverer quarantines it."""
        put(broker, "a")
        take(broker)
        broker.raw.hset(broker.queue.task("a"), "msg", b"\xff")

        assert look(broker, repair=True).findings == ()
        broker.raw.delete(broker.queue.lease)
        look(broker, repair=True)
        assert broker.raw.zcard(broker.queue.quarantine) == 1


class Meanwhile:
    """Sends the steps of a pass, and lets something happen before certain ones."""

    def __init__(self, broker: Broker, name: str, happens: Callable[[], object]) -> None:
        self._broker = broker
        self._name = name
        self._happens = happens

    def __call__(self, operation: Operation[Any]) -> Any:
        if operation.name == self._name:
            self._happens()
        return self._broker.run(operation)


class TestConcurrentChanges:
    """Tasks that change while a pass runs."""

    @rows("step", ["check_listed", "check_stored", "repair_tasks"])
    def test_tasks_that_change_constantly_are_no_findings(self, broker: Broker, step: str) -> None:
        """Between any two steps of the check a task is enqueued, dequeued, retried, requeued or completed."""
        fill(broker)
        broker.raw.delete(broker.queue.task("scheduled"))
        count = 0

        def happens() -> None:
            nonlocal count
            count += 1
            owner = f"w{count}"
            put(broker, f"new-{count}", f"newer-{count}")
            for task_id, outcome in zip(
                take(broker, owner), (Outcome.DONE, Outcome.RETRY, Outcome.REQUEUE), strict=False
            ):
                assert settle(broker, outcome, task_id, owner=owner) == "1"

        report = run(reconcile(broker.queue, repair=True, recheck_s=0), Meanwhile(broker, step, happens))

        assert count
        assert found(report) == {"scheduled": "listed_without_task"}
        states(broker)

    def test_a_change_between_two_reads_is_not_reported_as_damage(self, broker: Broker) -> None:
        fill(broker)
        broker.raw.zadd(broker.queue.retry, {"pending": 5})
        steps = reconcile(broker.queue, repair=True, recheck_s=7)
        answer: Any = None
        paused = []

        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                report: ReconcileReport = end.value
                break
            if isinstance(step, Pause):
                paused.append(step.seconds)
                broker.raw.zrem(broker.queue.retry, "pending")
            answer = None if isinstance(step, Pause) else broker.run(step)

        assert paused == [7]
        assert report.findings == ()
        assert states(broker) == HEALTHY

    def test_a_repair_based_on_an_outdated_diagnosis_changes_nothing(self, broker: Broker) -> None:
        """The repair script checks again itself, because the diagnosis may be outdated."""
        queue = broker.queue
        put(broker, "a")
        broker.raw.delete(queue.pending)
        (first,) = broker.run(repair_ops.repair_tasks(queue, [Suspect("a")]))
        look(broker, repair=True)
        assert take(broker) == ["a"]

        (second,) = broker.run(repair_ops.repair_tasks(queue, [Suspect("a", diagnosis=first.diagnosis)]))

        assert (first.kind, second.kind, second.repaired) == ("not_listed", "", False)
        assert states(broker) == {"a": "active"}


class TestBounds:
    def test_the_work_of_a_call_is_bounded_for_long_lists(self, broker: Broker) -> None:
        """A call reports the work that it left over, and the pass sends it again."""
        queue, raw = broker.queue, broker.raw
        for base in range(0, 60_000, 10_000):
            raw.lpush(queue.pending, *(f"x{number}" for number in range(base, base + 10_000)))

        mended = broker.run(repair_ops.repair_tasks(queue, [Suspect(f"x{number}") for number in range(50)]))

        looked_at = [each.was_looked_at for each in mended]
        assert looked_at == [True] * 8 + [False] * 42
        assert {each.kind for each in mended[:8]} == {"listed_without_task"}

    @pytest.mark.parametrize(("active", "doubtful"), [(10_000, ["a"]), (10_001, [])])
    def test_a_long_list_of_active_tasks_is_not_read_for_each_page_of_leases(
        self, broker: Broker, active: int, doubtful: list[str]
    ) -> None:
        """Reading it whole would keep Redis from answering for longer than any other call does."""
        queue, raw = broker.queue, broker.raw
        broker.enqueue("a")
        broker.dequeue()
        raw.delete(queue.active)
        raw.rpush(queue.active, *(f"x{number}" for number in range(active)))

        page = broker.at(NOW_NS, repair_ops.check_listed(queue, queue.lease, "lease", TaskState.ACTIVE))

        assert page.doubtful == doubtful

    def test_a_pass_with_many_findings_ends_early(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every pass repairs its findings, and the next pass continues."""
        monkeypatch.setattr("taskq_core.repair.reconcile.FINDINGS_MAX", 60)
        ids = [f"a{number}" for number in range(150)]
        put(broker, *ids)
        broker.raw.delete(broker.queue.pending)

        reports = []
        while not reports or not reports[-1].is_complete:
            reports.append(look(broker, repair=True))

        assert sum(report.repaired for report in reports) == 150
        assert len(reports) > 1
        assert sorted(broker.pending()) == sorted(ids)

    def test_a_list_that_grows_during_the_check_has_no_findings(self, broker: Broker) -> None:
        """New tasks may shift entries to a page that is read later. The same id on two pages is not a finding."""
        ids = [f"a{number}" for number in range(1100)]
        for first in range(0, 1100, 200):
            put(broker, *ids[first : first + 200])
        added = 0
        looks = 0

        def send(operation: Operation[Any]) -> Any:
            nonlocal added, looks
            if operation.name == "check_listed" and operation.keys[0] == broker.queue.pending and added < 3:
                for first in range(0, 600, 200):
                    new = [f"new-{added}-{first + number}" for number in range(200)]
                    tasks = [NewTask(each, message(each)) for each in new]
                    broker.run(new_tasks.enqueue(broker.queue, tasks, ReceiptSlot(new[0])))
                added += 1
            looks += operation.name == "repair_tasks"
            return broker.run(operation)

        assert run(reconcile(broker.queue, repair=True, recheck_s=0), send).findings == ()
        assert (added, looks) == (3, 0)

    def test_a_duplicate_id_at_the_edge_of_a_page_is_found(self, broker: Broker) -> None:
        ids = [f"a{number}" for number in range(1100)]
        for first in range(0, 1100, 200):
            put(broker, *ids[first : first + 200])
        edge = broker.pending()[::-1][499]
        broker.raw.rpush(broker.queue.pending, edge)

        assert found(look(broker, repair=True)) == {edge: "listed_twice"}
        assert sorted(broker.pending()) == sorted(ids)

    def test_a_queue_of_several_pages_is_checked(self, broker: Broker) -> None:
        ids = [f"a{number}" for number in range(1200)]
        for first in range(0, 1200, 200):
            put(broker, *ids[first : first + 200])
        for broken in ("a0", "a599", "a1199"):
            broker.raw.lrem(broker.queue.pending, 0, broken)
        progress: list[tuple[int, int]] = []

        steps = reconcile(
            broker.queue, repair=True, recheck_s=0, progress=lambda done, total: progress.append((done, total))
        )
        report = run(steps, broker.run)

        assert found(report) == dict.fromkeys(("a0", "a599", "a1199"), "not_listed")
        assert report.scanned >= 1200
        assert progress[-1][0] == report.scanned
        assert all(done <= total for done, total in progress)
        assert sorted(broker.pending()) == sorted(ids)


OWN = ("wake", "quarantine", "combined")
STRUCTURES = ("pending", "active", "lease", "scheduled", "retry", "archived", "completed", "groups", "aggregation_sets")


class TestCheckThenWrite:
    @rows(
        "name",
        [*STRUCTURES, *OWN],
    )
    def test_a_refused_repair_changes_nothing(self, broker: Broker, name: str) -> None:
        queue = broker.queue
        fill(broker)
        broker.raw.hset(queue.task("retry"), "state", "pending")
        broker.raw.hset(queue.task("archived"), "msg", b"\xff")
        suspects = [Suspect("retry"), Suspect("archived", unreadable=b"\xff")]
        looks = broker.run(repair_ops.repair_tasks(queue, suspects))
        again = [replace(each, diagnosis=look.diagnosis) for each, look in zip(suspects, looks, strict=True)]
        broker.raw.delete(getattr(queue, name))
        broker.raw.set(getattr(queue, name), "strange")
        before = broker.dump()

        with pytest.raises(BrokerReplyError):
            broker.run(repair_ops.repair_tasks(queue, again))

        assert broker.dump() == before
        assert all(each.diagnosis for each in again)

    def test_an_unreadable_task_is_quarantined_over_a_key_of_another_type(self, broker: Broker) -> None:
        """A key of another type where the hash of the unreadable task would go is replaced, as RENAME does."""
        queue = broker.queue
        fill(broker)
        broker.raw.hset(queue.task("archived"), "msg", b"\xff")
        broker.raw.set(queue.quarantined("archived"), "strange")

        assert look(broker, repair=True).repaired == 1
        assert broker.raw.hget(queue.quarantined("archived"), "msg") == b"\xff"


class TestKeysOfAnotherType:
    """Such keys are renamed unchanged, and the correct structures are rebuilt from the tasks."""

    @rows("name", STRUCTURES)
    def test_a_check_reports_a_key_of_another_type_and_no_tasks(self, broker: Broker, name: str) -> None:
        fill(broker)
        key = getattr(broker.queue, name)
        broker.raw.delete(key)
        broker.raw.set(key, "not ours")
        before = broker.dump()

        report = look(broker)

        assert [(each.kind, each.detail, each.repaired) for each in report.findings] == [
            (FindingKind.WRONG_TYPE, f"{key} is a string", False)
        ]
        assert not report.is_complete
        assert broker.dump() == before

    @rows("name", [*STRUCTURES, *OWN])
    def test_a_structure_of_another_type_is_moved_aside(self, broker: Broker, name: str) -> None:
        """After one pass, the queue works again, and every task is in its place."""
        fill(broker)
        key = getattr(broker.queue, name)
        broker.raw.delete(key)
        broker.raw.hset(key, "not", "ours")

        report = look(broker, repair=True)

        finding, *others = report.findings
        place = finding.detail.removeprefix(f"{key} is a hash: its value is kept as ")
        assert place.startswith(f"{broker.queue.own_prefix}strange:{name}:")
        assert broker.raw.hgetall(place) == {b"not": b"ours"}
        assert all(each.repaired for each in report.findings)
        assert FindingKind.WRONG_TYPE not in {each.kind for each in others}
        assert report.is_complete
        assert states(broker) == HEALTHY
        assert look(broker, repair=True).findings == ()

    def test_damage_fixed_between_two_reads_is_not_repaired(self, broker: Broker) -> None:
        fill(broker)
        queue = broker.queue
        ids = broker.pending()
        broker.raw.delete(queue.pending)
        broker.raw.set(queue.pending, "not ours")

        def comes_right() -> None:
            broker.raw.delete(queue.pending)
            broker.raw.rpush(queue.pending, *ids[::-1])

        report = run(reconcile(queue, repair=True, recheck_s=0), Meanwhile(broker, "set_aside", comes_right))

        assert report == ReconcileReport(queue="default", scanned=len(ALL), findings=(), is_complete=True)
        assert broker.pending() == ids

    @pytest.mark.parametrize("error", [BrokerReplyError("WRONGTYPE"), BrokerUnavailableError("gone")])
    def test_moved_keys_are_reported_although_the_pass_fails(self, broker: Broker, error: BrokerError) -> None:
        """Otherwise the moved keys would be lost. A pass with nothing to report raises."""
        queue = broker.queue
        fill(broker)
        broker.raw.delete(queue.retry)
        broker.raw.set(queue.retry, "not ours")

        def fails() -> None:
            raise error

        sends = Meanwhile(broker, "check_listed", fails)

        report = run(reconcile(queue, repair=True, recheck_s=0), sends)
        assert [each.repaired for each in report.findings] == [True]
        assert not report.is_complete
        with pytest.raises(type(error)):
            run(reconcile(queue, repair=True, recheck_s=0), sends)

    def test_a_call_with_a_lost_reply_is_sent_again(self, broker: Broker) -> None:
        queue, raw = broker.queue, broker.raw
        raw.set(queue.retry, "not ours")
        move = repair_ops.set_aside(queue, {queue.retry: "zset", queue.pending: "list"}, at_ns=7)

        answers = [broker.run(move) for _ in range(2)]

        assert answers == [{queue.retry: queue.strange(queue.retry, 7)}] * 2
        assert raw.get(queue.strange(queue.retry, 7)) == b"not ours"
        assert not raw.exists(queue.retry)

    def test_a_key_moved_aside_overwrites_no_other_key(self, broker: Broker) -> None:
        queue, raw = broker.queue, broker.raw
        raw.set(queue.strange(queue.retry, 7), "first")
        raw.set(queue.retry, "second")

        broker.run(repair_ops.set_aside(queue, {queue.retry: "zset"}, at_ns=7))

        assert (raw.get(queue.strange(queue.retry, 7)), raw.get(queue.retry)) == (b"first", b"second")

    def test_a_key_is_moved_aside_in_a_full_redis(self, one_server: Broker) -> None:
        fill(one_server)
        one_server.raw.delete(one_server.queue.pending)
        one_server.raw.set(one_server.queue.pending, "not ours")
        one_server.raw.config_set("maxmemory", 1)
        try:
            report = look(one_server, repair=True)
        finally:
            one_server.raw.config_set("maxmemory", 0)

        assert report.repaired == len(report.findings) == 3
        assert states(one_server) == HEALTHY

    def test_a_pause_key_of_any_type_pauses_the_queue(self, broker: Broker) -> None:
        """Moving the key away would resume the queue without a request."""
        fill(broker)
        broker.raw.hset(broker.queue.paused, "not", "ours")
        broker.raw.delete(broker.queue.retry)

        report = look(broker, repair=True)

        assert [(each.kind.value, each.repaired) for each in report.findings] == [
            ("wrong_type", False),
            ("not_listed", True),
        ]
        assert report.is_complete
        assert broker.raw.exists(broker.queue.paused)

    def test_a_counter_of_another_type_is_moved_aside(self, broker: Broker) -> None:
        """Go's workers end no task while it cannot be counted up."""
        fill(broker)
        broker.raw.delete(broker.queue.processed)
        broker.raw.lpush(broker.queue.processed, "x")

        assert look(broker).is_complete
        report = look(broker, repair=True)

        assert [(each.kind.value, each.repaired) for each in report.findings] == [("wrong_type", True)]
        assert not broker.raw.exists(broker.queue.processed)

    @pytest.mark.parametrize("is_in_a_set", [False, True])
    def test_a_group_or_aggregation_set_of_another_type_is_moved_aside(self, broker: Broker, is_in_a_set: bool) -> None:
        """Its members are in their group again after at most two passes."""
        fill(broker)
        queue, raw = broker.queue, broker.raw
        key = queue.group(GROUP)
        if is_in_a_set:
            key = queue.aggregation_set(GROUP, "s1")
            raw.zadd(queue.aggregation_sets, {key: int(time.time()) + 120})
        raw.delete(queue.group(GROUP))
        raw.set(key, "not ours")

        first = look(broker, repair=True)
        look(broker, repair=True)

        finding = next(each for each in first.findings if each.kind is FindingKind.WRONG_TYPE)
        assert finding.repaired
        assert raw.get(finding.detail.rpartition(" ")[2]) == b"not ours"
        assert not raw.exists(queue.aggregation_set(GROUP, "s1"))
        assert states(broker) == HEALTHY

    def test_a_task_of_another_type_is_moved_aside(self, broker: Broker) -> None:
        """Its id is removed from its list and can be used again."""
        put(broker, "a")
        broker.raw.delete(broker.queue.task("a"))
        broker.raw.set(broker.queue.task("a"), "not ours")

        reports = [look(broker, repair=True) for _ in range(2)]

        assert [{each.kind.value for each in report.findings} for report in reports] == [
            {"wrong_type", "listed_without_task"},
            set(),
        ]
        place = next(each.detail.rpartition(" ")[2] for each in reports[0].findings if each.kind == "wrong_type")
        assert place.startswith(f"{broker.queue.own_prefix}strange:t:a:")
        assert broker.raw.get(place) == b"not ours"
        assert broker.pending() == []
        assert broker.run(new_tasks.enqueue(broker.queue, [NewTask("a", message("a"))], ReceiptSlot("again"))) == "1"

    def test_a_key_name_with_line_breaks_is_reported_in_one_line(self, broker: Broker) -> None:
        broker.raw.set(broker.queue.task("a\nERROR forged"), "not ours")

        (finding,) = look(broker).findings

        assert finding.detail.isprintable()

    def test_the_keys_of_a_queue_with_a_longer_name_are_not_changed(self, broker: Broker) -> None:
        """Go allows any name: the keys of queue "default}:t:x" begin like the task keys of this queue."""
        other = broker.keys.queue("default}:t:x")
        if broker.store.endpoint.is_cluster:
            pytest.skip("their slots differ")
        tasks = [NewTask("a", encode_message(build_message(type="t:a", id="a", queue=other.name)))]
        broker.run(new_tasks.enqueue(other, tasks, ReceiptSlot("o")))
        broker.raw.hset(other.task("b"), "msg", b"\xff")
        broker.raw.hset(other.task("c"), "state", "active")
        before = broker.dump()

        assert look(broker, repair=True).findings == ()
        assert broker.dump() == before
