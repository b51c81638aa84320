"""Test groups of tasks on every store: join, collect into a set, read, combine, sweep, return."""

from taskq_core.broker.operations import aggregation, new_tasks, services, views
from taskq_core.broker.operations.aggregation import GroupCheck
from taskq_core.broker.operations.new_tasks import NewTask, StoreCode
from taskq_core.broker.operations.runs import Outcome
from taskq_core.wire import build_message, encode_message
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

SECOND = 1_000_000_000


def join(broker: Broker, *ids: str, group: str = "g", at_s: int = 0, **options: object) -> None:
    assert broker.enqueue(*ids, group=group, now_ns=NOW_NS + at_s * SECOND, **options) == "1" * len(ids)


def collect_groups(
    broker: Broker,
    group: str = "g",
    set_id: str = "s",
    *,
    at_s: int = 0,
    limit: int = 10,
    grace_s: int = 60,
    max_delay_s: int = 0,
    max_size: int = 0,
) -> str:
    check = GroupCheck(group, set_id, 120, grace_s, max_delay_s, max_size)
    return broker.at(NOW_NS + at_s * SECOND, aggregation.collect_groups(broker.queue, [check], limit=limit))


def take(broker: Broker, *ids: str, group: str = "g", set_id: str = "s") -> None:
    """Put members into a group and take them into a set, whose time is over in 120 s."""
    join(broker, *ids, group=group, at_s=-100)
    assert collect_groups(broker, group, set_id) == "1"


def combine(
    broker: Broker, size: int, task: NewTask | None, *, group: str = "g", set_id: str = "s", at_s: int = 0
) -> StoreCode:
    now_ns = NOW_NS + at_s * SECOND
    return broker.at(now_ns, aggregation.combine(broker.queue, group, set_id, size, task))


def reclaim(broker: Broker, *, at_s: int = 121, owner: str = "w1", **options: int) -> aggregation.Reclaimed:
    now_ns = NOW_NS + at_s * SECOND
    return broker.at(now_ns, aggregation.reclaim(broker.queue, "aggregator", owner=owner, leader_ms=60_000, **options))


def members(broker: Broker, group: str = "g") -> list[str]:
    return [each.decode() for each in broker.raw.zrange(broker.queue.group(group), 0, -1)]


def set_members(broker: Broker, group: str = "g", set_id: str = "s") -> list[str]:
    return [each.decode() for each in broker.raw.zrange(broker.queue.aggregation_set(group, set_id), 0, -1)]


def left(broker: Broker) -> set[str]:
    """Keys of Asynq's that are there."""
    return {key.decode().removeprefix(broker.queue.prefix) for key in broker.dump() if key.startswith(b"asynq:")}


class TestJoin:
    def test_one_batch_may_contain_all_kinds_of_tasks(self, broker: Broker) -> None:
        tasks = [
            NewTask("plain", b"m"),
            NewTask("later", b"m", start_in_ms=5000),
            NewTask("grouped", b"m", group="g"),
            NewTask("both", b"m", start_in_ms=5000, group="h"),
            NewTask("grouped", b"m", group="g"),
        ]

        codes = broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, new_tasks.ReceiptSlot("t")))

        assert codes == "11110"
        assert broker.pending() == ["plain"]
        assert members(broker) == ["grouped"]
        assert broker.raw.zrange(broker.queue.scheduled, 0, -1) == [b"both", b"later"]
        assert broker.fields("both") == {"msg": b"m", "state": b"scheduled", "taskq_group": b"h"}

    def test_a_scheduled_task_joins_its_group_when_it_is_due(self, broker: Broker) -> None:
        join(broker, "a", start_at_s=NOW_S + 5)
        assert members(broker) == []

        broker.at(NOW_NS + 5 * SECOND, services.forward(broker.queue, owner="w1", leader_ms=1000))

        assert broker.raw.zscore(broker.queue.group("g"), "a") == NOW_S + 5
        assert broker.raw.smembers(broker.queue.groups) == {b"g"}
        assert broker.fields("a")["state"] == b"aggregating"


