"""A script that is refused has changed nothing (R1): every key it touches is made one of another type in turn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from taskq_core.broker import operations as ops
from taskq_core.broker.operations import NewTask, Operation, Outcome, ReceiptLane, Recovery, Settlement, Verdict
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState
from tests.conformance.stores import NOW_NS, NOW_S, Broker

LATER = NOW_NS + 60_000_000_000
LOCK = "asynq:{default}:unique:t:x"


def prepare(broker: Broker) -> None:
    """Put tasks in every state, so that each script has all its kinds of work to do."""
    queue = broker.queue
    names = ["done", "complete", "retry", "uncounted", "archive", "requeue", "bad", "gone", "due-retry", "old", "ended"]
    broker.enqueue(*names)
    broker.dequeue()
    broker.settle(Outcome.RETRY, "due-retry", delay_ms=1)
    broker.settle(Outcome.ARCHIVE, "old")
    broker.raw.zadd(queue.archived, {"old": NOW_S - ops.ARCHIVE_KEPT_S})
    broker.settle(Outcome.COMPLETE, "ended", seconds=1)
    broker.enqueue("due", start_at_s=NOW_S + 1)
    broker.enqueue("member", start_at_s=NOW_S + 1)
    broker.raw.hset(queue.task("member"), "group", "g")
    broker.raw.zadd(queue.group("other"), {"x": 1})
    broker.raw.sadd(queue.groups, "other")
    broker.enqueue("p1", "p2")
    broker.raw.set(LOCK, "done")
    broker.run(ops.lead(queue, "forwarder", owner="w1", leader_ms=60_000))


def recoveries(queue: QueueKeys) -> list[Recovery]:
    verdicts = {
        "retry": Verdict.RETRY,
        "uncounted": Verdict.RETRY_UNCOUNTED,
        "archive": Verdict.ARCHIVE,
        "bad": Verdict.QUARANTINE,
    }
    return [
        Recovery(ops.ExpiredTask(name, str(NOW_S + 30), name.encode()), verdict, b"new", 1000)
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
    }
    return [Settlement(name, end, b"new", unique_key=LOCK if name == "done" else "") for name, end in outcomes.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operation, the keys that must refuse it whole, and those it gets along with."""

    build: Callable[[QueueKeys], Operation[Any]]
    refuse: str = ""
    tolerate: str = ""


