"""Test the rules of `taskq acl` on a real server: what Redis permits and refuses to each role."""

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from taskq_core import EnqueueError, PeriodicTask, TaskContext, TaskQ, TaskState
from taskq_core.broker.operations import presence, steps
from taskq_core.broker.roles import Role
from taskq_core.cli.command import main
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import Inspector
from taskq_core.views import Dashboard
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import WorkflowState, chain, group
from taskq_exporter import Exporter
from tests.redis_server import RedisServer
from tests.topologies.test_access import do_nothing, newest, run_scheduler, start_workflow_as_admin, store_as_admin

__all__ = ["newest"]  # a fixture

pytestmark = pytest.mark.redis

Q = "default"
PASSWORD = "secret"
DIGEST = hashlib.sha256(PASSWORD.encode()).hexdigest()


def create_user(server: RedisServer, role: str, *options: str) -> str:
    """Send the line that `taskq acl` prints to Redis, and return the URL of the new user."""
    out = io.StringIO()
    chosen = [] if "--keep" in options else ["--password-hash", DIGEST]
    assert main(["acl", str(role), *chosen, *(options or ("--queue", Q))], stdout=out) == 0
    server.command(*out.getvalue().split())
    server.command("ACL", "LOG", "RESET")
    return f"redis://{role}:{PASSWORD}@127.0.0.1:{server.port}/0"


@pytest.fixture
def server(newest: RedisServer) -> Iterator[RedisServer]:
    newest.flushall()
    yield newest
    for role in Role:
        newest.command("ACL", "DELUSER", role)


def refused(server: RedisServer) -> set[str]:
    """Return the commands and keys that Redis refused, except the announcement of redis-py's name."""
    return {str(entry["object"]) for entry in server.client.acl_log()} - {"client", "client|setinfo"}


# --- permitted --------------------------------------------------------------------------------------------------------


def produce(app: TaskQ, server: RedisServer) -> None:
    """Enqueue in every way that needs no rights on lists, read results, cancel tasks, run and cancel workflows."""
    known = store_as_admin(server)
    task = app.remote("t")
    limited = task.using(concurrency=1, rate_limit="5/s")
    handles = [
        task.delay(),
        task.using(run_after=60, unique_for=60).delay(n=2),
        task.using(aggregate="g").delay(n=3),
        limited.delay(n=4),
        limited.delay(n=5),
    ]
    assert not app.client.enqueue_many([task.s(n=6), limited.s(n=7)]).errors
    for handle in [*handles, *known.values()]:
        app.get(handle.id).refresh()
    with pytest.raises(TimeoutError):
        handles[0].result(timeout=0.05)
    handles[1].signal("go", 1)
    for handle in [*handles, *known.values()]:
        assert app.get(handle.id).cancel()
    assert list(handles[1].stream()) == []
    big = group(task.s(n=n) for n in range(300))
    for workflow in (chain(task.s(), app.remote("t", queue="other").s()), big):
        begun = workflow.delay()
        assert begun.refresh().state is WorkflowState.RUNNING
        assert begun.graph().steps
        assert begun.cancel()


def work(app: TaskQ, server: RedisServer) -> None:
    """Enqueue in tasks, and run all tasks, also periodic tasks and workflows."""
    app.periodic("@every 1s")(app.task(name="tick")(do_nothing))

    @app.task(name="add")
    def add(a: int = 1, b: int = 1) -> int:
        return a + b

    @app.task(name="durable", retention=60)
    def durable(context: TaskContext) -> Any:
        context.emit(context.step("add", add, 1, 2))
        return context.receive("go"), context.call(add.s(1))

    started = durable.delay()
    started.signal("go", 1)
    handle = chain(add.s(2, 3), add.s(4)).delay()
    add.using(priority=5, rate_limit="9/s").delay()
    assert Worker(app, WorkerConfig(burst=True, with_scheduler=True)).run() == 0
    assert handle.refresh().state is WorkflowState.SUCCEEDED
    assert started.result(timeout=5) == [1, [2]]
    assert [each.value for each in started.stream()] == [3]