class TestCollect:
    def test_a_repeated_request_returns_the_same_set(self, broker: Broker) -> None:
        """The reply to the first request was lost. The set is not mistaken for another caller's set."""
        join(broker, "a", at_s=-100)

        assert [collect_groups(broker), collect_groups(broker)] == ["1", "1"]
        assert collect_groups(broker, set_id="other") == "0"

    def test_the_number_of_created_sets_is_bounded(self, broker: Broker) -> None:
        for name in ("g1", "g2", "g3"):
            join(broker, name, group=name, at_s=-100)
        join(broker, "young", group="young")
        checks = [GroupCheck(name, "s", 120, 60) for name in ("g1", "young", "g2", "g3", "none")]

        codes = broker.at(NOW_NS, aggregation.collect_groups(broker.queue, checks, limit=2))

        assert codes == "10120"

    def test_the_name_of_an_empty_group_is_deleted(self, broker: Broker) -> None:
        broker.raw.sadd(broker.queue.groups, "g")

        assert collect_groups(broker) == "0"

        assert not broker.raw.exists(broker.queue.groups)

    def test_a_group_key_of_another_type_is_reported_and_skipped(self, broker: Broker) -> None:
        broker.raw.set(broker.queue.group("odd"), "strange")
        join(broker, "a", at_s=-100)
        checks = [GroupCheck(name, "s", 120, 60) for name in ("odd", "g")]

        assert broker.at(NOW_NS, aggregation.collect_groups(broker.queue, checks, limit=9)) == "x1"

    def test_group_names_are_listed_in_pages(self, broker: Broker) -> None:
        names = {f"user:{number}" for number in range(1000)}
        broker.raw.sadd(broker.queue.groups, *names)

        found: set[str] = set()
        cursor, largest = 0, 0
        while True:
            cursor, page = broker.run(aggregation.list_groups(broker.queue, cursor))
            found.update(page)
            largest = max(largest, len(page))
            if cursor == 0:
                break

        assert found == names
        assert largest < 300


class TestRead:
    def test_members_are_read_in_pages_oldest_first(self, broker: Broker) -> None:
        for number in range(5):
            join(broker, f"id-{4 - number}", at_s=number - 100)
        collect_groups(broker)

        pages = [
            broker.run(aggregation.read_members(broker.queue, "g", "s", skip=skip, count=2)) for skip in (0, 2, 4, 5)
        ]

        assert pages == [
            [("id-4", b"id-4"), ("id-3", b"id-3")],
            [("id-2", b"id-2"), ("id-1", b"id-1")],
            [("id-0", b"id-0")],
            [],
        ]

    def test_a_page_is_bounded_by_bytes_and_holds_at_least_one(self, broker: Broker) -> None:
        tasks = [NewTask(name, b"m" * 1000, group="g") for name in ("a", "b", "c")]
        broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, new_tasks.ReceiptSlot("t")))
        collect_groups(broker, at_s=60)

        def page(max_bytes: int) -> list[str]:
            found = broker.run(aggregation.read_members(broker.queue, "g", "s", skip=0, max_bytes=max_bytes))
            return [task_id for task_id, _ in found or ()]

        assert (page(1), page(1001), page(10**6)) == (["a"], ["a", "b"], ["a", "b", "c"])

    def test_a_deleted_member_has_no_message(self, broker: Broker) -> None:
        take(broker, "a", "b", "c")
        broker.raw.delete(broker.queue.task("a"), broker.queue.task("c"))
        broker.raw.set(broker.queue.task("c"), "no hash")

        found = broker.run(aggregation.read_members(broker.queue, "g", "s", skip=0))

        assert found == [("a", b""), ("b", b"b"), ("c", b"")]

    def test_unreadable_members_are_quarantined(self, broker: Broker) -> None:
        take(broker, "a", "bad", "gone")
        broker.raw.delete(broker.queue.task("gone"))

        count = broker.at(NOW_NS, aggregation.expel(broker.queue, "g", "s", ["bad", "gone", "stranger"]))

        assert count == 1
        assert set_members(broker) == ["a"]
        assert broker.raw.hget(broker.queue.quarantined("bad"), "msg") == b"bad"
        assert broker.raw.zrange(broker.queue.quarantine, 0, -1, withscores=True) == [(b"bad", NOW_S)]
        assert broker.fields("bad") == {}


