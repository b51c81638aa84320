"""Test unique locks: on every path of a task, its lock follows its rule, and never outlives the task."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from taskq_core.broker.operations import actions, aggregation, limits, new_tasks, runs, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import NewTask, StoreCode
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.errors import ConfigurationError
from taskq_core.handles.copying import move
from taskq_core.inspector import change, removal
from taskq_core.repair.reconcile import FindingKind, reconcile, run
from taskq_core.wire import (
    Expiry,
    archived_message,
    build_message,
    decode_message,
    encode_message,
    expiry_mark,
)
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.conformance.test_inspector_states import run_plan
from tests.rows import rows

S = 1_000_000_000
RULES = {"asynq": "", "until_started": "sd", "until_finished": "fd", "while_exists": "wd"}
WAITS, RUNS, COMPLETED, ARCHIVED, GONE = "waits", "runs", "completed", "archived", "gone"
HELD = {
    "asynq": {WAITS, RUNS, ARCHIVED},  # until its time is over
    "until_started": {WAITS},
    "until_finished": {WAITS, RUNS},
    "while_exists": {WAITS, RUNS, COMPLETED, ARCHIVED},
}


def task(broker: Broker, task_id: str, rule: str = "", *, payload: bytes = b"{}", **options: Any) -> NewTask:
    """A task of which there is to be one."""
    lock = broker.queue.unique("t", b"one")
    fields = {"retry": 5, "group_key": options.get("group", "")}
    message = build_message(type="t", id=task_id, queue="default", payload=payload, unique_key=lock, **fields)
    seconds = options.pop("unique_s", 0 if rule else 3600)
    return NewTask(task_id, encode_message(message), unique_key=lock, unique_s=seconds, unique_rule=rule, **options)


def enqueue(broker: Broker, *tasks: NewTask, now_ns: int = NOW_NS) -> str:
    """Enqueue and return the codes."""
    return broker.at(now_ns, new_tasks.enqueue(broker.queue, tasks, new_tasks.ReceiptSlot(f"lane-{tasks[0].task_id}")))


def locks(broker: Broker) -> dict[bytes, bytes]:
    """Who holds which lock."""
    return {key: broker.raw.get(key) for key in broker.raw.scan_iter("*unique:*", count=1000)}


def settle(outcome: Outcome) -> Callable[[Broker], None]:
    def settled(broker: Broker) -> None:
        broker.dequeue()
        message = decode_message(broker.fields("a")["msg"])
        end = Settlement(
            "a", outcome, 1, encode_message(message), seconds=60, delay_ms=1000, unique_key=message.unique_key
        )
        assert broker.at(NOW_NS, runs.settle(broker.queue, [end], owner="w1")) == "1"

    return settled


def act(action: Action, *before: Callable[[Broker], None], **more: Any) -> Callable[[Broker], None]:
    def acted(broker: Broker) -> None:
        for step in before:
            step(broker)
        assert broker.at(NOW_NS, actions.act(broker.queue, action, ["a"], **more)) == ["ok"]

    return acted


def recover(verdict: services.Verdict) -> Callable[[Broker], None]:
    def recovered(broker: Broker) -> None:
        broker.dequeue(lease_s=30)
        later = NOW_NS + 61 * S
        if verdict is services.Verdict.QUARANTINE:
            broker.raw.hset(broker.queue.task("a"), "msg", b"\xff")
        (lapsed,) = broker.at(later, services.list_expired(broker.queue, grace_s=30)).tasks
        stored = lapsed.message
        if verdict is services.Verdict.ARCHIVE:
            stored = archived_message(decode_message(stored), error="lost", failed_at_s=NOW_S)
        recovery = services.Recovery(lapsed, verdict, stored)
        assert broker.at(later, services.recover(broker.queue, [recovery], grace_s=30)) == "1"

    return recovered


def quarantine(broker: Broker) -> None:
    broker.dequeue()
    assert broker.at(NOW_NS, runs.quarantine(broker.queue, "a", owner="w1", run=1))


def cancel(broker: Broker) -> None:
    assert broker.run(actions.revoke(broker.queue, "a")) == "ok"


def forward(broker: Broker) -> None:
    settle(Outcome.RETRY)(broker)
    assert broker.at(NOW_NS + 9 * S, services.forward(broker.queue, owner="w1", leader_ms=1000)).moved == 1


def lose_the_message(broker: Broker) -> None:
    broker.raw.hdel(broker.queue.task("a"), "msg")
    assert broker.dequeue() == []


def collect_groups(broker: Broker) -> None:
    check = aggregation.GroupCheck("g", "s", timeout_s=60, grace_s=0)
    assert broker.at(NOW_NS, aggregation.collect_groups(broker.queue, [check], limit=1)) == "1"


def combine(broker: Broker) -> None:
    collect_groups(broker)
    whole = NewTask("whole", b"m")
    assert broker.at(NOW_NS, aggregation.combine(broker.queue, "g", "s", 1, whole)) is StoreCode.STORED


def expel(broker: Broker) -> None:
    collect_groups(broker)
    assert broker.at(NOW_NS, aggregation.expel(broker.queue, "g", "s", ["a"])) == 1


def clean(outcome: Outcome) -> Callable[[Broker], None]:
    def cleaned(broker: Broker) -> None:
        settle(outcome)(broker)
        later = NOW_NS + 90 * 86_400 * S + S
        deleted = broker.at(later, services.clean(broker.queue, limit=100))
        assert sum(deleted) == 1

    return cleaned


def remove_the_queue(broker: Broker) -> None:
    broker.run(new_tasks.register_queue(broker.keys.queues, ("default",)))
    run_plan(broker, removal.remove_queue(broker.keys, "default", force=True, progress=None), NOW_NS)


def claim_in_vain(broker: Broker) -> None:
    """As a task whose producer knew nothing of its limit: the worker that took it asks for its permit."""
    broker.enqueue("holder", limit="c 1 1 t:")
    assert sorted(broker.dequeue()) == ["a", "holder"]
    assert broker.at(NOW_NS, limits.claim(broker.queue, "a", "c 1 1 t:", owner="w1", run=1)) is limits.ClaimCode.WAITS


def delete_by_hand(broker: Broker) -> None:
    """Delete a task without a script, so that its lock stays, and let a repair pass release the lock."""
    broker.raw.delete(broker.queue.task("a"))
    reconciled(broker)


def reconciled(broker: Broker) -> list[FindingKind]:
    report = run(reconcile(broker.queue, repair=True, recheck_s=0), broker.run)
    return [finding.kind for finding in report.findings if finding.repaired]


PATHS: dict[str, tuple[Callable[[Broker], None], str]] = {
    "waits": (lambda broker: None, WAITS),
    "starts": (lambda broker: broker.dequeue() and None, RUNS),
    "waits for a limit once it was taken": (claim_in_vain, WAITS),
    "succeeds": (settle(Outcome.DONE), GONE),
    "succeeds and is kept": (settle(Outcome.COMPLETE), COMPLETED),
    "fails": (settle(Outcome.RETRY), WAITS),
    "snoozes": (settle(Outcome.RETRY_UNCOUNTED), WAITS),
    "fails for good": (settle(Outcome.ARCHIVE), ARCHIVED),
    "is given back": (settle(Outcome.REQUEUE), WAITS),
    "fails and is due again": (forward, WAITS),
    "loses its worker": (recover(services.Verdict.RETRY), WAITS),
    "loses its last worker": (recover(services.Verdict.ARCHIVE), ARCHIVED),
    "loses its worker and is unreadable": (recover(services.Verdict.QUARANTINE), GONE),
    "is unreadable": (quarantine, GONE),
    "loses its message": (lose_the_message, GONE),
    "is archived by hand": (act(Action.ARCHIVE), ARCHIVED),
    "is archived by hand after a failure": (act(Action.ARCHIVE, settle(Outcome.RETRY)), ARCHIVED),
    "is deleted": (act(Action.DELETE), GONE),
    "is deleted from the archive": (act(Action.DELETE, settle(Outcome.ARCHIVE)), GONE),
    "is deleted once completed": (act(Action.DELETE, settle(Outcome.COMPLETE)), GONE),
    "is put off": (act(Action.WAIT, start="+60000"), WAITS),
    "is put off from the archive": (act(Action.WAIT, settle(Outcome.ARCHIVE), start="+60000"), WAITS),
    "is run from the archive": (act(Action.RUN, settle(Outcome.ARCHIVE)), WAITS),
    "is run after a failure": (act(Action.RUN, settle(Outcome.RETRY)), WAITS),
    "is cancelled": (cancel, GONE),
    "goes with its queue": (remove_the_queue, GONE),
    "outlives its retention": (clean(Outcome.COMPLETE), GONE),
    "outlives its time in the archive": (clean(Outcome.ARCHIVE), GONE),
    "is deleted by hand": (delete_by_hand, GONE),
}
GROUPED: dict[str, tuple[Callable[[Broker], None], str]] = {
    "waits in a group": (lambda broker: None, WAITS),
    "is being combined": (collect_groups, WAITS),
    "becomes part of another": (combine, GONE),
    "is unreadable in its group": (expel, GONE),
}


@rows("rule", RULES)
@rows("path", [*PATHS, *GROUPED])
def test_the_rule_of_a_lock_decides_on_every_path_how_long_it_is_held(broker: Broker, path: str, rule: str) -> None:
    """While the lock is held a second task is refused, otherwise it takes the lock. No lock is left at the end."""
    options = {"group": "g"} if path in GROUPED else {}
    assert enqueue(broker, task(broker, "a", RULES[rule], **options)) == "1"
    walk, end = {**PATHS, **GROUPED}[path]

    walk(broker)

    lock = broker.queue.unique("t", b"one").encode()
    is_held = end in HELD[rule]
    assert locks(broker) == ({lock: b"a"} if is_held else {})
    assert enqueue(broker, task(broker, "b", RULES[rule], **options)) == ("d" if is_held else "1")
    assert locks(broker) == {lock: b"a" if is_held else b"b"}


@rows("rule", RULES)
def test_a_lock_moves_with_its_task_to_another_queue(broker: Broker, rule: str) -> None:
    """The lock keeps its expiry, if it has one."""
    broker.run(new_tasks.register_queue(broker.keys.queues, ("default",)))
    enqueue(broker, task(broker, "a", RULES[rule]))

    run_plan(broker, move(broker.keys, broker.queue, broker.keys.queue("low"), ["a"], state=None), NOW_NS)

    lock = broker.keys.queue("low").unique("t", b"one")
    assert locks(broker) == {lock.encode(): b"a"}
    assert broker.raw.ttl(lock) == -1 if RULES[rule] else 3590 < broker.raw.ttl(lock) <= 3600
    assert enqueue(broker, task(broker, "b", RULES[rule])) == "1"


class TestConflicts:
    def code(self, broker: Broker, new: NewTask) -> tuple[str, list[str]]:
        """The code of a second task, and whom it names as holder."""
        answer = enqueue(broker, new)
        return str(answer), list(answer.holders)

    def test_a_refused_task_gets_the_id_of_the_lock_holder(self, broker: Broker) -> None:
        enqueue(broker, task(broker, "a\n:é", "fd"))

        assert self.code(broker, task(broker, "b", "fd")) == ("d", ["a\n:é"])
        assert self.code(broker, task(broker, "c", "fe")) == ("x", ["a\n:é"])

    def test_each_task_of_a_batch_gets_the_id_of_its_lock_holder(self, broker: Broker) -> None:
        """This holds for tasks that wait for a limit too."""
        tasks = [NewTask("p1", b"m"), task(broker, "a", "fd"), task(broker, "b", "fe"), task(broker, "c", "fd")]
        tasks.append(NewTask("p2", b"m"))

        answer = broker.at(NOW_NS, new_tasks.enqueue(broker.queue, tasks, new_tasks.ReceiptSlot("l"), max_pending=2))

        assert list(answer.each()) == [("1", ""), ("1", ""), ("x", "a"), ("d", "a"), ("f", "")]
        assert answer.pending == 2

    def test_a_repeat_returns_the_same_lock_holder(self, broker: Broker) -> None:
        enqueue(broker, task(broker, "a", "fd"))
        first = at_time(NOW_NS, new_tasks.enqueue(broker.queue, [task(broker, "b", "fe")], new_tasks.ReceiptSlot("l")))
        assert list(broker.run(first).each()) == [("x", "a")]
        broker.run(actions.act(broker.queue, Action.DELETE, ["a"]))

        assert list(broker.run(first).each()) == [("x", "a")]

    @rows("state", ["pending", "scheduled", "retry", "aggregating"])
    def test_the_latest_arguments_replace_those_of_a_waiting_task(self, broker: Broker, state: str) -> None:
        """The task keeps its id, position and start. Its message is the new one with the old id."""
        options: dict[str, Any] = {"group": "g"} if state == "aggregating" else {}
        start = {"start_in_ms": 60_000} if state == "scheduled" else {}
        enqueue(broker, task(broker, "a", "fr", **options, **start))
        if state == "retry":
            settle(Outcome.RETRY)(broker)
        place = {key: value for key, value in broker.dump().items() if b":t:" not in key and b":rcpt:" not in key}

        answer = self.code(broker, task(broker, "b", "fr", payload=b'{"n":2}', **options))

        assert answer == ("u", ["a"])
        fields = broker.fields("a")
        message = decode_message(fields["msg"])
        assert (message.id, message.payload, message.queue) == ("a", b'{"n":2}', "default")
        assert fields["state"] == state.encode()
        assert not broker.fields("b")
        assert place == {
            key: value for key, value in broker.dump().items() if b":t:" not in key and b":rcpt:" not in key
        }

    def test_a_replaced_task_that_waits_for_a_limit_gets_the_new_expiry(self, broker: Broker) -> None:
        """The task expires in time, although tools show it as scheduled for the year 9999."""
        broker.enqueue("holder", limit="c 1 1 t:")
        enqueue(broker, task(broker, "a", "fr", limit="c 1 1 t:"))
        expiring = {"limit": "c 1 1 t:", "marks": expiry_mark(Expiry(60, True), timeout_s=30)}

        answer = self.code(broker, task(broker, "b", "fr", payload=b'{"n":2}', **expiring))

        assert answer == ("u", ["a"])
        message = decode_message(broker.fields("a")["msg"])
        assert message.headers["taskq-expires"] == str(NOW_S + 61)
        assert message.deadline == NOW_S + 61 + 30
        assert broker.fields("a")["state"] == b"scheduled"

    def test_an_id_of_any_length_is_kept_by_a_replacement(self, broker: Broker) -> None:
        for size in (1, 127, 128, 256):
            broker.store.flush()
            enqueue(broker, task(broker, "x" * size, "fr"))

            enqueue(broker, task(broker, "b", "fr", payload=b'{"n":2}'))

            message = decode_message(broker.fields("x" * size)["msg"])
            assert (message.id, message.payload) == ("x" * size, b'{"n":2}')

    @pytest.mark.parametrize("conflict", ["r", "m"])
    def test_a_task_that_is_being_moved_or_combined_is_not_replaced(self, broker: Broker, conflict: str) -> None:
        """The task is being moved to another queue, or is being combined with its group."""
        enqueue(broker, task(broker, "a", "fd", group="g"))
        collect_groups(broker)
        assert self.code(broker, task(broker, "b", f"f{conflict}", group="g")) == ("d", ["a"])
        broker.store.flush()
        enqueue(broker, task(broker, "a", "fd"))
        broker.at(NOW_NS, actions.copy_out(broker.queue, ["a"], token="ab", target="low"))

        assert self.code(broker, task(broker, "c", f"f{conflict}")) == ("d", ["a"])

    def test_a_replacement_restarts_the_time_of_the_lock(self, broker: Broker) -> None:
        """The time of the lock counts from the new start."""
        lock = broker.queue.unique("t", b"one")
        enqueue(broker, task(broker, "a", "fd", unique_s=60))
        assert 30 <= broker.raw.ttl(lock) <= 60

        enqueue(broker, task(broker, "b", "fr", unique_s=60, start_at_s=NOW_S + 100))
        assert 130 <= broker.raw.ttl(lock) <= 160
        enqueue(broker, task(broker, "c", "fm", start_at_s=NOW_S + 100))

        assert broker.raw.ttl(lock) == -1

    def test_a_full_queue_accepts_a_replacement(self, broker: Broker) -> None:
        enqueue(broker, task(broker, "a", "fr"))
        changed = task(broker, "b", "fr", payload=b'{"n":2}')

        operation = new_tasks.enqueue(broker.queue, [changed], new_tasks.ReceiptSlot("l"), max_pending=1)

        assert list(broker.run(operation).each()) == [("u", "a")]

    def test_the_task_of_a_group_never_replaces_another_task(self, broker: Broker) -> None:
        """Otherwise the members would be lost. They stay and are aggregated again."""
        enqueue(broker, task(broker, "a", "fr"))
        broker.enqueue("member", group="g")
        collect_groups(broker)

        whole = task(broker, "whole", "fr")

        code = broker.at(NOW_NS, aggregation.combine(broker.queue, "g", "s", 1, whole))
        assert code is StoreCode.DUPLICATE
        assert broker.fields("member")


class TestRenewal:
    """A running task holds its lock at least as long as no other worker may run it."""

    def extend(self, broker: Broker, lock_s: int = 40) -> None:
        kept = broker.at(NOW_NS, runs.extend_leases(broker.queue, [("a", 1)], owner="w1", lease_s=30, lock_s=lock_s))
        assert kept.owned == [True]

    @rows("rule", ["", "fd", "wd"])
    def test_a_short_lock_is_renewed_until_the_run_ends(self, broker: Broker, rule: str) -> None:
        lock = broker.queue.unique("t", b"one")
        enqueue(broker, task(broker, "a", rule, unique_s=1))

        broker.dequeue(lease_s=30, lock_s=50)
        assert 30 < broker.raw.ttl(lock) <= 50
        broker.raw.expire(lock, 10)
        self.extend(broker)

        assert 10 < broker.raw.ttl(lock) <= 40

    @rows("rule", ["", "fd", "f0"])
    def test_a_lost_lock_is_taken_again(self, broker: Broker, rule: str) -> None:
        """The lock expired while the task waited, or was deleted by hand."""
        lock = broker.queue.unique("t", b"one")
        endless = rule == "f0"
        enqueue(broker, task(broker, "a", "fd" if endless else rule, unique_s=0 if endless else 5))
        broker.raw.delete(lock)

        broker.dequeue(lock_s=50)
        assert broker.raw.get(lock) == b"a"
        broker.raw.delete(lock)
        self.extend(broker)

        assert broker.raw.get(lock) == b"a"
        assert (broker.raw.ttl(lock) == -1) is endless

    @rows("rule", ["", "fd", "sd", "wd"])
    def test_a_lock_of_another_task_is_not_renewed(self, broker: Broker, rule: str) -> None:
        lock = broker.queue.unique("t", b"one")
        enqueue(broker, task(broker, "a", rule, unique_s=5))
        broker.raw.set(lock, "other", ex=7)

        broker.dequeue(lock_s=50)
        self.extend(broker)
        settled = Settlement("a", Outcome.ARCHIVE, 1, b"m", unique_key=lock)
        broker.at(NOW_NS, runs.settle(broker.queue, [settled], owner="w1"))

        assert broker.raw.get(lock) == b"other"
        assert broker.raw.ttl(lock) <= 7

    def test_a_forged_lock_name_is_not_written(self, broker: Broker) -> None:
        """The lock name is read from a hash that any program may have written."""
        broker.enqueue("a")
        broker.raw.hset(broker.queue.task("a"), "unique_key", broker.queue.prefix + "paused")

        broker.dequeue()
        self.extend(broker)

        assert not broker.raw.exists(broker.queue.paused)


class TestLeftoverLocks:
    """What Go, or a hand, leaves behind."""

    @pytest.mark.parametrize("rule", ["", "fd"])
    def test_the_lock_of_a_deleted_task_can_be_taken(self, broker: Broker, rule: str) -> None:
        """Go's deletion of all pending tasks leaves such locks."""
        enqueue(broker, task(broker, "a", rule))
        broker.raw.delete(broker.queue.task("a"), broker.queue.pending)

        assert enqueue(broker, task(broker, "b", rule)) == "1"

        assert list(locks(broker).values()) == [b"b"]

    def test_the_lock_of_a_task_archived_by_go_can_be_taken(self, broker: Broker) -> None:
        """Go does not release the lock when it archives a task."""
        enqueue(broker, task(broker, "a", "fd"))
        broker.raw.delete(broker.queue.pending)
        broker.raw.zadd(broker.queue.archived, {"a": NOW_S})
        broker.raw.hset(broker.queue.task("a"), "state", "archived")

        assert enqueue(broker, task(broker, "b", "fd")) == "1"

        assert list(locks(broker).values()) == [b"b"]

    def test_a_lock_of_a_reused_id_can_be_taken(self, broker: Broker) -> None:
        """The new task with that id has another lock."""
        enqueue(broker, task(broker, "a", "fd"))
        broker.raw.hset(broker.queue.task("a"), "unique_key", broker.queue.unique("t", b"other"))

        assert enqueue(broker, task(broker, "b", "fd")) == "1"

    @pytest.mark.parametrize("seconds", [0, 600])
    def test_a_check_of_the_queue_releases_a_leftover_lock(self, broker: Broker, seconds: int) -> None:
        enqueue(broker, task(broker, "a", "fd", unique_s=seconds))
        broker.raw.delete(broker.queue.task("a"), broker.queue.pending)

        assert reconciled(broker) == [FindingKind.LOCK_WITHOUT_TASK]

        assert locks(broker) == {}
        assert reconciled(broker) == []

    @rows("path", [path for path, (_, end) in PATHS.items() if end in (WAITS, RUNS)])
    @rows("rule", ["until_started", "until_finished", "while_exists"])
    def test_a_check_of_the_queue_restores_a_lost_lock(self, broker: Broker, path: str, rule: str) -> None:
        """The lock was deleted, and no other task has taken it."""
        enqueue(broker, task(broker, "a", RULES[rule]))
        PATHS[path][0](broker)
        before = locks(broker)
        broker.raw.delete(broker.queue.unique("t", b"one"))

        found = reconciled(broker)

        assert found.count(FindingKind.TASK_WITHOUT_LOCK) == len(before)
        assert locks(broker) == before

    def test_locks_of_go_and_python_exclude_each_other(self, broker: Broker) -> None:
        """A lock by all arguments is Asynq's: the name that Go makes of the same payload, held by an id."""
        enqueue(broker, task(broker, "go"))  # byte for byte what Go writes

        assert enqueue(broker, task(broker, "b", "fd")) == "d"
        assert enqueue(broker, task(broker, "c", "fe")) == "x"


