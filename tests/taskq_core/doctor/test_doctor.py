"""The doctor: each fault is made on a real server and found there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from taskq_core import BrokerUnavailableError, TaskQ
from taskq_core.broker.operations import limits, services
from taskq_core.clock import SystemClock
from taskq_core.doctor.facts import Facts, NodeFacts
from taskq_core.doctor.findings import Finding, Level
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.rules import diagnose, unreachable
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = pytest.mark.redis
ROOT = Path(__file__).parents[3]
SAFE = {"maxmemory": "64mb", "maxmemory-policy": "noeviction", "appendfsync": "everysec"}


@pytest.fixture(autouse=True)
def _closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every application that a test created, so that the garbage collector finds no open connections."""
    made = TaskQ
    opened: list[TaskQ] = []

    def open_app(*args: Any, **values: Any) -> TaskQ:
        opened.append(made(*args, **{"enqueue_timeout": 30, **values}))
        return opened[-1]

    monkeypatch.setitem(globals(), "TaskQ", open_app)
    yield
    for app in opened:
        app.close()


@contextmanager
def server(**arguments: object) -> Iterator[RedisServer]:
    """A server as it should be, but for what a test says."""
    options = {**SAFE, **arguments.pop("options", {})}  # type: ignore[dict-item]  # a test gives a dict
    with RedisServer(appendonly=bool(arguments.pop("appendonly", True)), options=options, **arguments) as started:  # type: ignore[arg-type]  # a test knows what it passes
        yield started


def examine(app: TaskQ, **options: object) -> list[Finding]:
    try:
        return diagnose(read_facts(app, **options))  # type: ignore[arg-type]  # a test knows what it passes
    finally:
        app.close()


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def one(findings: list[Finding], check: str) -> Finding:
    (finding,) = of(findings, check)
    return finding


@pytest.fixture(scope="module")
def good_server() -> Iterator[RedisServer]:
    """A server as it should be."""
    with server(tcp=True) as started:
        yield started


@pytest.fixture
def good(good_server: RedisServer) -> RedisServer:
    good_server.flushall()
    return good_server


