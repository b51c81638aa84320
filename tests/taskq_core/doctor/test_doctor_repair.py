"""`taskq doctor --fix`: each damaged state is made on a real server, planned, repaired and gone; all else stays."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import actions, diagnosis, new_tasks, services, views
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.doctor.facts import Facts
from taskq_core.doctor.findings import Level
from taskq_core.doctor.keys import KeyKind
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.repair import Repair, Repairer, for_a_person, plan
from taskq_core.doctor.rules import diagnose
from taskq_core.wire import QueueKeys, ServerInfo
from taskq_core.wire.samples import QueueSample
from taskq_core.wire.tallies import TypeCounters
from taskq_core.worker import Worker, WorkerConfig
from tests.conformance.stores import Broker, Store
from tests.conformance.test_reconcile import DAMAGES, HEALTHY, Damage, fill, put, states
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = pytest.mark.redis


class Bench:
    """A queue with a task in every state, another one beside it, and a doctor that loses no time between its looks."""

    def __init__(self, server: RedisServer) -> None:
        self.app = TaskQ(server.unix_url, enqueue_timeout=30)
        self.server, self.raw = server, server.client
        store = Store(name="real", endpoint=Endpoint(server.unix_url, embedded_folder=Path("unused")), raw=self.raw)
        self.broker = Broker(store, self.app.runtime.runner.run)
        self.keys = self.app.runtime.keys
        self.queue: QueueKeys = self.keys.queue("default")
        self.other: QueueKeys = self.keys.queue("other")
        self.flushall()

    def flushall(self) -> None:
        """Leave what a bench has at first."""
        self.broker.flushall()
        fill(self.broker)
        self.app.runtime.runner.run(new_tasks.register_queue(self.keys.queues, ("default", "other")))
        self.app.remote("t:b", queue="other", task_id="bystander", unique_for=600).delay()

    def give_steps(self, task_id: str) -> None:
        """Give a task a record of steps, without expiry."""
        self.raw.hset(self.queue.task(task_id), "taskq_steps", "1")
        self.raw.hset(self.queue.steps_of(task_id), "of", "1")

    def others(self) -> dict[bytes, Any]:
        """What belongs to the queue beside."""
        return {key: value for key, value in self.server.contents().items() if b"{other}" in key}

    def look(self, app: TaskQ | None = None) -> Facts:
        return read_facts(app or self.app)

    def repair(self, facts: Facts | None = None, app: TaskQ | None = None) -> list[Repair]:
        app = app or self.app
        return Repairer(app, facts or self.look(app), recheck_s=0).work()


@pytest.fixture
def bench(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)
    for wait in ("try_wait", "try_watch"):  # they block for a moment, to try a right
        monkeypatch.setattr(diagnosis, wait, lambda key: views.ping())
    bench = Bench(redis_server)
    yield bench
    bench.app.close()


def kinds(repairs: list[Repair]) -> dict[str, str]:
    """Return the kind of each repair by its subject."""
    return {each.subject: str(each.kind) for each in repairs}


def test_a_healthy_broker_needs_no_repair(bench: Bench) -> None:
    facts = bench.look()

    assert (plan(facts), for_a_person(facts)) == ([], [])
    assert bench.repair(facts) == []


# --- tasks ------------------------------------------------------------------------------------------------------------


OF_EACH_KIND = {damage.found[next(iter(damage.found))]: (name, damage) for name, damage in reversed(DAMAGES.items())}
"""One damage of each kind: that all of them are repaired shows `tests/conformance/test_reconcile.py`."""


@rows("damage", [damage for _, damage in OF_EACH_KIND.values()], ids=[name for name, _ in OF_EACH_KIND.values()])
def test_damaged_tasks_are_repaired(bench: Bench, damage: Damage) -> None:
    """A check changes nothing, one repair is enough, and undamaged tasks stay unchanged."""
    damage.do(bench.broker)
    before, others = bench.server.contents(), bench.others()

    facts = bench.look()
    assert bench.server.contents() == before
    repairs = bench.repair(facts)

    planned = {subject: kind for subject, kind in kinds(plan(facts)).items() if not subject.startswith("asynq:")}
    assert planned.items() >= damage.found.items()
    assert {each.subject for each in repairs if each.is_done} >= damage.found.keys()
    assert [each for each in repairs if not each.is_done] == []
    assert states(bench.broker) == damage.after
    assert plan(bench.look()) == []
    assert bench.others() == others


STRUCTURES = [
    key.removeprefix("asynq:{q}:").removeprefix("taskq:{q}:") for key in repair_ops.structures(QueueKeys("asynq", "q"))
]


@rows("name", [name for name in STRUCTURES if name != "paused"])
def test_a_key_of_a_wrong_type_is_replaced(bench: Bench, name: str) -> None:
    """The repair moves the key aside unchanged, rebuilds the correct structure, and reports the new location."""
    own = name in ("wake", "quarantine", "combined", "delivered")
    key = (bench.queue.own_prefix if own else bench.queue.prefix) + name
    bench.raw.delete(key)
    bench.raw.hset(key, "not", "ours")
    others = bench.others()

    facts = bench.look()
    repairs = bench.repair(facts)

    assert kinds(plan(facts))[key] == "wrong_type"
    assert [each for each in repairs if not each.is_done] == []
    assert states(bench.broker) == HEALTHY
    after = bench.look()
    assert plan(after) == []
    (left,) = for_a_person(after)
    assert (left.kind, left.queue) == ("moved_aside", "default")
    assert bench.raw.hgetall(left.subject) == {b"not": b"ours"}
    assert bench.others() == others


def test_damage_that_exceeds_one_pass_is_repaired(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repair goes on as long as a pass finds more."""
    monkeypatch.setattr("taskq_core.repair.reconcile.FINDINGS_MAX", 20)
    bench.app.client.enqueue_many(bench.app.remote("t:a").s(n=n) for n in range(300))
    bench.raw.delete(bench.queue.pending)

    repairs = bench.repair()

    assert len([each for each in repairs if each.is_done]) == 302
    assert bench.raw.llen(bench.queue.pending) == 302
    assert plan(bench.look()) == []