class TestCombine:
    def test_a_repeat_is_recognized_after_the_task_has_ended(self, broker: Broker) -> None:
        take(broker, "a")
        combine(broker, 1, NewTask("one", b"m"))
        broker.dequeue()
        broker.settle(Outcome.DONE, "one")

        assert combine(broker, 1, NewTask("one", b"m")) is StoreCode.STORED

        assert broker.pending() == []

    def test_combining_pages_read_during_the_return_of_a_set_is_refused(self, broker: Broker) -> None:
        """Pages read before and after a move contain one member twice and miss another, with the right total."""
        take(broker, "a", "b", "c")
        join(broker, "new", at_s=1)
        first = broker.run(aggregation.read_members(broker.queue, "g", "s", skip=0, count=1))
        reclaim(broker, at_s=120, members=1)
        second = broker.run(aggregation.read_members(broker.queue, "g", "s", skip=1))
        assert (first, second, set_members(broker)) == ([("a", b"a")], [("c", b"c")], ["b", "c"])

        assert combine(broker, 2, NewTask("one", b"m"), at_s=120) is StoreCode.GONE

        assert (members(broker), set_members(broker)) == (["a", "new"], ["b", "c"])

    def test_combining_a_set_past_its_deadline_is_refused(self, broker: Broker) -> None:
        """This holds whether or not a worker has started to return its members."""
        take(broker, "a")

        assert combine(broker, 1, NewTask("one", b"m"), at_s=120) is StoreCode.GONE
        assert combine(broker, 1, NewTask("one", b"m"), at_s=119) is StoreCode.STORED

    def test_a_crash_after_combining_neither_loses_nor_duplicates_a_task(self, broker: Broker) -> None:
        """A set is larger than one call deletes. Only members to delete are left, and no worker returns them."""
        ids = [f"id-{number:03}" for number in range(250)]
        take(broker, *ids)
        assert combine(broker, 250, NewTask("one", b"m")) is StoreCode.STORED
        assert broker.raw.zcard(broker.queue.combined) == 1

        found = reclaim(broker)
        assert (found.sets, found.moved, found.to_sweep) == (0, 0, 1)
        answers = [broker.run(aggregation.sweep(broker.queue)) for _ in range(3)]

        assert answers == [(100, 1), (50, 0), (0, 0)]
        assert broker.pending() == ["one"]
        assert left(broker) == {"pending", "t:one"}
        assert not broker.raw.exists(broker.queue.combined, broker.queue.combined_set("s"))

    def test_large_messages_are_deleted_in_several_calls(self, broker: Broker) -> None:
        tasks = [NewTask(f"id-{number}", b"m" * 400_000, group="g") for number in range(5)]
        broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, new_tasks.ReceiptSlot("t")))
        collect_groups(broker, at_s=60)

        assert combine(broker, 5, None) is StoreCode.STORED

        assert broker.run(aggregation.sweep(broker.queue)) == (2, 0), "the first three took a megabyte"


class TestLocks:
    def test_combining_releases_the_unique_lock_of_a_member(self, broker: Broker) -> None:
        locks = [broker.queue.unique("t", name) for name in (b"a", b"b")]
        for name, lock in zip(("a", "b"), locks, strict=True):
            join(broker, name, unique_key=lock, unique_s=3600, at_s=-100)
        broker.raw.set(locks[1], "another task")
        collect_groups(broker)

        combine(broker, 2, None)

        assert [broker.raw.get(lock) for lock in locks] == [None, b"another task"]

    @rows("size", [0, 5, 300, 70_000])
    def test_a_lock_named_only_in_the_message_is_released(self, broker: Broker, size: int) -> None:
        """Go stores the lock name like this."""
        lock = broker.queue.unique("t", b"x" * size)
        message = build_message(
            payload=b"x" * size,
            type="t",
            id="a",
            queue="default",
            retry=25,
            timeout=1800,
            deadline=2**40,
            unique_key=lock,
            retention=9,
            group_key="g",
            headers={"k": "v"},
        )
        broker.run(
            new_tasks.enqueue(
                broker.queue, [NewTask("a", encode_message(message), group="g")], new_tasks.ReceiptSlot("t")
            )
        )
        broker.raw.zadd(broker.queue.group("g"), {"a": NOW_S - 100})
        broker.raw.set(lock, "a")
        collect_groups(broker)

        combine(broker, 1, None)

        assert left(broker) == set()

    def test_callers_that_wait_for_a_member_are_notified(self, one_server: Broker) -> None:
        take(one_server, "a")
        one_server.run(views.read_task(one_server.queue, "a", publish_end=True))
        listening = one_server.raw.pubsub(ignore_subscribe_messages=True)
        listening.subscribe(one_server.queue.done)
        while listening.get_message(timeout=30) is not None:
            pass

        combine(one_server, 1, None)

        notification = None
        while notification is None:
            notification = listening.get_message(timeout=30)
        listening.close()
        assert notification["data"] == b"a"


