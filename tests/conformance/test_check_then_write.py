"""Test that a refused script has changed nothing (R1). Each key it uses gets another type in turn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from taskq_core.broker.operations import (
    actions,
    aggregation,
    new_tasks,
    operation,
    outbox,
    runs,
    schedules,
    services,
    steps,
    views,
)
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

LATER = NOW_NS + 60_000_000_000
LOCK = "asynq:{default}:unique:t:x"


def prepare(broker: Broker) -> None:
    """Put tasks in every state, so that each script has all its kinds of work to do."""
    queue = broker.queue
    names = ["done", "complete", "retry", "uncounted", "archive", "requeue", "wait", "sleep", "bad", "gone"]
    names += ["due-retry", "old", "ended"]
    broker.enqueue(*names)
    broker.dequeue()
    broker.settle(Outcome.RETRY, "due-retry", delay_ms=1)
    broker.settle(Outcome.ARCHIVE, "old")
    broker.raw.zadd(queue.archived, {"old": NOW_S - operation.ARCHIVE.kept_s})
    broker.settle(Outcome.COMPLETE, "ended", seconds=1)
    for name in ("wait", "sleep"):
        broker.at(NOW_NS, steps.load_steps(queue, name, owner="w1", run=1))
        broker.at(NOW_NS, steps.emit(queue, name, steps.Output([("", b"1")], 1, 1), owner="w1", run=1))
    broker.settle(Outcome.WAIT, "sleep", delay_ms=LATER // 10**6, record=b"0 r:go#1")
    broker.enqueue("due", start_at_s=NOW_S + 1)
    broker.enqueue("member", start_at_s=NOW_S + 1)
    broker.raw.hset(queue.task("member"), "group", "g")
    broker.raw.zadd(queue.group("other"), {"x": 1})
    broker.raw.sadd(queue.groups, "other")
    broker.enqueue("p1", "p2")
    broker.raw.set(LOCK, "done")
    broker.run(services.lead(queue.leader("forwarder"), owner="w1", leader_ms=60_000))
    for group, state in (("ripe", "waits"), ("set", "taken"), ("stale", "late"), ("swept", "swept")):
        broker.enqueue(state, group=group, now_ns=NOW_NS - 100_000_000_000)
    for group, set_id in (("set", "s"), ("stale", "late"), ("swept", "old")):
        check = aggregation.GroupCheck(group, set_id, 30 if group == "stale" else 900, 60)
        broker.at(NOW_NS, aggregation.collect_groups(queue, [check], limit=1))
    broker.enqueue("newcomer", group="stale", now_ns=NOW_NS)
    broker.raw.rename(queue.aggregation_set("swept", "old"), queue.combined_set("old"))
    broker.raw.zadd(queue.combined, {"old": NOW_S})
    broker.raw.zrem(queue.aggregation_sets, queue.aggregation_set("swept", "old"))
    for entry in ("known", "other"):
        broker.raw.set(queue.tick(entry), f"{NOW_S - 10}:")


def recoveries(queue: QueueKeys) -> list[Recovery]:
    verdicts = {
        "retry": Verdict.RETRY,
        "uncounted": Verdict.RETRY_UNCOUNTED,
        "archive": Verdict.ARCHIVE,
        "bad": Verdict.QUARANTINE,
    }
    return [
        Recovery(services.ExpiredTask(name, str(NOW_S + 30), name.encode()), verdict, b"new", 1000)
        for name, verdict in verdicts.items()
    ]


def settlements() -> list[Settlement]:
    outcomes = {
        "done": Outcome.DONE,
        "complete": Outcome.COMPLETE,
        "retry": Outcome.RETRY,
        "uncounted": Outcome.RETRY_UNCOUNTED,
        "archive": Outcome.ARCHIVE,
        "requeue": Outcome.REQUEUE,
        "wait": Outcome.WAIT,
    }
    return [
        Settlement(
            name,
            end,
            1,
            b"new",
            unique_key=LOCK if name == "done" else "",
            delay_ms=LATER // 10**6 if name == "wait" else 0,
            record=b"0 z:sleep" if name == "wait" else b"",
        )
        for name, end in outcomes.items()
    ]


def original(task_id: str, state: str) -> actions.Original:
    return actions.Original(task_id, actions.OK, "1", state, str(NOW_S), lock_ms=5000, fields={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operation, the keys that must refuse it whole, and those it gets along with."""

    build: Callable[[QueueKeys], Operation[Any]]
    refuse: str = ""
    tolerate: str = ""
    at_ns: int = NOW_NS

    def call(self, broker: Broker) -> Any:
        """Run the operation, at its time if it reads the clock."""
        operation = self.build(broker.queue)
        has_clock = bool(operation.args) and operation.args[0] == ""
        return broker.run(at_time(self.at_ns, operation) if has_clock else operation)


