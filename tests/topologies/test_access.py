"""Test Redis users with exactly the documented rights, changes of passwords, and expired certificates."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from taskq_core import (
    BrokerUnavailableError,
    EnqueueError,
    EnqueueUnknownError,
    TaskNotFoundError,
    TaskQ,
    TaskQError,
    TaskState,
)
from taskq_core.broker.operations import runs, views
from taskq_core.broker.operations.steps import read_stream
from taskq_core.broker.roles import RedisVersion
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import Inspector
from taskq_core.scheduler import Scheduler
from taskq_core.views import Dashboard
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import WorkflowState, chain, group
from tests.conformance.stores import redis_programs
from tests.conformance.test_scripts import EVERY
from tests.redis_server import RedisServer, TlsFiles, start_cluster
from tests.relay import Relay
from tests.taskq_core.broker.test_roles import commands, rules_of

pytestmark = pytest.mark.redis

OUTSIDE = {"try_commands", "beat", "announce", "record_firing"}
"""Scripts that `test_every_script_runs` leaves out: they use keys with other names, or check all rights."""


@pytest.fixture(scope="module", params=redis_programs())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(tcp=True, binary=redis_programs()[request.param]) as server:
        yield server


@pytest.fixture(scope="module")
def newest() -> Iterator[RedisServer]:
    """The newest installed server. Unlike Redis 6.2, it reports which command was refused."""

    def version(name: str) -> tuple[str, list[int]]:
        flavour, _, numbers = name.partition("-")
        return flavour, [int(number) for number in numbers.split(".")]

    of_redis = [name for name in redis_programs() if name.startswith("redis-")]
    with RedisServer(tcp=True, binary=redis_programs()[max(of_redis, key=version)]) as server:
        yield server


def url_of(
    server: RedisServer, role: str, *changes: str, redis: RedisVersion | None = None, queues: Sequence[str] = ()
) -> str:
    """Create a user with a role and some changed rules, and return the URL of the user."""
    server.flushall()
    if redis is None:
        number = str(server.client.info("server")["redis_version"])
        redis = max(each for each in RedisVersion if each <= number or each is RedisVersion.V6_2)
    rules = ("resetchannels", "on", ">password", *rules_of(role, *queues, redis=redis), *changes)
    server.command("ACL", "SETUSER", role, "reset", *" ".join(rules).split())
    server.command("ACL", "LOG", "RESET")
    return f"redis://{role}:password@127.0.0.1:{server.port}/0"


def denied(server: RedisServer) -> set[str]:
    """Return the refused commands, without the commands by which redis-py announces its name."""
    entries = server.client.acl_log()
    return {str(entry["object"]) for entry in entries} - {"client", "client|setinfo", "hello"}


class TestRights:
    def test_a_worker_role_permits_an_application_to_do_everything(self, server: RedisServer) -> None:
        """The application enqueues in every way, runs tasks, fires a schedule, reads everything and acts on tasks."""
        app = TaskQ(url_of(server, "worker"), defaults={"retention": 60}, enqueue_timeout=60)

        @app.periodic("@every 1s")
        @app.task(name="add")
        def add(a: int = 1, b: int = 1) -> int:
            return a + b

        @app.task(name="fail", max_retry=0)
        def fail() -> None:
            raise ValueError

        @app.aggregator
        def together(group: str, tasks: list[Any]) -> Any:
            return add.s(len(tasks), 0)

        with closing(app):
            handle = add.delay(1, 2)
            add.using(unique_for=60, run_after=60).delay(3, 4)
            add.using(aggregate="g").delay()
            app.client.enqueue_many([add.s(5, 6), fail.s()])
            assert Worker(app, WorkerConfig(burst=True, with_scheduler=True, aggregate_every=0.1)).run() == 0
            assert handle.result(timeout=10) == 3
            waiting = app.remote("nobody").delay()
            assert waiting.cancel()
            inspector = Inspector(app)
            assert inspector.queues() == ["default"]
            assert inspector.queue_info("default").failed == 1
            (archived,) = inspector.tasks("default", TaskState.ARCHIVED).tasks
            inspector.run_task("default", archived.id)
            inspector.archive_task("default", archived.id)
            inspector.delete_task("default", archived.id)
            assert inspector.find_tasks("default", TaskState.SCHEDULED).tasks
            assert inspector.history("default", 2)
            assert inspector.memory_usage("default") > 0
            inspector.scheduler_entries()
            inspector.servers()
            assert not inspector.reconcile("default", repair=True).findings
            inspector.pause("default")
            inspector.resume("default")

        assert denied(server) == set()

    @pytest.mark.parametrize("name", sorted(EVERY.keys() - OUTSIDE))
    def test_every_script_runs(self, server: RedisServer, name: str) -> None:
        app = TaskQ(url_of(server, "worker"))
        with closing(app):
            queue = app.runtime.keys.queue("default")
            app.runtime.runner.run(EVERY[name](queue))

        assert denied(server) == set()

    def test_a_scheduler_role_permits_a_separate_scheduler(self, server: RedisServer) -> None:
        app = TaskQ(url_of(server, "worker"))
        app.periodic("@every 1s", id="e")(app.task(name="t")(do_nothing))
        with closing(app):
            asyncio.run(run_scheduler(app, server))

        assert denied(server) == set()

    async def test_a_producer_role_permits_to_enqueue(self, server: RedisServer) -> None:
        app = TaskQ(url_of(server, "producer"), defaults={"retention": 60}, enqueue_timeout=60)
        task = app.remote("t")
        handle = await task.adelay()
        await task.using(run_after=60, unique_for=60).adelay()
        await task.using(aggregate="g").adelay()
        await app.async_client.enqueue_many([task.s(), task.s()])
        assert (await handle.arefresh()).state.value == "pending"
        assert (await app.aget(handle.id)).state.value == "pending"
        with pytest.raises(TimeoutError):
            await handle.aresult(timeout=0.1)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(handle.result, 0.1)
        assert await handle.acancel()

        assert denied(server) == set()
        await app.aclose()

    async def test_a_producer_finds_tasks_of_its_queues_by_their_ids(self, server: RedisServer) -> None:
        """A producer may neither list the queues nor read other queues in the settings."""
        url = url_of(server, "producer", queues=["default"])
        admin = TaskQ(server.unix_url, enqueue_timeout=60)
        app = TaskQ(url, queues={"low": 1, "default": 1}, enqueue_timeout=60)
        sent = {queue: await admin.remote("t", queue=queue).adelay() for queue in ("default", "low", "hidden")}

        assert (await app.aget(sent["default"].id)).queue == "default"
        for queue in ("low", "hidden"):
            with pytest.raises(TaskNotFoundError):
                await app.aget(sent[queue].id)
        await app.aclose()
        await admin.aclose()

    async def test_a_producer_role_permits_workflows(self, server: RedisServer) -> None:
        """The workflows have steps in several queues, and a group that is stored in several batches."""
        app = TaskQ(url_of(server, "producer"), enqueue_timeout=60)
        task, other = app.remote("t"), app.remote("t", queue="other")
        long = group(task.s(n=n) for n in range(1000))
        for workflow in (chain(task.s(), other.s(), task.s()), long, group(other.s())):
            handle = await workflow.adelay()
            assert (await handle.arefresh()).state is WorkflowState.RUNNING
            with pytest.raises(TimeoutError):
                await handle.aresult(timeout=0.1)
            assert (await handle.agraph()).steps
            assert await handle.acancel()
            assert (await handle.arefresh()).state is WorkflowState.CANCELLED

        assert denied(server) == set()
        await app.aclose()

    def test_an_operator_role_permits_all_reads_and_actions(self, server: RedisServer) -> None:
        """They are on tasks of every kind, limits, groups, queues and workflows, enqueued by another user."""
        with closing(TaskQ(server.unix_url, defaults={"retention": 60}, enqueue_timeout=60)) as admin:
            url = url_of(server, "operator")
            task = admin.remote("t")
            ids = {name: handle.id for name, handle in store_as_admin(server).items()}
            moved, changed = task.delay(n=1).id, task.using(run_after=60, unique_for=60).delay(n=2).id
            workflow = chain(task.s(), admin.remote("t", queue="other").s()).delay()
            with closing(TaskQ(url)) as app:
                inspector = Inspector(app)
                inspector.run_task("default", ids["scheduled"])
                inspector.archive_task("default", ids["limited"])
                inspector.retry_task("default", ids["limited"], after=30)
                inspector.archive_task("default", ids["waiting"])
                inspector.delete_task("default", ids["waiting"])
                inspector.update_payload("default", changed, b'{"n":3}')
                inspector.reschedule_task("default", changed, after=30)
                inspector.move_task("default", moved, "other")
                inspector.archive_all("default", TaskState.SCHEDULED)
                inspector.run_all("default", TaskState.ARCHIVED)
                inspector.move_all("default", TaskState.PENDING, "other")
                inspector.cancel_task(ids["running"])
                inspector.set_limit("default", "t", rate="5/s")
                inspector.clear_limit("default", "t")
                inspector.pause("default")
                inspector.resume("default")
                assert inspector.groups("default")
                assert inspector.limits("default") is not None
                assert inspector.find_tasks("other", TaskState.PENDING).tasks
                assert inspector.history("default", 2)
                assert inspector.memory_usage("default") > 0
                assert inspector.queue_infos()
                assert inspector.servers() == inspector.scheduler_entries() == []
                assert inspector.redis_info()
                inspector.reconcile("default", repair=True)
                look_at_all(Dashboard(inspector), workflow.id)
                assert app.workflow(workflow.id).cancel()
                assert app.workflow(workflow.id).retry() == 0
                assert inspector.remove_queue("other", force=True)
                assert asyncio.run(refused_worker(app)) == 1

        assert denied(server) <= BY_A_WORKER

    async def test_a_producer_may_not_act_on_tasks(self, server: RedisServer) -> None:
        app = TaskQ(url_of(server, "producer"), enqueue_timeout=60)
        await app.remote("t").using(run_after=60).adelay()
        with pytest.raises(BrokerAuthenticationError):
            await asyncio.to_thread(Inspector(app).run_all, "default", TaskState.SCHEDULED)
        await app.aclose()

    @pytest.mark.parametrize("command", sorted(commands("producer")))
    def test_an_error_names_the_missing_command(self, newest: RedisServer, command: str) -> None:
        """The error names the command, and whether the operation may have taken effect."""
        url = url_of(newest, "producer", f"-{command.lower()}", redis=RedisVersion.V6_2)
        newest.client.script_flush()
        with closing(TaskQ(url, defaults={"retention": 60}, enqueue_timeout=60)) as app:
            task = app.remote("t")
            limited = task.using(rate_limit="1/h", concurrency=1)
            known = store_as_admin(newest)
            workflow_id = start_workflow_as_admin(newest)
            errors = [
                refusal_of(call)
                for call in (
                    task.delay,
                    lambda: task.using(run_after=60, unique_for=60).delay(n=1),
                    lambda: task.using(aggregate="g").delay(n=2),
                    *[partial(task.using(priority=5).delay, n=number) for number in (3, 4)],
                    *[partial(limited.delay, n=number) for number in (5, 6)],
                    lambda: app.get(known["waiting"].id).result(timeout=0.05),
                    *[partial(lambda handle: app.get(handle.id).refresh(), handle) for handle in known.values()],
                    *[lambda: app.get(known["scheduled"].id).signal("go")] * 2,
                    lambda: app.get(known["scheduled"].id).question(),
                    lambda: app.runtime.runner.run(read_stream(app.runtime.keys.queue("default"), "unknown")),
                    *[partial(lambda handle: app.get(handle.id).cancel(), handle) for handle in known.values()],
                    lambda: chain(task.s(), task.s()).delay(),
                    lambda: app.workflow(workflow_id).result(timeout=0.05),
                    lambda: app.workflow(workflow_id).cancel(),
                )
            ]

        refused = [each for each in errors if each is not None]
        if command in NOT_NEEDED:
            assert refused == []
        else:
            assert refused
            assert all(f"'{command.lower()}'" in str(each) for each in refused)
        for error in refused:
            if isinstance(error, EnqueueError):
                assert isinstance(error, EnqueueUnknownError) == ("in script" in str(error))

    def test_a_lock_without_read_permission_is_not_treated_as_free(self, newest: RedisServer) -> None:
        keys = ["pending", "scheduled", "groups", "t:*"]
        rules = ("resetkeys", "~taskq:*", "~asynq:queues", *(f"~asynq:{{default}}:{key}" for key in keys))
        with closing(TaskQ(url_of(newest, "producer", *rules, redis=RedisVersion.V6_2), enqueue_timeout=60)) as app:
            app.remote("t").delay()

            with pytest.raises(EnqueueUnknownError, match="No permissions to access a key"):
                app.remote("t").using(unique_for=60).delay(n=1)

        assert newest.client.llen("asynq:{default}:pending") == 1

    @pytest.mark.parametrize("command", ["hget", "hset", "lpush", "zadd"])
    async def test_a_worker_without_a_right_does_not_start(
        self, newest: RedisServer, command: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Otherwise it would remove tasks from their list and lose them."""
        app = TaskQ(url_of(newest, "worker", f"-{command}", redis=RedisVersion.V6_2))
        admin = TaskQ(newest.unix_url, enqueue_timeout=60)
        await admin.remote("t").adelay()

        assert await Worker(app, WorkerConfig(burst=True)).arun() == 1

        assert f"no permissions to run {command} in scripts on keys of queue 'default'" in caplog.text
        assert newest.client.llen("asynq:{default}:pending") == 1
        await app.aclose()
        await admin.aclose()