def test_an_unreadable_task_is_kept_for_a_person(bench: Bench) -> None:
    bench.raw.hset(bench.queue.task("pending"), "msg", b"\xff\xff")

    bench.repair()

    (left,) = for_a_person(bench.look())
    assert (left.queue, left.kind, left.subject) == ("default", "quarantined", "pending")
    assert bench.raw.hget(bench.queue.quarantined("pending"), "msg") == b"\xff\xff"


# --- single keys ------------------------------------------------------------------------------------------------------


def lock(bench: Bench, name: str = "x") -> str:
    return bench.queue.unique_prefix + "t:a:" + name


def presence(bench: Bench) -> str:
    return "asynq:servers:{box:7:s1}"


def today(bench: Bench) -> str:
    return bench.queue.daily_processed(time.time())


@rows(
    "do",
    [
        lambda bench: bench.raw.srem("asynq:queues", "default"),
        lambda bench: bench.raw.delete("asynq:queues"),
    ],
    ids=["one name", "all names"],
)
def test_an_unregistered_queue_is_registered_again(bench: Bench, do: Callable[[Bench], object]) -> None:
    """A failover of one node of a cluster can lose the list, or a part of it."""
    do(bench)
    before, others = bench.server.contents(), bench.others()

    facts = bench.look()
    assert bench.server.contents() == before
    repairs = bench.repair(facts)

    assert {each.kind for each in plan(facts)} == {KeyKind.UNREGISTERED_QUEUE}
    assert {(each.kind, each.is_done) for each in repairs} == {(KeyKind.UNREGISTERED_QUEUE, True)}
    assert bench.raw.smembers("asynq:queues") == {b"default", b"other"}
    assert plan(bench.look()) == []
    assert states(bench.broker) == HEALTHY
    assert bench.others() == others


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCase:
    """What another program does to a key, and what is reported."""

    do: Callable[[Bench], object]
    kind: KeyKind