CASES = {
    "enqueue": Case(
        build=lambda q: new_tasks.enqueue(q, [NewTask("n1", b"m"), NewTask("n2", b"m")], ReceiptSlot("t")),
        refuse="pending wake",
        tolerate="task(n1) receipt(t)",
    ),
    "deliver": Case(
        build=lambda q: outbox.deliver(
            q,
            [
                ("r1", NewTask("n1", b"m")),
                ("r2", NewTask("n2", b"m", start_at_s=NOW_S + 60)),
                ("r3", NewTask("n3", b"m", group="other")),
                ("r4", NewTask("n4", b"m", fields={b"taskq_step": b"0 t n4 x", b"other": b"{}"})),
            ],
            ReceiptSlot("t"),
            claim_ends_ms=LATER // 1_000_000,
        ),
        refuse="pending scheduled wake delivered groups group(other)",
        tolerate="task(n1) receipt(t)",
    ),
    "enqueue_scheduled": Case(
        build=lambda q: new_tasks.enqueue(
            q,
            [NewTask("n1", b"m"), NewTask("n2", b"m", start_at_s=NOW_S + 9, unique_key=q.unique("t", b""), unique_s=5)],
            ReceiptSlot("t"),
        ),
        refuse="pending scheduled wake",
        tolerate="task(n1) lock receipt(t)",
    ),
    "dequeue": Case(
        build=lambda q: runs.dequeue(q, owner="w2", call=1, limit=1, lease_s=30),
        refuse="pending active lease wake",
        tolerate="paused task(p1) call(w2)",
    ),
    "settle_and_dequeue": Case(
        build=lambda q: runs.settle_and_dequeue(
            [("done", 1)], runs.dequeue(q, owner="w1", call=9, limit=1, lease_s=30)
        ),
        refuse="pending active lease wake",
        tolerate="paused task(done) task(p1) call(w1) processed daily_processed",
    ),
    "settle_done": Case(
        build=lambda q: runs.settle(
            q, [Settlement(name, Outcome.DONE, run=1) for name in ("done", "retry")], owner="w1"
        ),
        refuse="active lease",
        tolerate="task(done) processed daily_processed",
    ),
    "settle": Case(
        build=lambda q: runs.settle(q, settlements(), owner="w1"),
        refuse="active lease pending scheduled completed retry archived wake",
        tolerate="task(done) task(old) steps_of(wait) stream_of(wait) processed failed daily_processed "
        "daily_failed held_lock",
    ),
    "load_steps": Case(
        build=lambda q: steps.load_steps(q, "wait", owner="w1", run=1),
        refuse="lease steps_of(wait)",
        tolerate="stream_of(wait)",
    ),
    "store_step": Case(
        build=lambda q: steps.store_step(
            q, "wait", "s:x", b"1 1 1", owner="w1", run=1, output=steps.Output([("x", b"1")], 2, 1)
        ),
        refuse="lease steps_of(wait) stream_of(wait)",
    ),
    "ask": Case(
        build=lambda q: steps.store_step(q, "wait", "q:x#1", b"1 0 {}", owner="w1", run=1),
        refuse="lease steps_of(wait) questions",
    ),
    "list_questions": Case(build=lambda q: steps.list_questions(q, limit=9), refuse="questions"),
    "emit": Case(
        build=lambda q: steps.emit(q, "wait", steps.Output([("", b"1")], 2, 1), owner="w1", run=1),
        refuse="lease steps_of(wait) stream_of(wait)",
    ),
    "signal": Case(
        build=lambda q: steps.signal(q, "sleep", "go", b"1", signal_id="s"),
        refuse="task(sleep) steps_of(sleep) pending scheduled wake questions",
        tolerate="stream_of(sleep)",
    ),
    "read_stream": Case(
        build=lambda q: steps.read_stream(q, "sleep"), refuse="task(sleep) steps_of(sleep) stream_of(sleep)"
    ),
    "cancel_steps": Case(
        build=lambda q: steps.cancel_steps(q, "sleep", wish="archive"),
        refuse="task(sleep) steps_of(sleep) pending scheduled retry wake",
    ),
    "forget_step": Case(
        build=lambda q: steps.forget_step(q, "sleep", "go#1"),
        refuse="task(sleep) steps_of(sleep) pending scheduled wake questions",
    ),
    "extend_leases": Case(
        build=lambda q: runs.extend_leases(q, [("done", 1), ("retry", 1)], owner="w1", lease_s=90),
        refuse="lease",
        tolerate="task(done)",
    ),
    "mark_starts": Case(
        build=lambda q: runs.mark_starts(q, [("done", 1), ("retry", 1)], owner="w1"),
        refuse="lease",
        tolerate="task(done)",
    ),
    "write_fields": Case(
        build=lambda q: runs.write_fields(q, "done", {runs.PROGRESS_FIELD: b"{}"}, owner="w1", run=1),
        refuse="lease",
        tolerate="task(done)",
    ),
    "quarantine": Case(
        build=lambda q: runs.quarantine(q, "bad", owner="w1", run=1),
        refuse="active lease quarantine",
        tolerate="task(bad) quarantined(bad)",
    ),
    "forward": Case(
        build=lambda q: services.forward(q, owner="w1", leader_ms=90_000),
        refuse="scheduled retry pending groups wake",
        tolerate="task(due) task(member) group(g) leader(forwarder)",
        at_ns=LATER,
    ),
    "enqueue_grouped": Case(
        build=lambda q: new_tasks.enqueue(q, [NewTask("n1", b"m"), NewTask("n2", b"m", group="g9")], ReceiptSlot("t")),
        refuse="pending scheduled wake groups group(g9)",
        tolerate="task(n1) receipt(t)",
    ),
    "collect_groups": Case(
        build=lambda q: aggregation.collect_groups(q, [aggregation.GroupCheck("ripe", "s", 900, 60)], limit=1),
        refuse="groups aggregation_sets",
        tolerate="task(waits)",
    ),
    "read_members": Case(
        build=lambda q: aggregation.read_members(q, "set", "s", skip=0),
        refuse="aggregation_sets set(set)",
        tolerate="task(taken)",
    ),
    "combine": Case(
        build=lambda q: aggregation.combine(q, "set", "s", 1, NewTask("one", b"m", group="g9")),
        refuse="aggregation_sets set(set) combined combined_set(s) pending scheduled groups group(g9) wake",
        tolerate="task(one) task(taken) receipt(s)",
    ),
    "sweep": Case(build=aggregation.sweep, refuse="combined", tolerate="task(swept)"),
    "reclaim": Case(
        build=lambda q: aggregation.reclaim(q, "forwarder", owner="w1", leader_ms=90_000),
        refuse="aggregation_sets groups combined",
        tolerate="task(late) leader(forwarder)",
        at_ns=LATER,
    ),
    "expel": Case(
        build=lambda q: aggregation.expel(q, "set", "s", ["taken"]),
        refuse="set(set) quarantine",
        tolerate="task(taken) quarantined(taken)",
    ),
    "list_expired": Case(
        build=lambda q: services.list_expired(q, grace_s=30), refuse="lease", tolerate="task(done)", at_ns=LATER
    ),
    "list_held": Case(build=lambda q: services.list_held(q, owner="w1"), refuse="lease", tolerate="task(done)"),
    "recover": Case(
        build=lambda q: services.recover(q, recoveries(q), grace_s=30),
        refuse="active lease retry archived quarantine",
        tolerate="task(retry) task(old) processed failed daily_processed daily_failed quarantined(bad)",
        at_ns=LATER,
    ),
    "clean": Case(
        build=lambda q: services.clean(q), refuse="completed archived", tolerate="task(old) task(ended)", at_ns=LATER
    ),
    "adopt": Case(build=lambda q: schedules.adopt(q, ["new", "known", "ahead"]), tolerate="tick(known)"),
    "tick": Case(
        build=lambda q: schedules.tick(
            q,
            [
                schedules.Tick("known", NOW_S - 10, NOW_S - 5, NewTask("n1", b"m", start_at_s=NOW_S + 9)),
                schedules.Tick(
                    "known", NOW_S - 5, NOW_S, NewTask("n2", b"m", unique_key=q.unique("t", b""), unique_s=5)
                ),
                schedules.Tick("other", NOW_S - 10, NOW_S, NewTask("n3", b"m", group="g9")),
            ],
            ReceiptSlot("t"),
        ),
        refuse="pending scheduled wake groups group(g9)",
        tolerate="task(n1) lock tick(known) tick(other) receipt(t)",
    ),
    "run_tasks": Case(
        build=lambda q: actions.act(q, actions.Action.RUN, ["due", "due-retry", "old", "ended", "grouped"]),
        refuse="pending scheduled retry archived groups wake",
        tolerate="task(due) task(grouped)",
    ),
    "archive_tasks": Case(
        build=lambda q: actions.act(q, actions.Action.ARCHIVE, ["due", "ended", "grouped", "p1"]),
        refuse="pending scheduled retry archived groups wake",
        tolerate="task(due) task(old)",
    ),
    "delete_tasks": Case(
        build=lambda q: actions.act(q, actions.Action.DELETE, ["due", "old", "ended", "grouped", "p1"]),
        refuse="pending scheduled retry archived groups wake",
        tolerate="task(due) held_lock",
    ),
    "wait_tasks": Case(
        build=lambda q: actions.act(
            q, actions.Action.WAIT, ["due", "due-retry", "old", "ended", "grouped", "p1"], start="+9000"
        ),
        refuse="pending scheduled retry archived groups wake",
        tolerate="task(due) task(p1)",
    ),
    "change_task": Case(
        build=lambda q: actions.change_task(q, "p1", old=b"p1", new=b"new", old_lock=LOCK, new_lock=q.unique("t", b"")),
        tolerate="task(p1) held_lock lock",
    ),
    "pause": Case(build=lambda q: actions.pause(q), tolerate="paused"),
    "close_queue": Case(
        build=lambda q: actions.close_queue(q, force=True),
        refuse="active pending scheduled retry archived completed groups group(other) aggregation_sets quarantine",
    ),
    "discard": Case(
        build=lambda q: actions.discard(q),
        refuse="removed(pending) removed(scheduled) removed(retry) removed(archived) removed(completed) "
        "removed(groups) removed(aggregation_sets) removed(quarantine)",
        tolerate="task(doomed)",
    ),
    "purge": Case(build=lambda q: actions.purge(q, "0", own=False)),
    "copy_out": Case(
        build=lambda q: actions.copy_out(q, ["due", "old", "grouped", "p1", "leaving"], token="2", target="elsewhere"),
        refuse="pending archived groups",
        tolerate="task(due) task(leaving) held_lock",
    ),
    "copy_end": Case(
        build=lambda q: actions.copy_end(
            q, token="1", target="elsewhere", copied=[], back=[original("leaving", "pending")]
        ),
        refuse="pending scheduled retry archived groups wake",
        tolerate="task(leaving)",
    ),
    "scan_tasks": Case(
        build=lambda q: views.scan_tasks(q, TaskState.RETRY, views.ScanPlace(0, "1", "x"), count=9),
        refuse="retry",
        tolerate="task(due-retry)",
    ),
    "count_groups": Case(build=lambda q: views.count_groups(q, "0"), refuse="groups", tolerate="group(other)"),
    "lead": Case(
        build=lambda q: services.lead(q.leader("forwarder"), owner="w1", leader_ms=90_000), tolerate="leader(forwarder)"
    ),
    "resign": Case(build=lambda q: services.resign(q.leader("forwarder"), owner="w1"), tolerate="leader(forwarder)"),
    "notify": Case(build=services.notify, refuse="pending wake"),
    "read_task": Case(build=lambda q: views.read_task(q, "done", publish_end=True), refuse="task(done)"),
    "revoke_pending": Case(build=lambda q: actions.revoke(q, "p1"), refuse="pending task(p1)", tolerate="held_lock"),
    "revoke_scheduled": Case(build=lambda q: actions.revoke(q, "due"), refuse="scheduled"),
    "revoke_retry": Case(build=lambda q: actions.revoke(q, "due-retry"), refuse="retry"),
    "revoke_member": Case(build=lambda q: actions.revoke(q, "grouped"), refuse="groups group(g2)"),
    "list_pending": Case(
        build=lambda q: views.list_tasks(q, TaskState.PENDING, skip=0, count=9), refuse="pending", tolerate="task(p1)"
    ),
    "list_active": Case(
        build=lambda q: views.list_tasks(q, TaskState.ACTIVE, skip=0, count=9),
        refuse="active lease",
        tolerate="task(done)",
    ),
    "count_tasks": Case(
        build=lambda q: views.count_tasks(q),
        refuse="pending active scheduled retry archived completed groups",
        tolerate="paused task(p1) group(other) processed failed daily_processed",
    ),
}