NOT_NEEDED = {
    "SREM": "the name of a group stays listed after its last member was cancelled",
    "LRANGE": "the running steps of a workflow that is cancelled go on",
    "LINSERT": "only where hundreds of urgent tasks wait",
    "ZCOUNT": "only where a queue may be full",
    "SETBIT": "only where a member of a group cannot be enqueued, as its arguments are too large",
}
"""Commands without which a producer still works, and what they are for."""


def refusal_of(call: Callable[[], Any]) -> TaskQError | None:
    """Return the permission error of a call, if it raised one."""
    try:
        call()
    except (EnqueueError, BrokerAuthenticationError) as error:
        return error
    except TimeoutError:
        pass
    return None


def store_as_admin(server: RedisServer) -> dict[str, Any]:
    """Return handles of tasks in several states, stored by a user with all rights."""
    with closing(TaskQ(server.unix_url, defaults={"retention": 60}, enqueue_timeout=60)) as app:
        queue, run = app.runtime.keys.queue("default"), app.runtime.runner.run
        task = app.remote("known")
        handles = {"running": task.delay()}
        run(runs.dequeue(queue, owner="w", call=1, limit=100, lease_s=30))
        handles["waiting"] = task.delay()
        handles["scheduled"] = task.using(run_after=60, unique_for=60).delay()
        handles["limited"] = task.using(rate_limit="1/h").delay()
        handles["grouped"] = task.using(aggregate="alone").delay()
        return handles