class TestSweep:
    def test_a_member_that_is_in_another_list_too_is_not_deleted(self, broker: Broker) -> None:
        """Another program put the id in two places. A task that may still run is not deleted."""
        take(broker, "a", "b")
        broker.raw.hset(broker.queue.task("a"), "state", "pending")

        combine(broker, 2, None)

        assert broker.fields("a")["msg"] == b"a"
        assert broker.fields("b") == {}

    def test_foreign_entries_are_removed_from_the_list_of_sets_to_delete(self, broker: Broker) -> None:
        broker.raw.zadd(broker.queue.combined, {"odd": 1, "gone": 2})
        broker.raw.set(broker.queue.combined_set("odd"), "strange")

        assert [broker.run(aggregation.sweep(broker.queue)) for _ in range(2)] == [(0, 1), (0, 0)]

        assert broker.raw.get(broker.queue.combined_set("odd")) == b"strange"


class TestReclaim:
    def test_the_name_of_an_emptied_group_is_stored_again(self, broker: Broker) -> None:
        take(broker, "a", "b")
        assert not broker.raw.exists(broker.queue.groups)

        assert reclaim(broker) == aggregation.Reclaimed(True, 1, 0, 0, 0, 0)

        assert broker.raw.zrange(broker.queue.group("g"), 0, -1, withscores=True) == [
            (b"a", NOW_S - 100),
            (b"b", NOW_S - 100),
        ]
        assert broker.raw.smembers(broker.queue.groups) == {b"g"}
        assert not broker.raw.exists(broker.queue.aggregation_sets)

    def test_returned_members_join_newer_members(self, broker: Broker) -> None:
        take(broker, "a", "b", "c")
        join(broker, "new")

        answers = [reclaim(broker, members=2), reclaim(broker, members=2), reclaim(broker, members=2)]

        assert [(each.sets, each.moved) for each in answers] == [(0, 2), (1, 1), (0, 0)]
        assert members(broker) == ["a", "b", "c", "new"]
        assert broker.fields("a")["state"] == b"aggregating"

    def test_a_group_may_have_colons_in_its_name(self, broker: Broker) -> None:
        take(broker, "a", group="user:1:mail")

        reclaim(broker)

        assert members(broker, "user:1:mail") == ["a"]

    def test_entries_that_name_no_set_are_deleted(self, broker: Broker) -> None:
        queue = broker.queue
        broker.raw.set(queue.aggregation_set("odd", "s"), "strange")
        entries = ["", "nonsense", queue.group("g"), queue.aggregation_set("odd", "s"), queue.aggregation_set("g", "s")]
        broker.raw.zadd(queue.aggregation_sets, dict.fromkeys(entries, 1))

        assert reclaim(broker) == aggregation.Reclaimed(True, 0, 0, 5, 0, 0)

        assert broker.raw.get(queue.aggregation_set("odd", "s")) == b"strange"

    def test_a_damaged_group_does_not_stop_the_return_of_other_sets(self, broker: Broker) -> None:
        for name in ("odd", "g"):
            take(broker, name, group=name)
        broker.raw.set(broker.queue.group("odd"), "strange")

        assert reclaim(broker) == aggregation.Reclaimed(True, 1, 0, 0, 1, 0)
        assert reclaim(broker).put_off == 0
        broker.raw.delete(broker.queue.group("odd"))

        assert reclaim(broker, at_s=200).sets == 1
        assert members(broker, "odd") == ["odd"]

    def test_the_return_of_sets_is_bounded_per_call(self, broker: Broker) -> None:
        for number in range(30):
            take(broker, f"id-{number}", group=f"g{number}")

        assert [reclaim(broker).sets for _ in range(3)] == [20, 10, 0]