def key_of(queue: QueueKeys, name: str) -> str:
    if name == "held_lock":
        return LOCK
    if name == "lock":
        return queue.unique("t", b"")
    if name.startswith("daily_"):
        return str(getattr(queue, name)(NOW_S))
    attribute, _, argument = name.removesuffix(")").partition("(")
    if attribute == "set":
        return queue.aggregation_set(argument, "late" if argument == "stale" else "s")
    value = getattr(queue, attribute)
    return str(value(argument) if argument else value)


def spoil(broker: Broker, key: str) -> None:
    """Put a key of another type in its place: a hash for a string, a string for all others."""
    strings = ("paused", "leader:forwarder", "rcpt:t", "rcpt:s", "call:w2", "processed", "failed", "2033-05-18")
    broker.raw.delete(key)
    if key.endswith(strings) or ":tick:" in key:
        broker.raw.hset(key, "strange", "1")
    else:
        broker.raw.set(key, "strange")


def pairs(kind: str) -> list[Any]:
    return [
        pytest.param(case, name, id=f"{title}-{name}")
        for title, case in CASES.items()
        for name in getattr(case, kind).split()
    ]


def ready(broker: Broker) -> None:
    prepare(broker)
    queue = broker.queue
    broker.raw.hset(queue.task("grouped"), mapping={"msg": "m", "state": "aggregating", "group": "g2"})
    broker.raw.zadd(queue.group("g2"), {"grouped": 1})
    broker.raw.sadd(queue.groups, "g2")
    broker.raw.hset(queue.task("p1"), "unique_key", LOCK)
    broker.enqueue("leaving", "doomed")
    broker.at(NOW_NS, actions.copy_out(queue, ["leaving"], token="1", target="elsewhere"))
    broker.raw.lrem(queue.pending, 0, "doomed")
    broker.raw.rpush(queue.removed("pending"), "doomed")