def schedule(app: TaskQ, server: RedisServer) -> None:
    app.periodic("@every 1s", id="e", unique_for=60)(app.task(name="t")(do_nothing))
    asyncio.run(run_scheduler(app, server))


def look(app: TaskQ, server: RedisServer) -> None:
    store_as_admin(server)
    workflow = start_workflow_as_admin(server)
    inspector = Inspector(app)
    assert inspector.tasks(Q, TaskState.PENDING).tasks
    assert inspector.find_tasks(Q, TaskState.SCHEDULED, name="known").tasks
    assert inspector.queue_info(Q).size
    assert inspector.history(Q, 2)
    assert inspector.memory_usage(Q)
    inspector.servers(), inspector.scheduler_entries()
    assert inspector.groups(Q)
    dashboard = Dashboard(inspector)
    assert dashboard.workflow(Q, workflow).graph.steps
    assert dashboard.store().user in ("viewer", "operator")
    queue = app.runtime.keys.queue(Q)
    app.runtime.runner.run(steps.read_steps(queue, "known"))
    app.runtime.runner.run(steps.read_stream(queue, "known"))


def operate(app: TaskQ, server: RedisServer) -> None:
    look(app, server)
    inspector = Inspector(app)
    task = app.remote("t")
    first, second = task.delay().id, task.using(priority=3).delay(n=1).id
    app.get(first).signal("go")
    app.runtime.runner.run(steps.forget_step(app.runtime.keys.queue(Q), first, "x"))
    inspector.archive_task(Q, first)
    inspector.run_task(Q, first)
    inspector.delete_task(Q, second)
    inspector.archive_all(Q, TaskState.SCHEDULED)
    inspector.delete_all(Q, TaskState.ARCHIVED)
    inspector.set_limit(Q, "t", rate="5/s")
    inspector.pause(Q)
    inspector.resume(Q)
    inspector.add_schedule(PeriodicTask("@daily", task, id="daily"))
    inspector.pause_schedule("daily")
    inspector.remove_schedule("daily")
    assert inspector.control_workers("quiet") == []
    app.runtime.runner.run(presence.send_control(app.runtime.keys.control, b"{}"))
    inspector.reconcile(Q, repair=True)
    assert app.workflow(start_workflow_as_admin(server)).cancel()
    inspector.remove_queue("other", force=True)


def export(app: TaskQ, server: RedisServer) -> None:
    store_as_admin(server)
    reading = asyncio.run(_read(app))
    assert [queue.info.problem for queue in reading.queues] == [""]
    assert all(queue.memory for queue in reading.queues)


async def _read(app: TaskQ) -> Any:
    try:
        return await Exporter(app).read()
    finally:
        await app.aclose()


PERMITTED: dict[Role, tuple[Callable[[TaskQ, RedisServer], None], set[str]]] = {
    Role.PRODUCER: (produce, {"lrange"}),  # to cancel running steps of a workflow, which continue without it
    Role.WORKER: (work, set()),
    Role.SCHEDULER: (schedule, set()),
    Role.OPERATOR: (operate, set()),
    Role.VIEWER: (look, set()),
    Role.EXPORTER: (export, set()),
}
"""For each role, the function that uses it, and the commands whose refusal has no effect."""


@pytest.mark.parametrize("version", ["7.2", "6.2"])
@pytest.mark.parametrize("role", [*PERMITTED])
def test_the_rights_of_a_role_suffice(server: RedisServer, role: Role, version: str) -> None:
    do, without_consequence = PERMITTED[role]
    url = create_user(server, role, "--queue", Q, "--queue", "other", "--redis", version)
    with closing(TaskQ(url, defaults={"retention": 60}, enqueue_timeout=60, limits={Q: 1000})) as app:
        do(app, server)

    assert refused(server) <= without_consequence