def test_a_lock_key_of_another_type_counts_as_held(broker: Broker) -> None:
    """The data of the other program is not overwritten."""
    lock = broker.queue.unique("t", b"one")
    broker.raw.lpush(lock, "x")

    for conflict in ("d", "r", "m"):
        assert enqueue(broker, task(broker, f"a{conflict}", f"f{conflict}")) == "d"

    assert broker.raw.lrange(lock, 0, -1) == [b"x"]


@rows(
    ("rule", "codes"), [("fd", "1d"), ("fr", "1u"), ("fe", "1x"), ("fm", "1u")], ids=["reject", "replace", "", "move"]
)
def test_the_conflict_rule_applies_within_one_batch(broker: Broker, rule: str, codes: str) -> None:
    tasks: Sequence[NewTask] = [task(broker, "a", rule), task(broker, "b", rule, payload=b'{"n":2}')]

    assert enqueue(broker, *tasks) == codes

    assert broker.pending() == ["a"]


class TestForeignLocks:
    """A message and a hash may name any key as the lock of their task. Only locks of the task's queue are touched."""

    @rows("rule", RULES)
    def test_no_path_changes_a_key_outside_the_locks_of_the_queue(self, broker: Broker, rule: str) -> None:
        """Neither a key with the id of the task nor an absent key is touched."""
        elsewhere = "asynq:{low}:unique:t:x"
        for path, (walk, _) in {**PATHS, **GROUPED}.items():
            for foreign, holder in (("session:admin", b"a"), (elsewhere, b"a"), (elsewhere, None)):
                broker.store.flush()
                forge(broker, foreign, rule, holder, **({"group": "g"} if path in GROUPED else {}))

                walk(broker)

                now = broker.raw.get(foreign), broker.raw.ttl(foreign)
                assert now == ((holder, -1) if holder else (None, -2)), path

    def test_a_forged_lock_does_not_move_to_another_queue(self, one_server: Broker) -> None:
        one_server.run(new_tasks.register_queue(one_server.keys.queues, ("default",)))
        forge(one_server, "session:admin", "asynq", b"a")

        run_plan(
            one_server,
            move(one_server.keys, one_server.queue, one_server.keys.queue("low"), ["a"], state=None),
            NOW_NS,
        )

        moved = one_server.raw.hgetall(one_server.keys.queue("low").task("a"))
        assert b"unique_key" not in moved
        assert decode_message(moved[b"msg"]).unique_key == ""
        assert one_server.raw.get("session:admin") == b"a"

    def test_new_arguments_do_not_change_a_forged_lock(self, one_server: Broker) -> None:
        one_server.run(new_tasks.register_queue(one_server.keys.queues, ("default",)))
        forge(one_server, "session:admin", "asynq", b"a")
        keys = one_server.keys

        run_plan(one_server, change.update_payload(keys, "default", "a", b"[1]"), NOW_NS)
        run_plan(one_server, change.reschedule_task(keys, "default", "a", after=60, payload=b"[2]"), NOW_NS)

        assert decode_message(one_server.fields("a")["msg"]).unique_key == ""
        assert one_server.raw.get("session:admin") == b"a"
        assert locks(one_server) == {}

    def test_a_caller_cannot_take_a_foreign_lock(self, broker: Broker) -> None:
        with pytest.raises(ConfigurationError, match=r"must begin with 'asynq:\{default\}:unique:'"):
            enqueue(broker, NewTask("a", b"m", unique_key="session:admin", unique_s=60))

        assert broker.dump() == {}