def endless(key: Callable[[Bench], str], *, value: str = "1") -> KeyCase:
    return KeyCase(do=lambda bench: bench.raw.set(key(bench), value), kind=KeyKind.ENDLESS)


def expiring(key: Callable[[Bench], str]) -> KeyCase:
    return KeyCase(do=lambda bench: bench.raw.expire(key(bench), 1000), kind=KeyKind.EXPIRING)


def misplaced(key: Callable[[Bench], str]) -> KeyCase:
    return KeyCase(do=lambda bench: bench.raw.hset(key(bench), "not", "ours"), kind=KeyKind.MISPLACED)


KEYS: dict[str, KeyCase] = {
    "a held lock that never ends": endless(lock, value="pending"),
    "a leader that never ends": endless(lambda bench: bench.queue.leader("forwarder")),
    "a leader of another type": misplaced(lambda bench: bench.queue.leader("forwarder")),
    "a scheduler's leader that never ends": endless(lambda bench: bench.keys.scheduler_leader("d")),
    "steps that never end": KeyCase(do=lambda bench: bench.give_steps("pending"), kind=KeyKind.ENDLESS),
    "output of another type": KeyCase(
        do=lambda bench: bench.raw.set(bench.queue.stream_of("x"), "1", ex=60), kind=KeyKind.MISPLACED
    ),
    "a receipt that never ends": endless(lambda bench: bench.queue.receipt("c"), value="1:1"),
    "samples that never end": KeyCase(
        do=lambda bench: bench.raw.lpush(bench.queue.samples(60), QueueSample(at_s=5).encode()), kind=KeyKind.ENDLESS
    ),
    "samples of another type": misplaced(lambda bench: bench.queue.samples(10)),
    "a tally that never ends": KeyCase(
        do=lambda bench: bench.raw.hset(bench.queue.tally(500_000), "a", TypeCounters.empty().encode()),
        kind=KeyKind.ENDLESS,
    ),
    "a semaphore of another type": misplaced(lambda bench: bench.keys.semaphore("printers")),
    "a counter that is no number": KeyCase(
        do=lambda bench: bench.raw.set(bench.queue.processed, "many"), kind=KeyKind.NO_NUMBER
    ),
    "a counter of today that is no number": KeyCase(
        do=lambda bench: bench.raw.set(today(bench), "many", ex=60), kind=KeyKind.NO_NUMBER
    ),
    "a counter of another type": misplaced(lambda bench: bench.queue.daily_processed(0)),
    "dead letters whose time is infinite": KeyCase(
        do=lambda bench: bench.raw.zadd(bench.queue.letters, {"x": "+inf"}), kind=KeyKind.INFINITE_TIME
    ),
    "a task that would expire": expiring(lambda bench: bench.queue.task("pending")),
    "a list that would expire": expiring(lambda bench: bench.queue.pending),
    "names of queues that would expire": expiring(lambda bench: "asynq:queues"),
    "presence that never ends": endless(presence),
    "presence of another type": misplaced(presence),
}


@rows("case", KEYS.values(), ids=KEYS)
def test_damage_by_another_program_is_left_to_a_person(bench: Bench, case: KeyCase) -> None:
    case.do(bench)
    before = bench.server.contents()

    facts = bench.look()
    bench.repair(facts)

    assert plan(facts) == []
    assert [each.kind for each in for_a_person(facts)] == [case.kind]
    (finding,) = [each for each in diagnose(facts) if each.check == "keys"]
    assert (finding.level, "redis-cli" in finding.advice) == (Level.YELLOW, True)
    assert bench.server.contents() == before


def test_a_lock_of_another_type_is_reported_once(bench: Bench) -> None:
    """Workers and other readers of tasks handle it."""
    bench.raw.hset(lock(bench), "not", "ours")

    facts = bench.look()
    bench.repair(facts)

    assert [str(each.kind) for each in plan(facts)] == ["wrong_type"]
    assert not bench.raw.exists(lock(bench))