def test_with_lists_a_producer_uses_priorities_and_cancels_running_steps(server: RedisServer) -> None:
    url = create_user(server, "producer", "--queue", Q, "--with-lists")
    with closing(TaskQ(url, enqueue_timeout=60)) as app:
        task = app.remote("t")
        task.delay()
        task.using(priority=5).delay(n=1)
        task.using(priority=3).delay(n=2)
        assert chain(task.using(priority=2).s(), task.s()).delay().cancel()

    assert refused(server) == set()


def test_without_lists_a_priority_is_refused_before_anything_is_stored(server: RedisServer) -> None:
    url = create_user(server, "producer")
    with closing(TaskQ(url, enqueue_timeout=60)) as app, pytest.raises(EnqueueError, match="'lindex'"):
        app.remote("t").using(priority=5).delay()

    assert server.client.keys("asynq:{default}:*") == []


def test_a_user_with_several_roles(server: RedisServer) -> None:
    """The user is a worker of one queue that enqueues into another queue."""
    url = create_user(server, "worker")
    create_user(server, "producer", "--queue", "other", "--user", "worker", "--keep")
    with closing(TaskQ(url, enqueue_timeout=60)) as app:
        work(app, server)
        app.remote("t", queue="other").delay()
        with pytest.raises(BrokerAuthenticationError):
            Inspector(app).pause("other")


# --- forbidden --------------------------------------------------------------------------------------------------------