@rows(("case", "name"), pairs("refuse"))
def test_a_refused_call_changes_nothing(broker: Broker, case: Case, name: str) -> None:
    ready(broker)
    spoil(broker, key_of(broker.queue, name))
    before = broker.dump()

    with pytest.raises(BrokerReplyError):
        case.call(broker)

    assert broker.dump() == before


@rows(("case", "name"), pairs("tolerate"))
def test_irrelevant_damage_does_not_stop_a_call(broker: Broker, case: Case, name: str) -> None:
    """The call returns, and afterwards every other task is in the one structure of its state."""
    ready(broker)
    key = key_of(broker.queue, name)
    spoil(broker, key)

    case.call(broker)

    check_whole(broker, but=key)


@rows(
    ("title", "name", "answer"),
    [
        ("lead", "leader(forwarder)", True),
        ("resign", "leader(forwarder)", False),
        ("enqueue", "receipt(t)", "11"),
        ("combine", "receipt(s)", "1"),
    ],
)
def test_a_damaged_internal_record_is_overwritten(broker: Broker, title: str, name: str, answer: object) -> None:
    """Only taskq uses the record, and a refusal would block its owner permanently."""
    ready(broker)
    spoil(broker, key_of(broker.queue, name))

    assert CASES[title].call(broker) == answer
    assert CASES[title].call(broker) == answer  # a record again: a repeat is known