def test_the_lock_of_a_deleted_task_is_released(bench: Bench) -> None:
    for number in range(120):
        bench.raw.set(lock(bench, str(number)), "ghost", ex=600)

    facts = bench.look()
    repairs = bench.repair(facts)

    assert {str(each.kind) for each in plan(facts)} == {"lock_without_task"}
    assert len([each for each in repairs if each.is_done]) == 120
    assert plan(bench.look()) == []


def test_a_lock_acquired_after_the_check_is_kept(bench: Bench) -> None:
    bench.raw.set(lock(bench), "ghost", ex=600)
    facts = bench.look()
    assert len(plan(facts)) == 1

    bench.raw.set(lock(bench), "pending", ex=600)
    before = bench.server.contents()

    assert bench.repair(facts) == []
    assert bench.server.contents() == before


def test_an_idle_worker_is_not_reported_as_damage(bench: Bench) -> None:
    """It has no key of running tasks, and is listed with it all the same."""
    info = ServerInfo(host="box", pid=7, server_id="s1", concurrency=1, queues={"default": 1}).encode()
    server, workers = bench.keys.server("box", 7, "s1"), bench.keys.workers_of("box", 7, "s1")
    bench.broker.run(services.beat(server, workers, ttl_s=60, server_info=info, workers={}))
    for index, key in ((bench.keys.servers, server), (bench.keys.workers, workers)):
        bench.broker.run(services.index_presence(index, key, expiry_s=4_000_000_000))

    facts = bench.look()

    assert (plan(facts), for_a_person(facts)) == ([], [])


def test_a_busy_broker_has_nothing_to_repair(redis_server: RedisServer) -> None:
    """Locks come and go, groups become tasks, and workers start and stop, without any reported damage."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)

    @app.task(name="quick", retention=0)
    def quick(n: int) -> None: ...

    @app.aggregator("g", grace=1, max_size=5)
    def combine(group: str, tasks: list[Any]) -> Any:
        return quick.s(len(tasks))

    worker = Worker(app, WorkerConfig(aggregate_every=0.05))
    running = threading.Thread(target=worker.run)
    stop = threading.Event()

    def produce() -> None:
        n = 0
        while not stop.is_set():
            quick.using(unique_for=60).delay(n)
            quick.using(aggregate="g").delay(n)
            quick.using(run_after=0.5).delay(n)
            n += 1

    producing = threading.Thread(target=produce)
    running.start()
    producing.start()
    try:
        looks = [plan(read_facts(app)) for _ in range(5)]
    finally:
        stop.set()
        producing.join()
        worker.stop()
        running.join()
        app.close()

    assert looks == [[]] * 5


# --- interrupted operations -------------------------------------------------------------------------------------------


def test_an_interrupted_removal_is_completed(bench: Bench) -> None:
    """The repair deletes the tasks of the forced removal and keeps tasks enqueued since."""
    others = bench.others()
    bench.raw.delete(bench.queue.active, bench.queue.lease, bench.queue.task("active"))
    bench.broker.run(actions.close_queue(bench.queue, force=True))
    put(bench.broker, "new")

    facts = bench.look()
    repairs = bench.repair(facts)

    assert [(each.queue, each.kind) for each in plan(facts)] == [("default", "removal_cut_off")]
    assert [each.is_done for each in repairs] == [True]
    assert states(bench.broker) == {"new": "pending"}
    assert bench.others() == others
    assert plan(bench.look()) == []


# --- what needs a person ----------------------------------------------------------------------------------------------


def test_the_pause_of_a_queue_is_kept(bench: Bench) -> None:
    bench.raw.hset(bench.queue.paused, "not", "ours")

    facts = bench.look()
    bench.repair(facts)

    assert plan(facts) == []
    assert [(each.subject, each.kind) for each in for_a_person(facts)] == [(bench.queue.paused, "wrong_type")]
    assert [each.advice for each in diagnose(facts) if each.check == "types"] == [
        "the key pauses the queue: taskq queue resume default deletes it"
    ]
    assert bench.raw.hgetall(bench.queue.paused) == {b"not": b"ours"}
    bench.broker.run(actions.resume(bench.queue))  # as the advice says
    assert for_a_person(bench.look()) == []


def test_an_invalid_queue_name_is_reported(bench: Bench) -> None:
    bench.raw.sadd("asynq:queues", "} bad")

    facts = bench.look()

    assert [(left.queue, left.kind) for left in for_a_person(facts)] == [("} bad", "unusable_name")]
    (finding,) = [each for each in diagnose(facts) if each.check == "names"]
    assert (finding.level, finding.subject) == (Level.YELLOW, "} bad")
    assert finding.advice.endswith("redis-cli SREM asynq:queues '} bad'")


def test_repairs_without_permission_are_reported_and_the_others_are_done(
    redis_server: RedisServer, bench: Bench
) -> None:
    bench.raw.delete(bench.queue.pending)
    bench.raw.set(lock(bench), "ghost", ex=600)
    bench.raw.srem("asynq:queues", "other")
    rules = ("~asynq:*", "~taskq:*", "&*", "+@all", "-sadd")
    redis_server.command("ACL", "SETUSER", "ada", "reset", "on", ">pw", *rules)
    app = TaskQ(redis_server.unix_url.replace("unix://", "unix://ada:pw@"), enqueue_timeout=30)

    repairs = bench.repair(app=app)
    app.close()
    redis_server.command("ACL", "DELUSER", "ada")

    (failed,) = [each for each in repairs if not each.is_done]
    assert (failed.queue, "sadd" in failed.detail) == ("other", True)
    assert states(bench.broker) == HEALTHY
    assert not bench.raw.exists(lock(bench))


# --- other stores -----------------------------------------------------------------------------------------------------


def test_another_prefix_is_repaired(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what belongs to the application is looked at."""
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)
    app, other = (TaskQ(redis_server.unix_url, prefix=each, enqueue_timeout=30) for each in ("shop", "asynq"))
    for each in (app, other):
        each.remote("t").delay()
        queue = each.runtime.keys.queue("default")
        redis_server.client.set(queue.unique_prefix + "x", "ghost", ex=600)

    repairs = Repairer(app, read_facts(app), recheck_s=0).work()

    assert [(each.kind, each.subject) for each in repairs] == [("lock_without_task", "ghost")]
    assert not redis_server.client.exists("shop:{default}:unique:x")
    assert len(plan(read_facts(other))) == 1
    app.close()
    other.close()


