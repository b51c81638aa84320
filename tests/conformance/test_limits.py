"""Test limits on every store: apply random operations to tasks, and count the tasks that are handed out."""

import random
from collections import defaultdict
from typing import Any

import pytest

from taskq_core.broker.operations import actions, limits, runs, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.operations.services import Verdict
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, Broker

MS = 1_000_000


def places(limit: int, key: str = "", name: str = "t") -> str:
    return f"c {limit} 1 {name}:{key}"


def sequence(key: str, on_failure: str = "block") -> str:
    return f"s {on_failure} 1 t:{key}"


def bucket(tokens: int, ms: int, burst: int, *, cost: int = 1, key: str = "") -> str:
    return f"r b/{tokens}/{ms}/{burst} {cost} t:{key}"


def fixed(tokens: int, ms: int, *, cost: int = 1, key: str = "") -> str:
    return f"r w/{tokens}/{ms} {cost} t:{key}"


class Life:
    """Drive one queue by hand with a separate clock, and record every start."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.now_ns = NOW_NS
        self.calls = 0
        self.active: list[str] = []
        self.starts: list[tuple[int, str]] = []

    def run(self, operation: Any) -> Any:
        return self.broker.run(operation)

    def pass_time(self, ms: int) -> None:
        self.now_ns += ms * MS

    def enqueue(self, task_id: str, *lines: str, **options: Any) -> str:
        return self.broker.enqueue(task_id, limit="\n".join(lines), now_ns=self.now_ns, **options)

    def admit(self) -> limits.AdmittedNow:
        return self.run(at_time(self.now_ns, limits.admit(self.broker.queue, owner="w", leader_ms=60_000)))

    def take(self, limit: int = 100) -> list[str]:
        self.calls += 1
        ids = self.broker.dequeue(call=self.calls, limit=limit, lease_s=600, now_ns=self.now_ns)
        self.active += ids
        self.starts += [(self.now_ns, each) for each in ids]
        return ids

    def settle(self, outcome: Outcome, *ids: str, **options: Any) -> None:
        assert self.broker.settle(outcome, *ids, now_ns=self.now_ns, **options) == "1" * len(ids)
        self.active = [each for each in self.active if each not in ids]

    def forward(self) -> None:
        self.run(at_time(self.now_ns, services.forward(self.broker.queue, owner="w", leader_ms=60_000)))

    def act(self, action: Action, *ids: str, **options: Any) -> list[str]:
        return self.run(at_time(self.now_ns, actions.act(self.broker.queue, action, ids, **options)))

    def waiting(self) -> int:
        return self.run(limits.count_limited(self.broker.queue))

    def lines(self) -> dict[str, tuple[int, int]]:
        """Holders and tasks that wait, by slot."""
        found: dict[str, tuple[int, int]] = {}
        cursor = ""
        while cursor != "0":
            cursor, page = self.run(limits.list_limits(self.broker.queue, cursor or "0"))
            found |= page
        return found

    def leftovers(self) -> list[str]:
        """Keys of limits, but for what only remembers."""
        queue = self.broker.queue
        found = [each.decode() for each in self.broker.raw.scan_iter(f"{queue.limits_prefix}*")]
        return sorted(
            each.removeprefix(queue.limits_prefix) for each in found if not each.startswith(f"{queue.limits_prefix}r:")
        )


@pytest.fixture
def life(broker: Broker) -> Life:
    return Life(broker)


def test_a_concurrency_limit_admits_the_next_task_when_one_ends(life: Life) -> None:
    for number in range(5):
        assert life.enqueue(f"a{number}", places(2)) == "1"
    assert life.broker.pending() == ["a0", "a1"]
    assert life.waiting() == 3
    assert life.broker.fields("a2")["state"] == b"scheduled"
    assert life.take() == ["a0", "a1"]
    assert life.take() == []
    life.settle(Outcome.DONE, "a1")
    assert life.broker.pending() == ["a2"]
    assert life.take() == ["a2"]
    life.settle(Outcome.DONE, "a0", "a2")
    assert life.take() == ["a3", "a4"]
    life.settle(Outcome.DONE, "a3", "a4")
    assert life.leftovers() == ["wake"] or life.leftovers() == []


def test_each_key_has_its_own_limit_and_shares_the_common_limit(life: Life) -> None:
    for number in range(3):
        for key in "xyz":
            life.enqueue(f"{key}{number}", places(1, key, "t/key"), places(2))
    assert life.take() == ["x0", "y0"]
    life.settle(Outcome.DONE, "x0")
    assert life.take() == ["z0"]  # it was in the line of all before x1, which had to wait for its key
    life.settle(Outcome.DONE, "y0")
    life.settle(Outcome.DONE, "z0")
    assert life.take() == ["x1", "y1"]


def test_many_waiting_tasks_of_one_key_do_not_block_other_keys(life: Life) -> None:
    for number in range(300):
        life.enqueue(f"many{number}", places(1, "many", "t/key"), places(3))
    life.enqueue("other", places(1, "other", "t/key"), places(3))
    assert life.take() == ["many0", "other"]


def test_a_sequence_keeps_its_order_and_blocks_when_a_task_is_archived(life: Life) -> None:
    for number in range(4):
        life.enqueue(f"a{number}", sequence("k"))
    assert life.take() == ["a0"]
    life.settle(Outcome.RETRY, "a0", delay_ms=5000)
    assert life.take() == []
    life.pass_time(6000)
    life.forward()
    assert life.take() == ["a0"]
    life.settle(Outcome.ARCHIVE, "a0")
    assert life.take() == []
    assert life.act(Action.DELETE, "a0") == ["ok"]
    assert life.take() == ["a1"]
    life.settle(Outcome.ARCHIVE, "a1")
    assert life.act(Action.RUN, "a1") == ["ok"]
    assert life.take() == ["a1"]
    life.settle(Outcome.DONE, "a1")
    assert life.take() == ["a2"]


def test_a_sequence_with_skip_continues_when_a_task_is_archived(life: Life) -> None:
    for number in range(2):
        life.enqueue(f"a{number}", sequence("k", "skip"))
    life.enqueue("b0", sequence("other", "skip"))
    assert life.take() == ["a0", "b0"]
    life.settle(Outcome.RETRY, "a0", delay_ms=1000)
    assert life.take() == []
    life.pass_time(2000)
    life.forward()
    life.take()
    life.settle(Outcome.ARCHIVE, "a0")
    assert life.take() == ["a1"]


def most_in_a_span(starts: list[tuple[int, int]], ms: int) -> int:
    """The largest cost of starts in any span of so many milliseconds, its end left out."""
    most, first, total = 0, 0, 0
    for at_ns, cost in starts:
        total += cost
        while starts[first][0] <= at_ns - ms * MS:
            total -= starts[first][1]
            first += 1
        most = max(most, total)
    return most


@pytest.mark.parametrize("seed", range(3))
def test_a_fixed_window_starts_at_most_twice_its_number_in_any_interval(life: Life, seed: int) -> None:
    rng = random.Random(seed)
    for step in range(250):
        if rng.random() < 0.6:
            life.enqueue(f"a{step}", fixed(4, 1000))
        else:
            life.take(rng.randint(1, 5))
            life.pass_time(rng.choice([1, 90, 400]))
            life.admit()
    starts = [(at_ns, 1) for at_ns, _ in life.starts]
    by_window: dict[int, int] = defaultdict(int)
    for at_ns, _ in starts:
        by_window[at_ns // 1_000_000_000] += 1
    assert max(by_window.values()) == 4
    assert most_in_a_span(starts, 1000) <= 8


def test_tokens_reserved_for_untaken_tasks_are_not_granted_twice(life: Life) -> None:
    for number in range(20):
        life.enqueue(f"a{number}", bucket(10, 1000, 2))
    for _ in range(50):  # while no worker is free
        life.pass_time(100)
        life.admit()
    assert len(life.broker.pending()) == 2
    assert len(life.take()) == 2
    assert life.take() == []
    life.pass_time(100)
    life.admit()
    assert len(life.take()) == 1


def test_a_call_that_costs_more_than_a_full_bucket_runs_and_leaves_a_debt(life: Life) -> None:
    life.enqueue("large", bucket(10, 1000, 2, cost=7))
    life.enqueue("small", bucket(10, 1000, 2))
    assert life.take() == ["large"]
    life.pass_time(500)
    life.admit()
    assert life.take() == []
    life.pass_time(100)
    life.admit()
    assert life.take() == ["small"]


def test_a_lost_worker_releases_its_permit_with_its_lease(life: Life) -> None:
    life.enqueue("a", places(1))
    life.enqueue("b", places(1))
    life.take()
    life.pass_time(700_000)
    found = life.run(at_time(life.now_ns, services.list_expired(life.broker.queue, grace_s=30))).tasks
    recoveries = [services.Recovery(each, Verdict.RETRY, b"m") for each in found]
    assert life.run(at_time(life.now_ns, services.recover(life.broker.queue, recoveries, grace_s=30))) == "1"
    assert life.broker.pending() == ["b"]


ENDS: dict[str, Any] = {
    "done": lambda life: life.settle(Outcome.DONE, "a"),
    "completed": lambda life: life.settle(Outcome.COMPLETE, "a", seconds=60),
    "retry": lambda life: life.settle(Outcome.RETRY, "a"),
    "retry without count": lambda life: life.settle(Outcome.RETRY_UNCOUNTED, "a"),
    "archived": lambda life: life.settle(Outcome.ARCHIVE, "a"),
    "quarantined": lambda life: life.run(runs.quarantine(life.broker.queue, "a", owner="w1", run=1)),
}
WITHDRAWN: dict[str, Any] = {
    "archived": lambda life: life.act(Action.ARCHIVE, "a"),
    "deleted": lambda life: life.act(Action.DELETE, "a"),
    "put off": lambda life: life.act(Action.WAIT, "a", start="+60000"),
    "rescheduled": lambda life: life.run(actions.change_task(life.broker.queue, "a", start="+60000")),
    "revoked": lambda life: (life.run(actions.revoke(life.broker.queue, "a")), life.admit()),
    "moved": lambda life: life.run(actions.copy_out(life.broker.queue, ["a"], token="1", target="b")),
}
LINES = (sequence("k", "skip"), places(1), bucket(1, 1000, 1))


@pytest.mark.parametrize("way", ENDS)
def test_every_end_of_a_run_releases_its_permits(life: Life, way: str) -> None:
    life.enqueue("a", *LINES[1:])
    life.enqueue("b", *LINES[1:])
    assert life.take() == ["a"]
    ENDS[way](life)
    life.pass_time(1000)
    life.admit()
    assert life.take() == ["b"]


@pytest.mark.parametrize("way", WITHDRAWN)
@pytest.mark.parametrize("lines", [LINES[:1], LINES[1:2], LINES[2:], LINES], ids=["sequence", "places", "rate", "all"])
def test_every_exit_from_pending_releases_the_permits(life: Life, way: str, lines: tuple[str, ...]) -> None:
    life.enqueue("a", *lines)
    life.enqueue("b", *lines)
    assert life.broker.pending() == ["a"]
    WITHDRAWN[way](life)
    assert life.broker.pending() == ["b"]


def test_a_requeued_task_keeps_its_permits_and_waits_for_new_tokens(life: Life) -> None:
    for each in "ab":
        life.enqueue(each, *LINES)
    assert life.take() == ["a"]

    life.settle(Outcome.REQUEUE, "a")

    assert life.take() == []
    assert life.waiting() == 2
    life.pass_time(1000)
    life.admit()
    assert life.take() == ["a"]


def test_a_new_payload_keeps_the_position_of_a_waiting_task(life: Life) -> None:
    for each in "abc":
        life.enqueue(each, places(1))
    old = life.broker.fields("b")["msg"]

    assert life.run(actions.change_task(life.broker.queue, "b", old=old, new=b"other")) == actions.OK

    assert life.take() == ["a"]
    life.settle(Outcome.DONE, "a")
    assert life.take() == ["b"]


@pytest.mark.parametrize("way", WITHDRAWN)
def test_every_operation_that_ends_the_wait_removes_the_task_from_the_line(life: Life, way: str) -> None:
    life.enqueue("holder", *LINES)
    life.enqueue("a", *LINES)
    life.enqueue("b", *LINES)
    assert life.take() == ["holder"]
    WITHDRAWN[way](life)
    life.settle(Outcome.DONE, "holder")
    life.pass_time(1000)
    life.admit()
    assert life.take() == ["b"]


def test_a_manually_run_task_does_not_wait_for_a_limit(life: Life) -> None:
    life.enqueue("holder", *LINES)
    life.enqueue("a", *LINES)
    assert life.act(Action.RUN, "a") == ["ok"]
    assert life.take() == ["holder", "a"]
    life.settle(Outcome.DONE, "a", "holder")
    assert life.waiting() == 0


def test_limits_of_tasks_pushed_by_go_are_checked_at_the_dequeue(life: Life) -> None:
    life.broker.enqueue("a", now_ns=life.now_ns)
    life.broker.enqueue("b", now_ns=life.now_ns)
    assert life.take() == ["a", "b"]
    codes = [
        life.run(at_time(life.now_ns, limits.claim(life.broker.queue, each, places(1), owner="w1", run=1)))
        for each in "ab"
    ]
    assert codes == [limits.ClaimCode.RUN, limits.ClaimCode.WAITS]
    assert life.waiting() == 1
    life.settle(Outcome.DONE, "a")
    assert life.take() == ["b"]
    assert life.run(limits.claim(life.broker.queue, "b", places(1), owner="w1", run=2)) == limits.ClaimCode.RUN
    life.settle(Outcome.DONE, "b")
    assert [each for each in life.leftovers() if each not in ("wake", "keepers")] == []


def test_a_task_forwarded_by_go_past_its_limit_waits_again(life: Life) -> None:
    life.enqueue("holder", places(1))
    life.enqueue("a", places(1))
    raw, queue = life.broker.raw, life.broker.queue
    raw.zrem(queue.scheduled, "a")  # as Go's tools let a scheduled task run
    raw.lpush(queue.pending, "a")
    raw.hset(queue.task("a"), "state", "pending")
    assert life.take() == ["holder"]
    assert life.waiting() == 1
    life.settle(Outcome.DONE, "holder")
    assert life.take() == ["a"]


def test_a_permit_left_by_a_go_worker_is_released(life: Life) -> None:
    life.enqueue("a", places(1))
    life.enqueue("b", places(1))
    raw, queue = life.broker.raw, life.broker.queue
    raw.lrem(queue.pending, 1, "a")  # a Go worker took it, ran it and was done
    raw.delete(queue.task("a"))
    assert life.take() == []
    life.pass_time(16_000)
    life.admit()
    assert life.take() == ["b"]


def test_a_check_finds_dead_holders_and_tasks_missing_from_their_line(life: Life) -> None:
    life.enqueue("a", places(1))
    life.enqueue("b", places(1))
    raw, queue = life.broker.raw, life.broker.queue
    raw.delete(queue.task("a"))
    raw.delete(f"{queue.limits_prefix}w:c:t:")
    raw.delete(queue.limit_checks)
    freed = lost = 0
    cursor = "0"
    while True:
        page = life.run(at_time(life.now_ns, limits.check_limits(queue, cursor=cursor, skip=0)))
        freed, lost, cursor = freed + page.freed, lost + page.lost, page.cursor
        if cursor == "0":
            break
    assert (freed, lost) == (1, 1)
    life.forward()
    assert life.take() == ["b"]


def test_a_check_removes_tasks_deleted_by_go_from_their_line(life: Life) -> None:
    for number in range(4):
        life.enqueue(f"a{number}", bucket(1, 86_400_000, 1))
    raw, queue = life.broker.raw, life.broker.queue
    for deleted in ("a2", "a3"):
        raw.zrem(queue.scheduled, deleted)
        raw.delete(queue.task(deleted))
    assert life.lines() == {"r:t:": (1, 3)}

    cursor = ""
    while cursor != "0":
        cursor = life.run(at_time(life.now_ns, limits.check_limits(queue, cursor=cursor or "0", skip=0))).cursor

    assert life.lines() == {"r:t:": (1, 1)}


def test_a_limit_can_be_changed_while_tasks_wait(life: Life) -> None:
    for number in range(5):
        life.enqueue(f"a{number}", places(1))
        life.enqueue(f"r{number}", bucket(1, 86_400_000, 1))
    assert life.take() == ["a0", "r0"]
    for name, spec in (("c:t", "3"), ("r:t", "b/1000/1000/10")):
        for checks in (False, True):
            assert life.run(limits.set_limit(life.broker.queue, name, spec, checks=checks, cursor="0"))[0] == "0"
    life.pass_time(1)
    life.admit()
    life.pass_time(10)
    life.admit()
    assert sorted(life.take()) == ["a1", "a2", "r1", "r2", "r3", "r4"]
    life.run(limits.set_limit(life.broker.queue, "c:t", "", checks=True, cursor="0"))
    life.settle(Outcome.DONE, "a0", "a1")
    assert life.take() == []
    life.settle(Outcome.DONE, "a2")
    assert life.take() == ["a3"]


def test_a_key_of_another_type_is_overwritten(life: Life) -> None:
    queue, raw = life.broker.queue, life.broker.raw
    for key in ("h:c:t:", "w:c:t:", "due", "check", "wake"):
        raw.set(queue.limits_prefix + key, "strange")
    life.enqueue("a", places(1))
    life.enqueue("b", places(1))
    assert life.take() == ["a"]
    life.settle(Outcome.DONE, "a")
    assert life.take() == ["b"]


def test_the_data_of_an_idle_limit_key_expires(life: Life) -> None:
    life.enqueue("a", bucket(10, 600_000, 5, key="k"))
    key = f"{life.broker.queue.limits_prefix}r:t:k"
    assert life.broker.raw.pttl(key) == -1  # while tokens are kept for it
    assert life.take() == ["a"]
    assert 30_000 < life.broker.raw.pttl(key) <= 61_000