def forge(broker: Broker, lock: str, rule: str, holder: bytes | None, **options: Any) -> None:
    """Store a task whose message and hash name a foreign key, which holds its id or is absent."""
    enqueue(broker, task(broker, "a", RULES[rule], **options))
    message = decode_message(broker.fields("a")["msg"])
    message.unique_key = lock
    broker.raw.hset(broker.queue.task("a"), mapping={"unique_key": lock, "msg": encode_message(message)})
    broker.raw.delete(broker.queue.unique("t", b"one"))
    if holder:
        broker.raw.set(lock, holder)


@rows("way", ["act", "revoke"])
def test_a_deleted_group_member_of_go_frees_its_lock(broker: Broker, way: str) -> None:
    """Go stores the lock of a grouped task only in its message."""
    queue = broker.queue
    lock = queue.unique("t", b"")
    message = encode_message(build_message(id="a", type="t", unique_key=lock, group_key="g"))
    broker.raw.hset(queue.task("a"), mapping={"msg": message, "state": "aggregating", "group": "g"})
    broker.raw.zadd(queue.group("g"), {"a": NOW_S})
    broker.raw.sadd(queue.groups, "g")
    broker.raw.set(lock, "a", ex=3600)

    if way == "act":
        broker.at(NOW_NS, actions.act(queue, Action.DELETE, ["a"]))
    else:
        broker.run(actions.revoke(queue, "a"))

    assert not broker.raw.exists(lock, queue.task("a"))