A, T, TASK = "asynq:{default}:", "taskq:{default}:", "asynq:{default}:t:known"
ADMIN = """
    CONFIG GET requirepass | ACL LIST | ACL SETUSER producer allkeys | FLUSHALL | FLUSHDB | KEYS * | RANDOMKEY
    SCRIPT FLUSH | FUNCTION LIST | MONITOR | CLIENT LIST | CLIENT KILL TYPE normal | SHUTDOWN NOSAVE
    MIGRATE h 1 k 0 9 | SWAPDB 0 1 | REPLICAOF NO ONE | SELECT 1
    GET session:admin | SET session:admin 1 | DEL session:admin | LPUSH asynq:{other}:pending x
    HMGET asynq:{other}:t:known msg | SET asynq:{other}:paused 1 | EXISTS asynq:{default}x | PSUBSCRIBE *
"""
LISTS_OF_IDS = f"""
    LRANGE {A}pending 0 -1 | LINDEX {A}pending 0 | LRANGE {A}active 0 -1 | LPOS {A}pending x | SCAN 0
    ZRANGE {A}scheduled 0 -1 | ZRANGE {A}retry 0 -1 | ZRANGE {A}archived 0 -1 | ZRANGE {A}completed 0 -1
    ZRANGE {A}lease 0 -1 | ZRANGE {A}g:alone 0 -1 | ZREVRANGE {A}scheduled 0 -1 | ZSCAN {A}scheduled 0
    ZRANGE {T}wf-running 0 -1 | ZRANGE {T}wf-steps 0 -1
    ZRANDMEMBER {A}scheduled | SORT {A}pending | ZRANGE asynq:servers 0 -1 | LRANGE asynq:schedulers:x 0 -1
"""
LISTS = f"{LISTS_OF_IDS} | SMEMBERS {A}groups | SMEMBERS asynq:queues"
DELETES = f"""
    DEL {A}pending | UNLINK {A}pending | LTRIM {A}pending 1 0 | RENAME {A}pending {A}t:x | SET {A}pending x
    EXPIRE {A}pending 1 | DEL {A}scheduled | ZREMRANGEBYRANK {A}scheduled 0 -1 | ZPOPMIN {A}scheduled | DEL {A}archived
    ZREM {A}archived known | ZREM {A}completed known | ZREM {A}lease known | EXPIRE {TASK} 1 | UNLINK {TASK}
    SREM asynq:queues default | DEL asynq:queues | DEL {A}groups | RPOP {A}pending | LPOP {A}pending | SPOP {A}groups
    DEL {T}limits | HSET {T}limits o:c:t 1 | DEL {T}wf-running
"""
PAUSES = f"SET {A}paused 1 | DEL {A}paused | SETEX {A}paused 9 1 | RENAME {TASK} {A}paused"
ACTS_AS_WORKER = f"""
    RPOP {A}pending | LMOVE {A}pending {A}active RIGHT LEFT | LPUSH {A}active known | ZADD {A}lease 1 known
    LREM {A}active 1 known | BLPOP {T}wake 1 | SET {T}leader:forwarder w | SET {T}call:w x | INCR {A}processed
    ZADD {A}completed 1 known | ZADD {A}archived 1 known | ZADD asynq:servers 1 x | HSET asynq:workers:x a b
    SUBSCRIBE asynq:cancel | ZADD {T}lim:keepers 1 w
"""
WRITES = f"""
    HSET {TASK} msg x | LPUSH {A}pending x | ZADD {A}scheduled 1 x | SADD asynq:queues x | SADD {A}groups x
    SET {A}unique:t:x y | LPUSH {T}wake 1 | SET {T}tick:e 1:1 | DEL {TASK} | PUBLISH asynq:cancel x
    PUBLISH {T}done x | HINCRBY {T}limits n 1 | ZADD asynq:scheduler_history:e 1 x
"""
CANCELS = f"DEL {TASK} | ZREM {A}scheduled known | PUBLISH asynq:cancel x | SUBSCRIBE {T}done"
FORBIDDEN: dict[tuple[Role, str], str] = {
    (Role.PRODUCER, "7.0"): "|".join((ADMIN, LISTS, DELETES, PAUSES, ACTS_AS_WORKER, f"SET {T}tick:e 1:1")),
    (Role.SCHEDULER, "7.0"): "|".join((ADMIN, LISTS, DELETES, PAUSES, ACTS_AS_WORKER, CANCELS)),
    (Role.VIEWER, "7.0"): "|".join((ADMIN, DELETES, PAUSES, ACTS_AS_WORKER, WRITES, CANCELS)),
    (Role.EXPORTER, "7.0"): "|".join((ADMIN, DELETES, PAUSES, ACTS_AS_WORKER, WRITES, CANCELS, "SCAN 0")),
    (Role.OPERATOR, "7.0"): f"{ADMIN} | ZADD asynq:servers 1 x | DEL asynq:workers | DEL asynq:scheduler_history:e",
    (Role.WORKER, "7.0"): ADMIN,
    (Role.PRODUCER, "6.2"): f"{ADMIN} | {LISTS_OF_IDS} | {PAUSES} | RPOP {A}pending | LPUSH {A}active known",
    (Role.SCHEDULER, "6.2"): f"""{ADMIN} | {LISTS} | {PAUSES} | RPOP {A}pending | LPUSH {A}active known
        DEL {A}archived | DEL {A}completed | ZADD {A}lease 1 known | DEL {T}wf-running
        PUBLISH asynq:cancel x | SUBSCRIBE asynq:cancel""",
    (Role.VIEWER, "6.2"): "|".join((ADMIN, DELETES, PAUSES, ACTS_AS_WORKER, WRITES, CANCELS)),
    (Role.EXPORTER, "6.2"): "|".join((ADMIN, DELETES, PAUSES, ACTS_AS_WORKER, WRITES, CANCELS, "SCAN 0")),
    (Role.OPERATOR, "6.2"): ADMIN,
    (Role.WORKER, "6.2"): ADMIN,
}
"""Commands that Redis must refuse to each role, from a client and in a script, by version of the rules."""


