"""Test a scheduler's requests on every store: firings that count once, markers, and data for tools."""

import itertools

import pytest

from taskq_core.broker.operations import schedules, services
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.schedules import Mark, Ran, Tick
from taskq_core.errors import BrokerFullError
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

SECOND = 1_000_000_000
_callers = itertools.count()


def adopt(broker: Broker, *entries: str, at_s: int = 0) -> list[Mark]:
    answer = broker.at(NOW_NS + at_s * SECOND, schedules.adopt(broker.queue, entries))
    assert answer.now_ns == NOW_NS + at_s * SECOND
    return answer.marks


def tick(broker: Broker, *ticks: Tick, at_s: int = 0) -> str:
    """Send firings as a caller that never called before."""
    lane = ReceiptSlot(f"scheduler{next(_callers)}")
    answer = broker.at(NOW_NS + at_s * SECOND, schedules.tick(broker.queue, ticks, lane))
    assert answer.now_ns == NOW_NS + at_s * SECOND
    return answer.codes


def firing(entry: str, before_s: int, at_s: int, **options: object) -> Tick:
    """A firing at `at_s` seconds from NOW_S, whose task is named after both."""
    task = NewTask(f"{entry}{at_s}", b"m", **options)  # type: ignore[arg-type]
    return Tick(entry, NOW_S + before_s, NOW_S + at_s, task)


class TestAdopt:
    def test_a_mark_is_kept_90_days_from_its_last_use(self, broker: Broker) -> None:
        adopt(broker, "a")
        broker.raw.expire(broker.queue.tick("a"), 100)

        adopt(broker, "a")

        assert schedules.MARK_KEPT_S - 600 < broker.raw.ttl(broker.queue.tick("a")) <= schedules.MARK_KEPT_S

    @rows("mark", ["", "nonsense", ":", "12", "12:x", f"0{NOW_S}:", f"{NOW_S + schedules.MARK_AHEAD_S + 1}:"])
    def test_an_entry_with_an_invalid_mark_begins_now(self, broker: Broker, mark: str) -> None:
        broker.raw.set(broker.queue.tick("a"), mark)

        assert adopt(broker, "a") == [Mark(NOW_S, None)]
        assert tick(broker, firing("a", 0, 1), at_s=1) == "1"

    def test_an_invalid_mark_does_not_stop_other_entries(self, broker: Broker) -> None:
        adopt(broker, "a", "b")
        broker.raw.delete(broker.queue.tick("a"))
        broker.raw.rpush(broker.queue.tick("a"), "a list")

        assert tick(broker, firing("a", 0, 1), firing("b", 0, 1), at_s=1) == "s1"
        assert adopt(broker, "a", "b", at_s=2) == [Mark(NOW_S + 2, None), Mark(NOW_S + 1, NOW_S + 1)]
        assert tick(broker, firing("a", 2, 3), at_s=3) == "1"

    def test_a_clock_set_back_slightly_repeats_no_firing(self, broker: Broker) -> None:
        broker.raw.set(broker.queue.tick("a"), f"{NOW_S + 600}:{NOW_S + 600}")

        assert adopt(broker, "a") == [Mark(NOW_S + 600, NOW_S + 600)]


def counted(entry: str, before_s: int, at_s: int, task_id: str = "") -> Tick:
    """A firing whose task is counted under the entry's name."""
    task = NewTask(task_id or f"{entry}{at_s}", b"m")
    return Tick(entry, NOW_S + before_s, NOW_S + at_s, task, entry)


class TestRuns:
    def take(self, broker: Broker, *names: str) -> list[tuple[str, int, int]]:
        answer = broker.run(schedules.take_runs(broker.queue, names))
        return [(each.run_key, each.count, each.last_s - NOW_S) for each in answer]

    def tell(self, broker: Broker, *runs: tuple[str, int, int]) -> int:
        return broker.run(
            schedules.acknowledge_runs(broker.queue, [Ran(name, count, NOW_S + at_s) for name, count, at_s in runs])
        )

    def test_a_firing_is_stored_and_counted_in_one_step(self, broker: Broker) -> None:
        """A firing that is not stored is not counted: skipped, superseded, too early, or with a taken id."""
        adopt(broker, "a", "b", "c")

        codes = tick(
            broker,
            counted("a", 0, 1),
            counted("a", 1, 2),
            counted("b", 0, 1, "a1"),
            counted("b", 9, 10),
            counted("a", 2, 99),
            Tick("c", NOW_S, NOW_S + 1, None, "c"),
            at_s=2,
        )

        assert codes == "110se-"
        assert self.take(broker, "c", "a", "b") == [("a", 2, 2)]
        assert schedules.MARK_KEPT_S - 600 < broker.raw.ttl(broker.queue.runs) <= schedules.MARK_KEPT_S

    def test_outcomes_being_reported_are_kept_until_acknowledged(self, broker: Broker) -> None:
        """Newer outcomes wait, so that a repeated request gets the same answer."""
        adopt(broker, "a")
        tick(broker, counted("a", 0, 1), at_s=1)

        assert self.take(broker, "a") == [("a", 1, 1)]
        tick(broker, counted("a", 1, 2), counted("a", 2, 3), at_s=3)
        assert self.take(broker, "a") == [("a", 1, 1)]
        assert self.tell(broker, ("a", 1, 1)) == 1
        assert self.take(broker, "a") == [("a", 2, 3)]
        assert self.tell(broker, ("a", 2, 3)) == 1
        assert self.take(broker, "a") == []
        assert not broker.raw.exists(broker.queue.runs)

    def test_a_late_acknowledgement_deletes_no_newer_outcomes(self, broker: Broker) -> None:
        adopt(broker, "a")
        tick(broker, counted("a", 0, 1), at_s=1)
        self.take(broker, "a")
        self.tell(broker, ("a", 1, 1))
        tick(broker, counted("a", 1, 2), at_s=2)
        self.take(broker, "a")

        assert self.tell(broker, ("a", 1, 1)) == 0
        assert self.take(broker, "a") == [("a", 1, 2)]

    def test_a_key_of_another_type_is_overwritten(self, broker: Broker) -> None:
        adopt(broker, "a")
        broker.raw.set(broker.queue.runs, "no hash")

        assert self.take(broker, "a") == []
        assert self.tell(broker, ("a", 1, 1)) == 0
        assert tick(broker, counted("a", 0, 1), at_s=1) == "1"
        assert self.take(broker, "a") == [("a", 1, 1)]

    def test_an_invalid_count_starts_again_at_zero(self, broker: Broker) -> None:
        adopt(broker, "a")
        broker.raw.hset(broker.queue.runs, "a", "nonsense")

        assert self.take(broker, "a") == []
        assert tick(broker, counted("a", 0, 1), at_s=1) == "1"
        assert self.take(broker, "a") == [("a", 1, 1)]


