"""Test that `taskq doctor` checks and repairs every node of a cluster, and reports replicas."""

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import operation, views
from taskq_core.doctor.findings import Level
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.repair import Repairer, plan
from taskq_core.wire import QueueKeys
from tests.redis_server import start_cluster
from tests.taskq_core.doctor.test_doctor import SAFE, examine, of, one, server

pytestmark = pytest.mark.redis


def test_unsafe_replicas_are_a_warning_and_a_replica_as_broker_is_an_error() -> None:
    with server(tcp=True) as primary, server(replica_of=primary) as replica:
        primary.client.execute_command("WAIT", 1, 10_000)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        unguarded = one(examine(TaskQ(primary.unix_url)), "replication")
        wanting = one(examine(TaskQ(primary.unix_url, defaults={"replicated": 2})), "replication")
        primary.command("CONFIG", "SET", "min-replicas-to-write", "1")
        guarded = one(examine(TaskQ(primary.unix_url)), "replication")
        of_replica = one(examine(TaskQ(replica.unix_url)), "replication")

    assert (wanting.level, "need 2 replicas (option replicated), but only 1 are" in wanting.message) == (
        Level.RED,
        True,
    )
    assert (unguarded.level, "min-replicas-to-write 1" in unguarded.advice) == (Level.YELLOW, True)
    assert guarded.level is Level.GREEN
    assert (of_replica.level, "refuses writes" in of_replica.message) == (Level.RED, True)


def test_every_primary_of_a_cluster_is_checked() -> None:
    with start_cluster(options=SAFE) as nodes:
        nodes[1].command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        app = TaskQ(f"redis+cluster://127.0.0.1:{nodes[0].port}")
        app.remote("shop:greet").delay()

        findings = examine(app)

    assert {f"redis://127.0.0.1:{each.port}/0" for each in nodes} == {each.subject for each in of(findings, "version")}
    (evicting,) = (each for each in of(findings, "eviction") if each.level is Level.RED)
    assert str(nodes[1].port) in evicting.subject
    assert of(findings, "rights")[0].level is Level.GREEN


def test_a_cluster_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys on all primaries are checked and repaired."""
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)
    with start_cluster() as nodes:
        app = TaskQ(f"redis+cluster://127.0.0.1:{nodes[0].port}", enqueue_timeout=30)
        queues = [app.runtime.keys.queue(name) for name in ("a", "b", "c", "d")]
        send = app.runtime.runner.run
        for queue in queues:
            app.remote("t", queue=queue.name, unique_for=600).delay()
            send(operation.Operation("set", None, (lock_of(queue),), ("SET", lock_of(queue), "ghost", "EX", 600), str))
            send(operation.Operation("del", None, (queue.pending,), ("DEL", queue.pending), str))
        send(operation.Operation("del", None, ("asynq:queues",), ("DEL", "asynq:queues"), str))

        facts = read_facts(app)
        repairs = Repairer(app, facts, recheck_s=0).work()
        after = read_facts(app)
        pending = [send(views.count_tasks(queue)).sizes["pending"] for queue in queues]
        app.close()

    assert len(plan(facts)) == 3 * len(queues)
    assert [each for each in repairs if not each.is_done] == []
    assert len(repairs) == len(plan(facts))
    assert plan(after) == []
    assert [each.name for each in after.queues] == ["a", "b", "c", "d"]
    assert pending == [1] * len(queues)


def lock_of(queue: QueueKeys) -> str:
    return queue.unique_prefix + "t:ghost"