def start_workflow_as_admin(server: RedisServer) -> str:
    """Start a workflow as a user with all rights, and return its id."""
    with closing(TaskQ(server.unix_url, enqueue_timeout=60)) as app:
        return group(app.remote("known").s(), app.remote("known", queue="other").s()).delay().id


BY_A_WORKER = {
    "getex",
    "ltrim",
    "zmscore",
    "blmove",
    "xadd",
    "xlen",
    "incrby",
    "expireat",
    "zrangestore",
    "zremrangebyrank",
    "zremrangebyscore",
    "blpop",
    "ping",
}
"""Rights that only a worker needs."""


def look_at_all(dashboard: Dashboard, workflow_id: str) -> None:
    """Read all that dashboards show."""
    assert dashboard.queues().queues
    dashboard.queue("default")
    dashboard.types(["default"])
    dashboard.workers()
    assert dashboard.workflows("default").rows
    assert dashboard.workflow("default", workflow_id).graph.steps
    assert dashboard.store().user == "operator"


async def refused_worker(app: TaskQ) -> int:
    try:
        return await Worker(app, WorkerConfig(burst=True)).arun()
    finally:
        await app.aclose()


def do_nothing() -> None:
    """A task that does nothing."""


async def run_scheduler(app: TaskQ, server: RedisServer) -> None:
    scheduler = Scheduler(app)
    running = asyncio.create_task(scheduler.arun())
    deadline = time.monotonic() + 30
    # The scheduler has published its entries and enqueued a task.
    while not (server.client.exists("asynq:schedulers") and server.client.llen("asynq:{default}:pending")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    scheduler.stop()
    assert await running == 0


class TestTopologies:
    """Test the additional rights in the page's table for other topologies."""

    async def test_a_cluster(self) -> None:
        with start_cluster(nodes=1) as (node,):
            url = url_of(node, "worker").replace("redis://", "redis+cluster://").removesuffix("/0")
            await self.work(url)

            assert denied(node) == set()

    async def test_sentinels(self) -> None:
        with RedisServer(tcp=True) as primary, RedisServer(sentinel_of=primary) as sentinel:
            rules = ("on", ">theirs", "-@all", "+sentinel|get-master-addr-by-name")
            sentinel.command("ACL", "SETUSER", "looks", "reset", *rules)
            credentials = url_of(primary, "worker").removeprefix("redis://").partition("@")[0]
            name = RedisServer.MASTER_NAME
            sentinels = f"127.0.0.1:{sentinel.port}/{name}?sentinel_username=looks&sentinel_password=theirs"
            await self.work(f"redis+sentinel://{credentials}@{sentinels}")

            assert denied(primary) == denied(sentinel) == set()

    async def test_replicas(self) -> None:
        with RedisServer(tcp=True) as primary, RedisServer(tcp=True, replica_of=primary):
            await self.work(url_of(primary, "worker"), replicated=True)

            assert denied(primary) == set()

    async def work(self, url: str, **options: Any) -> None:
        app = TaskQ(url, enqueue_timeout=60, defaults={"retention": 60})
        ran: list[int] = []

        @app.task(name="note", **options)
        async def note(number: int) -> None:
            ran.append(number)

        await note.adelay(1)
        await asyncio.to_thread(app.client.enqueue, note.s(2))
        assert await Worker(app, WorkerConfig(burst=True)).arun() == 0
        assert sorted(ran) == [1, 2]
        await app.aclose()


class TestPassword:
    @asynccontextmanager
    async def working(self, server: RedisServer, url: str, ran: list[int]) -> AsyncIterator[tuple[TaskQ, Worker]]:
        app = TaskQ(url)

        @app.task(name="note")
        async def note(number: int) -> None:
            ran.append(number)

        worker = Worker(app, WorkerConfig(lease=2, heartbeat=0.5, safety_net=0.2))
        running = asyncio.create_task(worker.arun())
        yield app, worker
        worker.stop()
        assert await running == 0
        await app.aclose()

    async def test_a_password_changes_without_an_interruption(self, redis_server: RedisServer) -> None:
        """Old connections stay open. A worker whose password was removed retries until the password is valid again."""
        ran: list[int] = []
        with RedisServer(tcp=True) as server:
            server.command("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
            admin = TaskQ(server.unix_url, enqueue_timeout=60).remote("note")
            async with self.working(server, f"redis://app:old@127.0.0.1:{server.port}/0", ran):
                await admin.adelay(number=1)
                await until_ran(ran, 1)
                server.command("ACL", "SETUSER", "app", ">new")
                server.command("ACL", "SETUSER", "app", "<old")
                await admin.adelay(number=2)
                await until_ran(ran, 2)
                server.command("CLIENT", "KILL", "USER", "app")
                await admin.adelay(number=3)
                with closing(TaskQ(f"redis://app:old@127.0.0.1:{server.port}/0")) as late:
                    with pytest.raises(EnqueueError, match="refused the user or password") as refused:
                        await late.remote("note").adelay(number=9)
                    assert isinstance(refused.value.__cause__, BrokerAuthenticationError)
                    assert await Worker(late, WorkerConfig(burst=True)).arun() == 1, (
                        "the worker started with an invalid password"
                    )
                    await late.aclose()
                assert ran == [1, 2]
                server.command("ACL", "SETUSER", "app", ">old")
                await until_ran(ran, 3)

        assert ran == [1, 2, 3]


async def until_ran(ran: list[int], number: int) -> None:
    deadline = time.monotonic() + 60
    while number not in ran:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class TestCertificate:
    async def test_with_an_expired_certificate_nothing_is_sent(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        over = datetime.now(UTC) - timedelta(days=1)
        expired = authority.issue_cert("localhost", not_before=over - timedelta(days=9), not_after=over)
        expired.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        tls = TlsFiles(certificate=tmp_path / "server.pem", key=tmp_path / "server.pem", authority=tmp_path / "ca.pem")
        with RedisServer(tls=tls, password="secret") as server, SpyingRelay(("127.0.0.1", server.port)) as relay:
            url = f"rediss://:secret@localhost:{relay.port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
            app = TaskQ(url, enqueue_timeout=0.5)
            ping = views.ping()
            for once in (app.runtime.async_runner.run(ping), asyncio.to_thread(app.runtime.runner.run, ping)):
                with pytest.raises(BrokerUnavailableError, match=r"certificate (has expired|verify failed)") as why:
                    await once
                assert not why.value.may_have_happened
            for send in (app.remote("t").adelay, lambda: asyncio.to_thread(app.client.enqueue, app.remote("t").s())):
                with pytest.raises(EnqueueError) as refused:  # the last attempt may time out before the handshake
                    await send()
                assert isinstance(refused.value.__cause__, BrokerUnavailableError)
                assert not refused.value.__cause__.may_have_happened
            assert await Worker(app, WorkerConfig(burst=True)).arun() == 1
            await app.aclose()

            assert relay.sent
            assert all(data[0] in (0x15, 0x16) for data in relay.sent), (
                "data other than a handshake or its end was sent"
            )
            assert not server.client.keys("*")


class SpyingRelay(Relay):
    """A relay that records what clients send."""

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self.sent: list[bytes] = []

    def _intercept(self, pair: Any, data: bytes) -> None:
        self.sent.append(data)
        super()._intercept(pair, data)


def test_a_rediss_url_never_sends_plain_text(redis_server: RedisServer) -> None:
    """With a server without TLS, a call fails after it has sent only the beginning of a handshake."""
    with (
        SpyingRelay(redis_server.socket_path) as relay,
        closing(TaskQ(f"rediss://:secret@localhost:{relay.port}")) as app,
    ):
        runner = SyncRunner(app.runtime.endpoint, timeout_s=1)
        with pytest.raises(BrokerUnavailableError):
            runner.run(EVERY["scan_tasks"](app.runtime.keys.queue("default")))
        runner.close()

        assert relay.sent
        assert b"secret" not in b"".join(relay.sent)
        assert all(data[0] == 0x16 for data in relay.sent)