def test_a_healthy_server_has_only_green_findings(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    app.task(name="shop:greet")(lambda name: None).delay(name="Ada")
    Worker(app, WorkerConfig(burst=True)).run()

    findings = examine(TaskQ(good.unix_url))

    assert [finding for finding in findings if finding.level is not Level.GREEN] == []
    assert {finding.check for finding in findings} == {
        *("version", "persistence", "saving", "eviction", "memory", "clock", "replication"),
        *("rights", "types", "served", "limits", "workflows", "quarantine", "damage", "removal", "keys"),
    }
    assert all(not finding.advice for finding in findings)


def test_the_doctor_changes_nothing(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    app.remote("shop:greet").delay(name="Ada")
    before = good.contents()

    examine(app)

    assert good.contents() == before


# --- the server -------------------------------------------------------------------------------------------------------


def node(**info: str | int) -> Facts:
    facts = NodeFacts(address="redis://h/0", info=info, config={}, skew_s=0, skew_error_s=0)
    return Facts(nodes=[facts], refusals=[], wrong_types=[], queues=[])


@rows(
    ("info", "level"),
    [
        ({"redis_version": "6.0.20"}, Level.RED),
        ({"redis_version": "6.2.0"}, Level.GREEN),
        ({"redis_version": "255.255.255"}, Level.GREEN),
        ({"redis_version": ""}, Level.RED),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.9"}, Level.RED),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, Level.GREEN),
    ],
)
def test_an_old_version_is_red(info: dict[str, str | int], level: Level) -> None:
    """No such old server is at hand; this is what they say of themselves."""
    assert one(diagnose(node(**info)), "version").level is level


@rows(
    ("appendonly", "options", "level", "told"),
    [
        (False, {}, Level.RED, "a restart loses all tasks"),
        (False, {"save": ("3600", "1")}, Level.YELLOW, "since the last snapshot"),
        (True, {"appendfsync": "no"}, Level.YELLOW, "a power cut loses"),
        (True, {"appendfsync": "always"}, Level.GREEN, "appendfsync always"),
    ],
)
def test_missing_persistence_is_reported(appendonly: bool, options: dict[str, object], level: Level, told: str) -> None:
    with server(appendonly=appendonly, options=options) as started:
        found = one(examine(TaskQ(started.unix_url)), "persistence")

    assert (found.level, told in found.message) == (level, True)
    assert bool(found.advice) is (level is not Level.GREEN)


def test_a_snapshot_that_failed_is_red() -> None:
    with server(appendonly=False, options={"save": ("3600", "1")}) as started:
        app = TaskQ(started.unix_url)
        app.remote("shop:greet").delay()
        (started.folder / "dump.rdb").mkdir()  # a folder where the snapshot should go
        started.client.bgsave()
        while started.client.info("persistence")["rdb_bgsave_in_progress"]:
            pass

        findings = examine(app)

    assert one(findings, "saving").level is Level.RED
    assert "the last snapshot failed" in one(findings, "saving").message


@rows("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_any_eviction_policy_is_red(policy: str) -> None:
    with server(options={"maxmemory-policy": policy}) as started:
        found = one(examine(TaskQ(started.unix_url)), "eviction")

    assert found.level is Level.RED
    assert policy in found.message
    assert found.advice == "set maxmemory-policy noeviction"


def test_earlier_evictions_are_yellow() -> None:
    with server(options={"maxmemory-policy": "allkeys-random", "maxmemory": "3mb"}) as started:
        for number in range(60):
            started.client.set(f"filler:{number}", b"x" * 100_000)
        started.command("CONFIG", "SET", "maxmemory", "0")
        started.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

        found = one(examine(TaskQ(started.unix_url)), "eviction")

    assert found.level is Level.YELLOW
    assert "the server deleted" in found.message


@rows(("share", "level"), [(0.995, Level.RED), (0.85, Level.YELLOW), (0.5, Level.GREEN)])
def test_memory_near_its_limit_is_reported(share: float, level: Level) -> None:
    with server() as started:
        for number in range(1000):  # small values: Redis shrinks the buffer of a connection after large ones
            started.client.set(f"filler:{number}", b"x" * 20_000)
        used = int(started.client.info("memory")["used_memory"])
        started.command("CONFIG", "SET", "maxmemory", int(used / share))

        found = one(examine(TaskQ(started.unix_url)), "memory")

    assert found.level is level


class OffClock(SystemClock):
    """This machine's clock, set wrong."""

    def __init__(self, off_s: float) -> None:
        self.time = lambda: SystemClock.time() + off_s  # type: ignore[method-assign]  # as the class does itself


@pytest.mark.parametrize(
    ("off_s", "level", "told"),
    [(-5, Level.YELLOW, "ahead of"), (90, Level.RED, "behind"), (0, Level.GREEN, "agree")],
)
def test_different_clocks_are_reported(good: RedisServer, off_s: float, level: Level, told: str) -> None:
    """Setting the server's clock needs root, so this machine's is set wrong; only the difference is looked at."""
    found = one(examine(TaskQ(good.unix_url), clock=OffClock(off_s)), "clock")

    assert found.level is level
    assert told in found.message


# --- rights -----------------------------------------------------------------------------------------------------------

ALL = ("~asynq:*", "~taskq:*", "&asynq:*", "&taskq:*", "+@all")


def as_ada(started: RedisServer, *rules: str) -> TaskQ:
    """An application whose user may do what the rules say, and nothing else."""
    started.command("ACL", "SETUSER", "ada", "reset", "on", ">pw", "resetchannels", *rules)
    return TaskQ(f"redis://ada:pw@127.0.0.1:{started.port}/0")


@rows(
    ("rules", "subject", "advice"),
    [
        ((*ALL, "-evalsha"), "EVALSHA", "+evalsha"),
        ((*ALL, "-eval"), "EVAL", "+eval"),
        ((*ALL, "-blpop"), "BLPOP", "+blpop"),
        ((*ALL, "-blmove"), "BLMOVE", "+blmove"),
        ((*ALL, "-lpush"), "LPUSH", "+lpush"),
        ((*ALL, "-rename"), "RENAME", "+rename"),
        ((*ALL, "-exists"), "EXISTS", "+exists"),
        ((*ALL, "-del"), "DEL", "+del"),
        ((*ALL, "-subscribe"), "SUBSCRIBE", "+subscribe"),
        (("~asynq:*", *ALL[2:]), "keys taskq:*", "~taskq:*"),
        (("~taskq:*", *ALL[2:]), "keys asynq:*", "~asynq:*"),
        ((*ALL[:2], "&taskq:*", "+@all"), "channels asynq:cancel", "&asynq:cancel"),
        ((*ALL[:2], "&asynq:*", "+@all"), "channels taskq:*", "&taskq:*"),
    ],
)
def test_a_missing_permission_is_red(good: RedisServer, rules: tuple[str, ...], subject: str, advice: str) -> None:
    (found,) = of(examine(as_ada(good, *rules)), "rights")

    assert (found.level, found.subject) == (Level.RED, subject)
    assert found.advice == f"ACL SETUSER ... {advice}"


def test_the_check_of_permissions_leaves_no_key_even_without_the_permission_to_delete(good: RedisServer) -> None:
    (found,) = of(examine(as_ada(good, *ALL, "-del", "-unlink")), "rights")

    assert found.subject == "DEL"
    assert good.client.keys("*absent*") == []


def test_a_user_without_permissions_gets_no_findings_of_skipped_checks(good: RedisServer) -> None:
    TaskQ(good.unix_url).remote("shop:greet").delay()

    findings = examine(as_ada(good))

    assert {finding.check for finding in findings} == {"rights", "version"}
    assert all(finding.level is not Level.GREEN for finding in findings)


def test_without_permission_to_read_workers_no_missing_worker_is_reported(good: RedisServer) -> None:
    TaskQ(good.unix_url).remote("shop:greet").delay()

    findings = examine(as_ada(good, *ALL, "-zrangebyscore", "-zrange", "-get", "-mget"))

    assert of(findings, "served") == []


def test_a_missing_permission_that_only_tools_need_is_yellow(good: RedisServer) -> None:
    (found,) = of(examine(as_ada(good, *ALL, "-script")), "rights")

    assert (found.level, found.subject) == (Level.YELLOW, "SCRIPT|EXISTS")


def test_unknown_values_are_reported_to_a_user_without_permission(good: RedisServer) -> None:
    findings = examine(as_ada(good, *ALL, "-info", "-config"))

    assert one(findings, "version").level is Level.YELLOW
    assert not of(findings, "persistence")
    assert one(findings, "rights").level is Level.GREEN


def test_the_documented_permissions_are_sufficient(good: RedisServer) -> None:
    """A client, a worker and the doctor work with them, and the doctor reports no missing permission."""
    page = (ROOT / "docs/how-to/set-up-redis.md").read_text(encoding="utf-8")
    (rules,) = re.findall(r"^ACL SETUSER shop on >password (.*)$", page, re.MULTILINE)
    app = as_ada(good, *rules.split())

    @app.task(name="shop:add", retention=60)
    def add(a: int, b: int) -> int:
        return a + b

    handle = add.delay(1, 2)
    assert Worker(app, WorkerConfig(burst=True)).run() == 0
    assert handle.result(timeout=30) == 3
    findings = examine(app)
    assert one(findings, "rights").level is Level.GREEN
    assert [finding.check for finding in findings if finding.level is not Level.GREEN] == ["version", "served"]
    assert one(examine(as_ada(good, *rules.split(), "+info", "+config|get")), "persistence").level is Level.GREEN


def test_the_check_covers_exactly_the_commands_of_the_scripts() -> None:
    folder = files("taskq_core.broker") / "lua"
    used = {
        command
        for script in folder.iterdir()
        for command in re.findall(r"(?:redis\.p?call|own)\(\s*'([A-Z]+)'", script.read_text(encoding="utf-8"))
    }
    _, _, listed = (folder / "try_commands.lua").read_text(encoding="utf-8").partition("probes = {")
    tried = set(re.findall(r"'([A-Z]+)", listed.partition("}")[0]))

    assert used | {"GETEX"} == tried  # with it a worker renews a lease outside of scripts


def test_a_wrong_password_and_an_unreachable_server_are_findings(good: RedisServer) -> None:
    good.command("ACL", "SETUSER", "ada", "reset", "on", ">pw")
    with pytest.raises(BrokerAuthenticationError) as refused:
        examine(TaskQ(f"redis://ada:wrong@127.0.0.1:{good.port}/0"))
    with pytest.raises(BrokerUnavailableError) as gone:
        examine(TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01))

    assert "TASKQ_URL" in unreachable(refused.value).advice
    assert "wrong" not in unreachable(refused.value).message
    assert "the server runs there" in unreachable(gone.value).advice


# --- keys and queues --------------------------------------------------------------------------------------------------


@rows("key", ["asynq:{default}:lease", "taskq:{default}:wake", "asynq:servers", "asynq:queues"])
def test_a_key_of_a_wrong_type_is_red(good: RedisServer, key: str) -> None:
    app = TaskQ(good.unix_url)
    app.remote("shop:greet").delay()
    good.client.delete(key)
    good.client.hset(key, "someone", "else's")

    (found,) = of(examine(app), "types")

    assert (found.level, found.subject) == (Level.RED, key)
    assert "hash" in found.message


def test_a_queue_without_a_worker_is_yellow(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    app.remote("shop:greet", queue="lonely").delay()

    found = one(examine(app), "served")

    assert (found.level, found.subject) == (Level.YELLOW, "lonely")
    assert found.message == "waiting, while no running worker serves this queue: 1"
    assert "--queues lonely" in found.advice


def test_a_paused_queue_with_tasks_is_yellow(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    app.remote("shop:greet").delay()
    good.client.set("asynq:{default}:paused", "1")

    found = one(examine(app), "served")

    assert (found.level, found.advice) == (Level.YELLOW, "taskq queue resume default")


def test_a_worker_that_ignores_limits_is_reported(good: RedisServer) -> None:
    from taskq_core.wire import ServerInfo

    app = TaskQ(good.unix_url)
    for _ in range(2):
        app.remote("shop:greet", concurrency=1).delay()
    keys, queue = app.runtime.keys, app.runtime.keys.queue("default")
    for host, server_id in (("python", "01234567-89ab-cdef-0123-456789abcdef"), ("go", "f1234567-89ab-cdef-0123-0")):
        info = ServerInfo(host=host, pid=1, server_id=server_id, concurrency=1, queues={"default": 1}).encode()
        server = keys.server(host, 1, server_id)
        good.client.set(server, info, ex=30)
        app.runtime.runner.run(services.index_presence(keys.servers, server, expiry_s=4_000_000_000))
    app.runtime.runner.run(limits.admit(queue, owner="0123456789abcdef", leader_ms=1000))

    found = one(examine(app), "limits")

    assert (found.level, found.subject) == (Level.YELLOW, "default")
    assert "1 of its workers do not keep: go:1" in found.message


def go_serves(app: TaskQ, server: RedisServer) -> None:
    """Let the record of a Go worker say that it serves the default queue."""
    from taskq_core.wire import ServerInfo

    keys = app.runtime.keys
    info = ServerInfo(host="go", pid=1, server_id="s", concurrency=1, queues={"default": 1}).encode()
    server.client.set(keys.server("go", 1, "s"), info, ex=30)
    app.runtime.runner.run(services.index_presence(keys.servers, keys.server("go", 1, "s"), expiry_s=4_000_000_000))


def test_tasks_that_wait_for_a_limit_without_a_python_worker_are_reported(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    for _ in range(3):
        app.remote("go:greet", concurrency=1).delay()
    go_serves(app, good)

    found = one(examine(app), "limits")

    assert (found.level, found.subject) == (Level.YELLOW, "default")
    assert "no worker that keeps limits serves this queue: 2" in found.message
    assert "start a taskq worker with --queues default" in found.advice


def test_tasks_in_a_queue_that_only_go_workers_serve_are_reported(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    app.task(name="durable")(lambda: None)
    app.remote("go:greet").delay()
    go_serves(app, good)

    found = one(examine(app), "served")

    assert (found.level, found.subject) == (Level.YELLOW, "default")
    assert "only Go workers serve this queue, which task 'durable' uses" in found.message


def test_workflows_without_a_taskq_worker_are_reported(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    (app.remote("go:first").s(a=1) | app.remote("go:second").si()).delay()
    go_serves(app, good)

    found = one(examine(app), "workflows")

    assert (found.level, found.subject) == (Level.YELLOW, "default")
    assert "while no taskq worker serves it: 1" in found.message
    assert "--queues default" in found.advice
    assert "at_home" in found.advice


def test_workflows_with_a_taskq_worker_are_green(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    (app.remote("go:first").s(a=1) | app.remote("go:second").si()).delay()
    queue = app.runtime.keys.queue("default")
    app.runtime.runner.run(services.lead(queue.leader(services.LOOKOUT), owner="w", leader_ms=60_000))

    assert one(examine(app), "workflows").level is Level.GREEN


def test_a_queue_that_a_running_worker_serves_is_green(good: RedisServer) -> None:
    from taskq_core.wire import ServerInfo

    app = TaskQ(good.unix_url)
    app.remote("shop:greet").delay()
    info = ServerInfo(host="h", pid=1, server_id="s", concurrency=1, queues={"default": 1}).encode()
    keys = app.runtime.keys
    good.client.set(keys.server("h", 1, "s"), info, ex=30)
    app.runtime.runner.run(services.index_presence(keys.servers, keys.server("h", 1, "s"), expiry_s=4_000_000_000))

    assert one(examine(app), "served").level is Level.GREEN


def test_queues_without_workers_and_periodic_tasks_without_a_scheduler_are_reported(good: RedisServer) -> None:
    app = TaskQ(good.url, queues={"mail": 1})
    mail = app.task(name="mail", queue="mail")(lambda: None)
    app.task(name="report", queue="reports")(lambda: None)
    app.schedule("@hourly", mail, id="hourly mail")
    mail.using(run_after=3600).delay()

    findings = examine(app)

    later, never = of(findings, "served")
    assert (later.subject, later.message) == ("mail", "waiting, while no running worker serves this queue: 1")
    assert never.message == "no running worker serves this queue, which task 'report' uses"
    assert later.advice == "start a worker; without --queues, it serves this queue"
    assert never.advice == "start a worker with --queues reports, or add the queue to QUEUES"
    assert one(findings, "scheduler").message.endswith("periodic tasks of this application: hourly mail")


def test_a_quarantined_task_is_yellow(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    good.client.sadd("asynq:queues", "default")
    good.client.hset("asynq:{default}:t:broken", mapping={"msg": b"\xff\xff", "state": "pending"})
    good.client.lpush("asynq:{default}:pending", "broken")
    Worker(app, WorkerConfig(burst=True)).run()

    found = one(examine(TaskQ(good.unix_url)), "quarantine")

    assert (found.level, found.subject) == (Level.YELLOW, "default")
    assert "1 tasks could not be read" in found.message


def test_damage_is_yellow_and_a_quick_check_skips_it(good: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)
    app = TaskQ(good.unix_url)
    handle = app.remote("shop:greet").delay()
    good.client.delete("asynq:{default}:pending")  # its hash says pending, and it is in no list

    thorough, quick = examine(app), examine(app, is_thorough=False)

    assert one(thorough, "damage").level is Level.YELLOW
    assert "1 tasks" in one(thorough, "damage").message
    assert of(quick, "damage") == []
    assert good.client.exists(f"asynq:{{default}}:t:{handle.id}")


def test_a_partially_removed_queue_is_yellow(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    for _ in range(150):
        app.remote("shop:greet", queue="a b").delay()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Inspector(app).remove_queue("a b", force=True, progress=stop)

    found = one(examine(app), "removal")

    assert (found.level, found.subject, found.advice) == (Level.YELLOW, "a b", "taskq queue remove 'a b'")
    Inspector(app).remove_queue("a b")
    assert one(examine(app), "removal").level is Level.GREEN


def test_progress_is_reported_for_tasks_of_all_queues(good: RedisServer) -> None:
    app = TaskQ(good.unix_url)
    for queue in ("a", "b"):
        for _ in range(30):
            app.remote("shop:greet", queue=queue).delay()
    told: list[tuple[int, int]] = []

    examine(app, progress=lambda *now: told.append(now))

    assert told == sorted(told)
    assert told[-1] == (60, 60)
    assert (30, 60) in told


def test_the_worst_findings_are_listed_first() -> None:
    bad = node(redis_version="5.0", maxmemory=100, used_memory=85)

    levels = [finding.level for finding in diagnose(replace(bad, refusals=[]))]

    assert levels == sorted(levels, key=list(Level).index)
    assert levels[0] is Level.RED