@pytest.mark.parametrize(("role", "version"), [*FORBIDDEN])
def test_redis_refuses_all_other_commands_of_a_role(server: RedisServer, role: Role, version: str) -> None:
    store_as_admin(server)
    with redis.Redis.from_url(create_user(server, role, "--queue", Q, "--redis", version)) as client:
        before = server.contents()
        allowed: list[str] = []
        for line in filter(str.strip, FORBIDDEN[role, version].replace("\n", "|").split("|")):
            try:
                client.execute_command(*line.split())  # type: ignore[no-untyped-call] # redis-py leaves it untyped
            except NoPermissionError:
                pass
            except redis.ResponseError as error:
                allowed.append(f"{line}: {error}")
            else:
                allowed.append(line)
            with suppress(redis.ResponseError):
                client.eval("return redis.call(unpack(ARGV))", 0, *line.split())
                allowed.append(f"{line} in a script")

        assert allowed == []
    assert server.contents() == before


BOTH = f"""
    DEL {A}pending | SET {A}pending x | DEL {A}scheduled | DEL {A}retry | DEL {A}groups | EXPIRE {A}g:alone 1
    DEL {T}lim:due | HSET {T}limits o:c:t 1 | DEL asynq:queues
"""
ONLY_SINCE_REDIS_7_REFUSED = {
    Role.PRODUCER: f"""{BOTH}
        DEL {A}archived | DEL {A}completed | ZADD {A}lease 1 known | ZREM {A}lease known | DEL {T}wf-running
        SMEMBERS asynq:queues | SMEMBERS {A}groups | SUBSCRIBE asynq:cancel""",
    Role.SCHEDULER: f"""{BOTH}
        HGETALL {TASK} | DEL {TASK} | ZREMRANGEBYSCORE {A}scheduled -inf +inf | HSET taskq:schedules e x""",
}
"""What the documentation says that a user can do with the rules for Redis 6.2 in addition to its role."""


@pytest.mark.parametrize("role", ONLY_SINCE_REDIS_7_REFUSED)
def test_the_rules_for_redis_6_2_permit_what_the_documentation_lists(server: RedisServer, role: Role) -> None:
    permitted: dict[str, list[str]] = {}
    lines = [line for line in ONLY_SINCE_REDIS_7_REFUSED[role].replace("\n", "|").split("|") if line.strip()]
    for version in ("6.2", "7.0"):
        server.flushall()
        store_as_admin(server)
        url = create_user(server, role, "--queue", Q, "--redis", version)
        for line in lines:
            # With protocol 3, redis-py would not return the answer to SUBSCRIBE.
            with redis.Redis.from_url(url, protocol=2) as client, suppress(NoPermissionError):
                client.execute_command(*line.split())  # type: ignore[no-untyped-call] # redis-py leaves it untyped
                permitted.setdefault(version, []).append(line)

    assert permitted == {"6.2": lines}


def test_a_producer_cannot_list_delete_pause_or_dequeue(server: RedisServer) -> None:
    """The test tries these four attacks with taskq's own classes."""
    store_as_admin(server)
    with closing(TaskQ(create_user(server, "producer"), enqueue_timeout=60)) as app:
        before = server.contents()
        inspector = Inspector(app)
        for attack in (
            *(lambda state=state: inspector.tasks(Q, state) for state in TaskState if state != "aggregating"),
            lambda: inspector.find_tasks(Q, TaskState.SCHEDULED),
            inspector.queues,
            lambda: inspector.delete_all(Q, TaskState.SCHEDULED),
            lambda: inspector.remove_queue(Q, force=True),
            lambda: inspector.pause(Q),
            lambda: inspector.resume(Q),
            lambda: inspector.pause_schedule("e"),
            lambda: app.runtime.runner.run(presence.send_control(app.runtime.keys.control, b"{}")),
        ):
            with pytest.raises(BrokerAuthenticationError):
                attack()
        assert asyncio.run(Worker(app, WorkerConfig(burst=True)).arun()) == 1

    assert server.contents() == before