CASES = {
    "enqueue": Case(
        build=lambda q: ops.enqueue(q, [NewTask("n1", b"m"), NewTask("n2", b"m")], ReceiptLane("t"), now_ns=NOW_NS),
        refuse="pending wake receipt(t)",
        tolerate="task(n1)",
    ),
    "enqueue_scheduled": Case(
        build=lambda q: ops.enqueue(
            q,
            [NewTask("n1", b"m"), NewTask("n2", b"m", start_at_s=NOW_S + 9, unique_key=q.unique("t", b""), unique_s=5)],
            ReceiptLane("t"),
            now_ns=NOW_NS,
        ),
        refuse="pending scheduled wake receipt(t)",
        tolerate="task(n1) lock",
    ),
    "dequeue": Case(
        build=lambda q: ops.dequeue(q, owner="w2", call=1, limit=1, lease_s=30, now_ns=NOW_NS),
        refuse="pending active lease wake call(w2)",
        tolerate="paused task(p1)",
    ),
    "settle_done": Case(
        build=lambda q: ops.settle(
            q, [Settlement(name, Outcome.DONE) for name in ("done", "retry")], owner="w1", now_ns=NOW_NS
        ),
        refuse="active lease",
        tolerate="task(done) processed daily_processed",
    ),
    "settle": Case(
        build=lambda q: ops.settle(q, settlements(), owner="w1", now_ns=NOW_NS),
        refuse="active lease pending completed retry archived wake",
        tolerate="task(done) task(old) processed failed daily_processed daily_failed held_lock",
    ),
    "extend_leases": Case(
        build=lambda q: ops.extend_leases(q, ["done", "retry"], owner="w1", lease_s=90, now_ns=NOW_NS),
        refuse="lease",
        tolerate="task(done)",
    ),
    "write_result": Case(
        build=lambda q: ops.write_result(q, "done", b"r", owner="w1"), refuse="lease", tolerate="task(done)"
    ),
    "quarantine": Case(
        build=lambda q: ops.quarantine(q, "bad", owner="w1", now_ns=NOW_NS),
        refuse="active lease quarantine",
        tolerate="task(bad) quarantined(bad)",
    ),
    "forward": Case(
        build=lambda q: ops.forward(q, owner="w1", leader_ms=90_000, now_ns=LATER),
        refuse="scheduled retry pending groups wake leader(forwarder)",
        tolerate="task(due) task(member) group(g)",
    ),
    "list_expired": Case(
        build=lambda q: ops.list_expired(q, grace_s=30, now_ns=LATER), refuse="lease", tolerate="task(done)"
    ),
    "recover": Case(
        build=lambda q: ops.recover(q, recoveries(q), grace_s=30, now_ns=LATER),
        refuse="active lease retry archived quarantine",
        tolerate="task(retry) task(old) processed failed daily_processed daily_failed quarantined(bad)",
    ),
    "clean": Case(
        build=lambda q: ops.clean(q, now_ns=LATER), refuse="completed archived", tolerate="task(old) task(ended)"
    ),
    "lead": Case(build=lambda q: ops.lead(q, "forwarder", owner="w1", leader_ms=90_000), refuse="leader(forwarder)"),
    "resign": Case(build=lambda q: ops.resign(q, "forwarder", owner="w1"), refuse="leader(forwarder)"),
    "rouse": Case(build=ops.rouse, refuse="pending wake"),
    "look": Case(build=lambda q: ops.look(q, "done", tell_end=True), refuse="task(done)"),
    "revoke_pending": Case(build=lambda q: ops.revoke(q, "p1"), refuse="pending task(p1)", tolerate="held_lock"),
    "revoke_scheduled": Case(build=lambda q: ops.revoke(q, "due"), refuse="scheduled"),
    "revoke_retry": Case(build=lambda q: ops.revoke(q, "due-retry"), refuse="retry"),
    "revoke_member": Case(build=lambda q: ops.revoke(q, "grouped"), refuse="groups group(g2)"),
    "list_pending": Case(
        build=lambda q: ops.list_tasks(q, TaskState.PENDING, skip=0, count=9), refuse="pending", tolerate="task(p1)"
    ),
    "list_active": Case(
        build=lambda q: ops.list_tasks(q, TaskState.ACTIVE, skip=0, count=9),
        refuse="active lease",
        tolerate="task(done)",
    ),
    "count_tasks": Case(
        build=lambda q: ops.count_tasks(q, now_ns=NOW_NS),
        refuse="pending active scheduled retry archived completed groups processed failed daily_processed group(other)",
        tolerate="paused task(p1)",
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
    value = getattr(queue, attribute)
    return str(value(argument) if argument else value)


def spoil(broker: Broker, key: str) -> None:
    """Put a key of another type in its place: a hash for a string, a string for all others."""
    strings = ("paused", "leader:forwarder", "rcpt:t", "call:w2", "processed", "failed", "2033-05-18")
    broker.raw.delete(key)
    if key.endswith(strings):
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


@pytest.mark.parametrize(("case", "name"), pairs("refuse"))
def test_a_refused_call_changes_nothing(any_broker: Broker, case: Case, name: str) -> None:
    ready(any_broker)
    spoil(any_broker, key_of(any_broker.queue, name))
    before = any_broker.dump()

    with pytest.raises(BrokerReplyError):
        any_broker.run(case.build(any_broker.queue))

    assert any_broker.dump() == before


@pytest.mark.parametrize(("case", "name"), pairs("tolerate"))
def test_damage_that_does_not_matter_stops_nothing(any_broker: Broker, case: Case, name: str) -> None:
    """The call answers, and afterwards every other task stands in the one structure its state names."""
    ready(any_broker)
    key = key_of(any_broker.queue, name)
    spoil(any_broker, key)

    any_broker.run(case.build(any_broker.queue))

    check_whole(any_broker, but=key)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_undamaged_it_does_its_work(any_broker: Broker, case: Case) -> None:
    """Otherwise the tests above would prove nothing."""
    ready(any_broker)

    any_broker.run(case.build(any_broker.queue))

    check_whole(any_broker, but="")


def check_whole(broker: Broker, *, but: str) -> None:
    queue = broker.queue
    found = broker.dump()
    for key, (kind, value) in found.items():
        if not key.startswith(queue.task_prefix.encode()) or key.decode() == but:
            continue
        assert kind == "hash"
        state = value[b"state"].decode()
        place = queue.group(value[b"group"].decode()) if state == "aggregating" else queue.prefix + state
        members = found.get(place.encode(), ("", []))[1]
        ids = [each[0] if isinstance(each, tuple) else each for each in members]
        assert ids.count(key.removeprefix(queue.task_prefix.encode())) == 1, (key, state)
        assert (b"taskq_owner" in value) == (state == "active")
    leased = {member for member, _ in found.get(queue.lease.encode(), ("", []))[1]}
    assert leased == set(found.get(queue.active.encode(), ("", []))[1])