def test_unusual_names_are_repaired(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test uses names with pattern characters, and a queue whose keys begin like those of another queue."""
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)
    app = TaskQ(redis_server.unix_url, prefix="a*[b]?", enqueue_timeout=30)
    for name in ("x*[y]", "d}:t:e"):
        app.remote("t", queue=name).delay()
        redis_server.client.set(app.runtime.keys.queue(name).unique_prefix + "x", "ghost", ex=600)

    facts = read_facts(app)
    Repairer(app, facts, recheck_s=0).work()

    assert [(each.queue, str(each.kind)) for each in plan(facts)] == [("x*[y]", "lock_without_task")]
    assert redis_server.client.exists(app.runtime.keys.queue("d}:t:e").unique_prefix + "x")
    app.close()


def test_a_full_store_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair works over the memory limit, because every script begins with a write that Redis never refuses."""
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)
    with RedisServer(options={"maxmemory-policy": "noeviction"}) as server:
        bench = Bench(server)
        bench.raw.delete(bench.queue.pending)
        bench.raw.set(lock(bench), "ghost", ex=600)
        server.command("CONFIG", "SET", "maxmemory", "1")

        repairs = bench.repair()
        bench.app.close()

        assert [each for each in repairs if not each.is_done] == []
        assert states(bench.broker) == HEALTHY
        assert not bench.raw.exists(lock(bench))


def test_a_script_reads_a_bounded_number_of_keys(bench: Bench) -> None:
    """A call checks about as many keys as requested, however many exist."""
    bench.raw.mset({f"taskq:{{default}}:rcpt:{number}": "1:1" for number in range(5_000)})

    found = bench.broker.run(diagnosis.survey("taskq:*", count=100))

    assert found.cursor != "0"
    assert len(found.keys) < 1000