def test_a_worker_with_a_damaged_dequeue_record_gets_tasks(broker: Broker) -> None:
    ready(broker)
    spoil(broker, broker.queue.call("w2"))

    assert broker.dequeue("w2", limit=1) == broker.dequeue("w2", limit=1) == ["p1"]


@rows("case", CASES.values(), ids=CASES)
def test_without_damage_each_call_does_its_work(broker: Broker, case: Case) -> None:
    """Otherwise the tests above would prove nothing."""
    ready(broker)

    case.call(broker)

    check_whole(broker, but="")


def check_whole(broker: Broker, *, but: str) -> None:
    queue = broker.queue
    found = broker.dump()
    for key, (kind, value) in found.items():
        if not key.startswith(queue.task_prefix.encode()) or key.decode() == but:
            continue
        assert kind == "hash"
        state = value[b"state"].decode()
        places = [queue.prefix + state, queue.removed(state)]
        if state == "aggregating":
            group = queue.group(value[b"group"].decode())
            sets = [each.decode() for each in found if each.startswith(f"{group}:".encode())]
            places = [group, *sets, *(each.decode() for each in found if each.startswith(queue.combined.encode()))]
        members = [member for place in places for member in found.get(place.encode(), ("", []))[1]]
        ids = [each[0] if isinstance(each, tuple) else each for each in members]
        assert ids.count(key.removeprefix(queue.task_prefix.encode())) == 1, (key, state)
        assert (b"taskq_owner" in value) == (state == "active")
    leased = {member for member, _ in found.get(queue.lease.encode(), ("", []))[1]}
    assert leased == set(found.get(queue.active.encode(), ("", []))[1])