class TestTick:
    def test_another_scheduler_cannot_repeat_a_firing_after_its_task_was_deleted(self, broker: Broker) -> None:
        """It can repeat neither this firing nor an earlier firing that was never processed."""
        adopt(broker, "a")
        assert tick(broker, firing("a", 0, 5), at_s=5) == "1"
        broker.raw.delete(broker.queue.task("a5"), broker.queue.pending)

        before = {key: value for key, value in broker.dump().items() if b"rcpt" not in key}
        assert tick(broker, firing("a", 0, 5), at_s=9) == "s"
        assert tick(broker, firing("a", 0, 4), at_s=9) == "s"

        assert {key: value for key, value in broker.dump().items() if b"rcpt" not in key} == before

    def test_one_call_may_contain_several_firings_of_an_entry(self, broker: Broker) -> None:
        adopt(broker, "a", "b")

        codes = tick(broker, firing("a", 0, 1), firing("a", 1, 2), firing("b", 0, 2), firing("a", 2, 3), at_s=3)

        assert codes == "1111"
        assert broker.pending() == ["a1", "a2", "b2", "a3"]

    def test_a_repeated_call_changes_nothing(self, broker: Broker) -> None:
        adopt(broker, "a", "b")
        broker.enqueue("b1")
        operation = at_time(
            NOW_NS + SECOND, schedules.tick(broker.queue, [firing("a", 0, 1), firing("b", 0, 1)], ReceiptSlot("s"))
        )
        first = broker.run(operation).codes
        before = broker.dump()

        assert first == "10"
        assert broker.run(operation).codes == first
        assert broker.dump() == before

    def test_tasks_of_firings_follow_their_options(self, broker: Broker) -> None:
        adopt(broker, "a")

        codes = tick(
            broker,
            firing("a", 0, 1, start_at_s=NOW_S + 100),
            firing("a", 1, 2, start_in_ms=1500),
            firing("a", 2, 3, group="g"),
            at_s=3,
        )

        assert codes == "111"
        assert broker.raw.zrange(broker.queue.scheduled, 0, -1, withscores=True) == [
            (b"a2", NOW_S + 5),
            (b"a1", NOW_S + 100),
        ]
        assert broker.raw.zrange(broker.queue.group("g"), 0, -1) == [b"a3"]
        assert broker.pending() == []

    def test_a_hundred_firings_are_stored_in_one_call(self, broker: Broker) -> None:
        adopt(broker, "a")

        codes = tick(broker, *(firing("a", second, second + 1) for second in range(schedules.TICK_MAX)), at_s=200)

        assert codes == "1" * schedules.TICK_MAX
        assert broker.pending() == [f"a{second}" for second in range(1, schedules.TICK_MAX + 1)]

    def test_a_full_redis_refuses_a_firing_completely(self, one_server: Broker) -> None:
        """Nothing is enqueued and the mark is unchanged, so the firing can be sent again."""
        adopt(one_server, "a")
        assert one_server.store.server is not None
        before = one_server.dump()
        one_server.store.server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(BrokerFullError):
                tick(one_server, firing("a", 0, 1), at_s=1)
        finally:
            one_server.store.server.command("CONFIG", "SET", "maxmemory", "0")

        assert one_server.dump() == before


class TestLead:
    def test_a_full_redis_grants_the_lead_of_a_scheduler(self, one_server: Broker) -> None:
        assert one_server.store.server is not None
        one_server.store.server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            assert one_server.run(services.lead("{l}", owner="s1", leader_ms=1000)) is True
            one_server.run(schedules.announce("{s}", [b"entry"], ttl_s=9))
            assert one_server.run(schedules.record_firing("{h}", b"event", at_s=NOW_S)) is True
        finally:
            one_server.store.server.command("CONFIG", "SET", "maxmemory", "0")


class TestHistory:
    def test_the_history_is_kept_for_its_retention(self, broker: Broker) -> None:
        key = broker.keys.scheduler_history("a")

        assert broker.run(schedules.record_firing(key, b"new", at_s=NOW_S, kept_s=100)) is True
        assert broker.run(schedules.record_firing(key, b"new", at_s=NOW_S, kept_s=100)) is False
        assert 90 < broker.raw.ttl(key) <= 100
